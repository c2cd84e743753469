"""The commands of `realdamage` that work on sets of photos before any training; heavy imports wait inside them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from realdamage.inference.errors import MissingExtraError, UsageError
from realdamage.inference.progress import track


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
    command.add_argument(
        "--damaged",
        type=_fractions,
        metavar="NAME=SHARE,…",
        help="shares for groups with a really damaged photo, on which false alarms are counted; default: --fractions",
    )
    command.add_argument(
        "--near-duplicates",
        action="store_true",
        help="look at the photos too: those that show the same join one group and stay together",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="write a split table (CSV), not the manifest")
    command.add_argument("--seed", type=int, default=0, help="another seed, other splits (%(default)s)")
    command.add_argument("--overwrite", action="store_true", help="replace splits that are there")
    command.set_defaults(run=split)
    command = commands.add_parser(
        "manifest", parents=[common], help="write metadata.csv for another layout", description=manifest.__doc__
    )
    command.add_argument("source", type=Path, metavar="SOURCE", help="folder of photos, or a table of them")
    # Named here, because the list itself lives in a module that needs pandas; a test compares the two.
    command.add_argument(
        "--layout",
        choices=("auto", "manifest", "imagefolder", "folders", "fraudbench", "table"),
        help="how the photos lie there (default: look, or as FILE says)",
    )
    command.add_argument(
        "--columns",
        type=Path,
        metavar="FILE",
        help="YAML with `columns` (our name: theirs), `values` (our column: {their word: ours}), `constants`",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="folder above the photos (default: theirs)")
    command.add_argument("--overwrite", action="store_true", help="replace a metadata.csv that is there")
    command.set_defaults(run=manifest)


def split(arguments: argparse.Namespace) -> int:
    """Assign photos to train, val, test and policy, and write the column `split` into the manifest. Photos of one
    group, or of one pair, stay together."""
    with extra("analysis", "realdamage split"):
        from realdamage.data.duplicates import near_duplicate_groups
        from realdamage.data.manifest import METADATA_NAME, write_manifest
        from realdamage.data.readers import read_dataset
        from realdamage.data.splits import assign_splits, write_split_table
        from realdamage.data.vocabulary import SPLITS
    output: Path | None = arguments.output
    if arguments.manifest.is_file() and arguments.manifest.name != METADATA_NAME and not output:
        raise UsageError(f"{arguments.manifest}: splits go into {METADATA_NAME}; name its folder, or rename the file")
    manifest = read_dataset(arguments.manifest)
    if output and output.exists() and not arguments.overwrite:
        raise UsageError(f"{output}: there is a split table already; replace it with --overwrite")
    if (manifest.table["split"] != "").any() and not arguments.overwrite and not output:
        raise UsageError(
            f"{manifest.root}: the manifest has splits already; models may have been trained on them. "
            "Keep them, or assign new ones with --overwrite"
        )
    table = manifest.table
    if arguments.near_duplicates:
        group, found = near_duplicate_groups(manifest, progress=track)
        for warning in found.warnings:
            print(f"realdamage: {warning}", file=sys.stderr)
        print(
            f"{len(found.pairs)} pairs of photos look alike: {table['group'].nunique()} groups became {group.nunique()}"
        )
        table = table.assign(group=group)
    table = table.assign(split=assign_splits(table, arguments.fractions, arguments.seed, arguments.damaged))
    path = write_split_table(output, manifest, table) if output else write_manifest(manifest.root, table)
    names = [name for name in SPLITS if (table["split"] == name).any()]
    print(f"{path}: " + ", ".join(f"{(table['split'] == name).sum()} {name}" for name in names))
    groups = table[table["kind"] == "damaged"].groupby("split")["group"].nunique().reindex(names, fill_value=0)
    print("groups with really damaged photos: " + ", ".join(f"{count} {name}" for name, count in groups.items()))
    return 0


def manifest(arguments: argparse.Namespace) -> int:
    """Read photos in another layout (Hugging Face image folder, real and synthetic folders, FraudBench, a table of any
    columns) and write the metadata.csv that every other command reads. Opens no photo."""
    with extra("analysis", "realdamage manifest"):
        from realdamage.data.readers import Reader, reader_from_yaml, stale_metadata, write_metadata
    reader = reader_from_yaml(arguments.columns) if arguments.columns else Reader()
    if arguments.layout:
        reader = replace(reader, layout=arguments.layout)
    path, found = write_metadata(arguments.source, reader, arguments.out, overwrite=arguments.overwrite)
    print(f"{path}: {len(found)} photos")
    for column in ("label", "kind", "source", "split"):
        counts = found.table[column].value_counts()
        print(f"{column:8}" + ", ".join(f"{count} {name or '(not told)'}" for name, count in counts.items()))
    for other in stale_metadata(path.parent):
        print(f"{other} is no longer read; remove it, since Hugging Face's reader refuses two", file=sys.stderr)
    if not (found.table["split"] != "").any():
        print(f"next: realdamage split {path.parent}")
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
