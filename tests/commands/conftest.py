"""Runs `realdamage` as people type it, in this process."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from realdamage.commands.cli import main


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def type_in(capfd):
    """`type_in("predict", folder, "--model", file)`: its exit code and what it printed."""

    def run(*words):
        capfd.readouterr()
        return Done(main([str(word) for word in words]), *capfd.readouterr())

    return run
