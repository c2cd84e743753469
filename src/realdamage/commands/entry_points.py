"""What the console scripts of the Hydra commands call. A command is imported when it is used, so
that a base install names the missing extra instead of printing a stack trace."""

from __future__ import annotations

import importlib
import sys
from functools import partial

from realdamage.errors import MissingExtraError


def _run(name: str) -> None:
    """Runs a command's `main`. Exits with MissingExtraError's code when another project's package
    is not installed, and with 130 on Ctrl-C, which may come while torch is imported."""
    try:
        importlib.import_module(f"realdamage.commands.{name}").main()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "realdamage":  # a fault of the program
            raise
        extra = MissingExtraError(f"realdamage-{name}", "train", missing)
        print(f"error: {extra}", file=sys.stderr)
        sys.exit(extra.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


train = partial(_run, "train")
evaluate = partial(_run, "evaluate")
export = partial(_run, "export")
synthesize = partial(_run, "synthesize")
folds = partial(_run, "folds")
