"""The Typer application of `realdamage`: what its commands share.

The commands do without `from __future__ import annotations`: Typer would evaluate 150 strings at
every start.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand

from realdamage.errors import MissingExtraError, RealDamageError
from realdamage.phrases import printable

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
Function = TypeVar("Function", bound=Callable[..., Any])
_EXTRAS: dict[str, str] = {}
_SEVERAL = ("--photo", "--listing")


def opt(text: str, *names: str, metavar: str | None = None) -> Any:
    """An option with its help text; `names`: other than the name of the parameter."""
    return typer.Option(*names, help=text, metavar=metavar)


def arg(text: str, metavar: str | None = None) -> Any:
    """An argument with its help text."""
    return typer.Argument(help=text, metavar=metavar)


PREDICTIONS = "predictions.csv or .parquet of realdamage-evaluate"
Photos = Annotated[list[str], arg("Photos, folders (with all below) or globs", "PHOTO")]
Manifest = Annotated[Path, opt("Folder of labelled photos")]
Model = Annotated[Path | None, opt("The .onnx file; default: the model in the package")]
JudgedBy = Annotated[Path | None, opt("The .onnx file that judged the photos")]
Device = Annotated[Literal["cpu", "cuda"], opt("Where the network runs")]
Threads = Annotated[int | None, opt("CPU threads; default: all available, at most 4")]
Prior = Annotated[float | None, opt("Share of synthetic photos among yours, 0 to 1")]
Seed = Annotated[int, opt("Seed of the random draws")]
Workers = Annotated[int | None, opt("Processes; default: one for each processor")]
Overwrite = Annotated[bool, opt("Replace what is there already", "--overwrite")]
Json = Annotated[Path | None, opt("Write all results to this JSON file", "--json")]
Html = Annotated[Path | None, opt("Write a page to this file")]


def command(extra: str = "", **settings: Any) -> Callable[[Function], Function]:
    """Add a function, which returns the exit code. extra: the extra that installs what it needs."""

    def add(function: Function) -> Function:
        _EXTRAS[function.__name__.replace("_", "-")] = extra
        return commands.command(cls=_Command, **settings)(function)

    return add


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let `--photo a b` mean `--photo a --photo b`, since shells expand globs that way."""
        words: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                option = word if word in _SEVERAL else ""
            elif option and words[-1] != option:
                words.append(option)
            words.append(word)
        return super().parse_args(ctx, words)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error becomes one line. (Typer turns Ctrl-C into exit code 130.)"""
        code = 0
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough: `realdamage predict … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Exception as error:
            if ctx.find_root().params["debug"]:
                raise
            code = _report(error, self.name or "")
        raise typer.Exit(code)


def _report(error: Exception, name: str) -> int:
    """Print the error and return its exit code."""
    missing, extra = getattr(error, "name", None) or "", _EXTRAS[name]
    if isinstance(error, ModuleNotFoundError) and extra and not missing.startswith("realdamage"):
        error = MissingExtraError(f"realdamage {name}", extra, missing)
    if isinstance(error, RealDamageError):
        warn(str(error))
        return error.exit_code
    warn(
        f"{type(error).__name__}: {error}. This is a bug: run the command again with --debug and "
        "report what it prints"
    )
    return RealDamageError.exit_code


def warn(message: str) -> None:
    """Print a message on standard error."""
    note(f"realdamage: {message}")


def note(line: str) -> None:
    """Print a line on standard error, without the control characters of a stranger's file name."""
    print(printable(line, keep="\n"), file=sys.stderr)


def count(number: float, one: str) -> str:
    """`1 photo`, `2 photos`, `0.5 days`."""
    return f"{number:,.15g} {one}{'' if number == 1 else 's'}"
