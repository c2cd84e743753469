"""`realdamage serve`: the HTTP service from the command line; its options are the fields of
`Settings`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from realdamage.commands.cli_data import extra
from realdamage.errors import MissingExtraError


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parser; `commands`: what `add_subparsers` returned; `common`: the options that
    all commands have."""
    command = commands.add_parser(
        "serve",
        parents=[common],
        help="judge photos and claims over HTTP",
        description=serve.__doc__,
        epilog="Every option is also a variable: --max-photos as REALDAMAGE_MAX_PHOTOS.",
    )
    command.add_argument(
        "--hash-key",
        nargs="?",
        const="client",
        metavar="NAME",
        help="read a key from standard input, print the line to store for it, and exit",
    )
    command.set_defaults(run=serve)
    parse = command.parse_known_args

    def parse_with_settings(*given: Any) -> Any:
        # The options come from pydantic, which the other commands neither need nor wait for.
        try:
            with extra("serve", "realdamage serve"):
                _add_settings(command)
        except MissingExtraError as error:
            command.exit(error.exit_code, f"realdamage: {error}\n")
        return parse(*given)

    command.parse_known_args = parse_with_settings


def _add_settings(command: argparse.ArgumentParser) -> None:
    from realdamage.service.settings import Settings, option_of

    for name, field in Settings.model_fields.items():
        text = field.description
        if field.annotation is bool:
            command.add_argument(option_of(name), action="store_const", const=True, help=text)
        else:
            default = "" if field.default in (None, "") else f" (default: {field.default})"
            command.add_argument(option_of(name), help=f"{text}{default}")


def serve(arguments: argparse.Namespace) -> int:
    """Serve POST /v1/photos and POST /v1/claims, a review page at /, and /docs. Nothing is
    written to the disk unless --store is given and a request says keep=true. Stops at SIGTERM
    after finishing what it has; SIGHUP reloads the keys and the model file."""
    from realdamage.service import auth, server
    from realdamage.service.settings import Settings, read_settings

    if arguments.hash_key is not None:
        print(auth.hash_key(sys.stdin.readline(), arguments.hash_key))
        return 0
    server.serve(read_settings({name: getattr(arguments, name) for name in Settings.model_fields}))
    return 0
