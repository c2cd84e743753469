"""The commands of `realdamage` that work on sets of photos before any training; heavy imports wait inside them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from realdamage.inference.errors import MissingExtraError, UsageError


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser("split", parents=[common], help="split a manifest", description=split.__doc__)
    command.add_argument("manifest", type=Path, metavar="DIR", help="folder with metadata.csv, which is changed")
    command.add_argument(
        "--fractions",
        type=_fractions,
        default="train=0.7,val=0.15,test=0.15",
        metavar="NAME=SHARE,…",
        help="shares of train, val, test and policy (%(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, help="another seed, other splits (%(default)s)")
    command.add_argument("--overwrite", action="store_true", help="replace splits that are there")
    command.set_defaults(run=split)


def split(arguments: argparse.Namespace) -> int:
    """Assign photos to train, val and test, and write the column `split` into the manifest. Photos of one group, or of
    one pair, stay together."""
    with extra("analysis", "realdamage split"):
        from realdamage.data.manifest import METADATA_NAME, read_manifest, write_manifest
        from realdamage.data.splits import assign_splits
    if arguments.manifest.is_file() and arguments.manifest.name != METADATA_NAME:
        raise UsageError(f"{arguments.manifest}: splits go into {METADATA_NAME}; name its folder, or rename the file")
    manifest = read_manifest(arguments.manifest)
    if (manifest.table["split"] != "").any() and not arguments.overwrite:
        raise UsageError(
            f"{manifest.root}: the manifest has splits already; models may have been trained on them. "
            "Keep them, or assign new ones with --overwrite"
        )
    table = manifest.table.assign(split=assign_splits(manifest.table, arguments.fractions, arguments.seed))
    path = write_manifest(manifest.root, table)
    counts = table["split"].value_counts()
    print(f"{path}: " + ", ".join(f"{counts[name]} {name}" for name in arguments.fractions if name in counts))
    return 0


@contextmanager
def extra(name: str, command: str) -> Iterator[None]:
    """Around imports: a package of others that is missing is told as the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("realdamage"):
            raise
        raise MissingExtraError(command, name, error.name) from None


def _fractions(text: str) -> dict[str, float]:
    try:
        return {name: float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write shares as train=0.7,val=0.15,test=0.15") from None
