"""The `realdamage` command. A command imports what it needs when it runs: no torch, no pandas."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from realdamage.commands import (  # noqa: F401 (they register)
    app,
    claims,
    data,
    model,
    predict,
    serve,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line. Returns the exit code.

    0: done; 1: something was judged bad; 2: wrong usage; 3: could not run; 130: Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "--debug" in (words[: words.index("--")] if "--" in words else words):
        words.remove("--debug")  # people add it to the end of the line
        words.insert(0, "--debug")
    try:
        app.commands(words, prog_name="realdamage")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _print_version(asked: bool) -> None:
    if asked:
        from realdamage import __version__  # reading the installed metadata is slow

        print(f"realdamage {__version__}")
        raise typer.Exit


_VERSION = typer.Option(
    "--version", help="Print the version", callback=_print_version, is_eager=True
)


@app.commands.callback()
def realdamage(
    debug: Annotated[bool, app.opt("Show the stack trace of an error", "--debug")] = False,
    version: Annotated[bool, _VERSION] = False,
) -> None:
    """Distinguishes photos of real damage from AI-synthesized damage."""
