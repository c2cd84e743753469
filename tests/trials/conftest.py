"""Imports the developers' tools, which are no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def readme_figures() -> ModuleType:
    return _tool("readme_figures")


@pytest.fixture(scope="session")
def guarantee_simulation() -> ModuleType:
    return _tool("guarantee_simulation")


@pytest.fixture(scope="session")
def train_codec() -> ModuleType:
    return _tool("train_codec")
