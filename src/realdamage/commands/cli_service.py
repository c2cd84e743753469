"""`realdamage serve`: the HTTP service from the command line; its options are the fields of `Settings`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from typing import Any

from realdamage.commands.cli_data import extra
from realdamage.service.settings import PREFIX, Settings, option_of, plain_type, read_settings


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parser; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser(
        "serve",
        parents=[common],
        help="judge photos and claims over HTTP",
        description=serve.__doc__,
        epilog=f"Every option may also be given as a variable: --max-photos as {PREFIX}MAX_PHOTOS.",
    )
    for item in fields(Settings):
        kind, default = plain_type(item.name), item.default
        shown = "" if default in (None, "") or kind is bool else f" ({default})"
        if kind is bool:
            command.add_argument(
                option_of(item.name), action="store_const", const=True, help=item.metadata["help"]
            )
        else:
            command.add_argument(
                option_of(item.name),
                type=kind,
                metavar=item.metadata["metavar"],
                help=item.metadata["help"] + shown,
            )
    command.add_argument(
        "--hash-key",
        nargs="?",
        const="client",
        metavar="NAME",
        help="read a key from standard input, print the line to store for it, and exit",
    )
    command.set_defaults(run=serve)


def serve(arguments: argparse.Namespace) -> int:
    """Serve POST /v1/photos and POST /v1/claims, a review page at /, and /docs. Nothing is written to the disk unless
    --store is given and a request says keep=true. Stops at SIGTERM after finishing what it has; SIGHUP reads the
    keys and the model file anew."""
    with extra("serve", "realdamage serve"):
        from realdamage.service import keys, server

    if arguments.hash_key is not None:
        print(keys.hash_key(sys.stdin.readline(), arguments.hash_key))
        return 0
    server.serve(read_settings(_typed(arguments), os.environ))
    return 0


def _typed(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed, by the names of the settings; None for what was not."""
    return {item.name: getattr(arguments, item.name) for item in fields(Settings)}
