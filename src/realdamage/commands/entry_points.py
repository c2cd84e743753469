"""What the console scripts of the Hydra commands call. A command is imported when it is used, so that a base install
names the missing extra instead of printing a stack trace."""

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
    """Runs the command's `main`. Exits with MissingExtraError's code when another project's package is not installed,
    and with 130 on Ctrl-C, which may come while torch is imported. A missing module of ours keeps its stack trace."""
    try:
        importlib.import_module(f"realdamage.commands.{name}").main()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "realdamage":
            raise
        extra = MissingExtraError(f"realdamage-{name}", "train", missing)
        print(f"error: {extra}", file=sys.stderr)
        sys.exit(extra.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
