"""The `realdamage` command: tells what a model file holds, hands the rest on. No Hydra and no torch."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from realdamage.commands import (
    cli_claims,
    cli_data,
    cli_evaluation,
    cli_listing,
    cli_model,
    cli_predict,
    cli_service,
)
from realdamage.errors import RealDamageError, UsageError
from realdamage.phrases import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code: 0 done, 1 something judged bad, 2 usage, 3 could not run."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if "run" not in arguments:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `realdamage predict … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if arguments.debug:
            raise
        if isinstance(error, RealDamageError):
            _tell(str(error))
            return error.exit_code
        _tell(
            f"{type(error).__name__}: {error}. This is a bug: run it again with --debug and report what it prints"
        )
        return RealDamageError.exit_code
    return code


def info(arguments: argparse.Namespace) -> int:
    """Print the metadata of a model file as JSON, after checking the file."""
    from realdamage.core.detector import PACKAGED_MODEL
    from realdamage.core.model_file import read_model_file

    path = arguments.model or PACKAGED_MODEL
    data, metadata, graph_sha256 = read_model_file(path)
    values = {"file": str(path), "bytes": len(data), "graph_sha256": graph_sha256}
    print(json.dumps({**values, **json.loads(metadata.to_json())}, indent=2))
    return 0


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the stack trace of an error")
    parser = _Parser(
        prog="realdamage",
        description="Tells photographs of real damage from AI-synthesized damage.",
    )
    parser.add_argument(
        "--version", action=_PrintVersion, nargs=0, help="print the version and exit"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    cli_predict.add_commands(commands, common)
    cli_model.add_commands(commands, common)
    cli_evaluation.add_commands(commands, common)
    cli_data.add_commands(commands, common)
    cli_claims.add_commands(commands, common)
    cli_listing.add_commands(commands, common)
    cli_service.add_commands(commands, common)

    command = commands.add_parser(
        "info", parents=[common], help="show a model's metadata", description=info.__doc__
    )
    command.add_argument(
        "model", type=Path, nargs="?", help="the .onnx file; default: the one in the package"
    )
    command.set_defaults(run=info)
    return parser


class _Parser(argparse.ArgumentParser):
    """Names the near match of a misspelt option, command or choice. The commands' own parsers are of this class too."""

    _typed: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._typed = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        super().error(message + self._hint(message))

    def _hint(self, message: str) -> str:
        wrong = re.search(
            r"invalid choice: '(?P<word>.*?)' \(choose from (?P<choices>.*)\)$", message
        )
        if wrong:
            choices = [choice.strip("'") for choice in wrong["choices"].split(", ")]
            return _did_you_mean([wrong["word"]], choices)
        if not message.startswith(
            ("unrecognized arguments", "the following arguments are required")
        ):
            return ""
        options = self._options()
        names = [word.partition("=")[0] for word in self._typed if word.startswith("--")]
        return _did_you_mean(
            [name for name in names if not any(opt.startswith(name) for opt in options)], options
        )

    def _options(self) -> list[str]:
        """Those of this parser and of the command that was typed: argparse finds fault here with what the command
        knows nothing of."""
        commands = [
            action.choices
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
        ]
        typed = [choices[word] for choices in commands for word in self._typed if word in choices]
        return [option for parser in (self, *typed) for option in parser._option_string_actions]


def _did_you_mean(words: Iterable[str], choices: Sequence[str]) -> str:
    """For the first word that comes near one of the choices."""
    near = (
        (word, found) for word in words for found in difflib.get_close_matches(word, choices, n=1)
    )
    return next((f" ({word}: did you mean {found}?)" for word, found in near), "")


class _PrintVersion(argparse.Action):
    """Looks the version up only when it is asked for: reading the installed metadata is slow."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from realdamage import __version__

        print(f"realdamage {__version__}")
        parser.exit()


def _tell(message: str) -> None:
    print(printable(f"realdamage: {message}", keep="\n"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
