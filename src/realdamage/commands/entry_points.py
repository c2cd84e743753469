"""Entry points of the five Hydra commands: they load the command on use, so that a base install names the missing extra
instead of a stack trace."""

from __future__ import annotations

import importlib
import sys

from realdamage.errors import MissingExtraError


def train() -> None:
    """`realdamage-train`: fine-tunes a network."""
    _run("train")


def evaluate() -> None:
    """`realdamage-evaluate`: scores a manifest and measures."""
    _run("evaluate")


def export() -> None:
    """`realdamage-export`: from a checkpoint to an ONNX file."""
    _run("export")


def synthesize() -> None:
    """`realdamage-synthesize`: makes a set of photos by a recipe."""
    _run("synthesize")


def folds() -> None:
    """`realdamage-folds`: leaves families out, trains and measures."""
    _run("folds")


def _run(name: str) -> None:
    """Imports `realdamage.<name>` and runs its `main`. Exits with MissingExtraError's code when a package of others is
    not installed, and with 130 on Ctrl-C, which may well come while torch is imported; a module of ours that is missing
    is a fault of the program and keeps its stack trace."""
    try:
        importlib.import_module(f"realdamage.commands.{name}").main()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "realdamage":
            raise
        told = MissingExtraError(f"realdamage.commands.{name}", "train", missing)
        print(f"error: {told}", file=sys.stderr)
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
