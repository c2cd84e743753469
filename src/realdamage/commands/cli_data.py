"""The commands of `realdamage` that work on sets of photos before any training; heavy imports wait inside them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from realdamage.core.progress import track
from realdamage.errors import MissingExtraError, RealDamageError, UsageError
from realdamage.files import write_atomically


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser(
        "split", parents=[common], help="split a manifest", description=split.__doc__
    )
    command.add_argument(
        "manifest", type=Path, metavar="DIR", help="folder with metadata.csv, which is changed"
    )
    command.add_argument(
        "--fractions",
        type=_fractions,
        default="train=0.55,val=0.1,test=0.15,policy=0.2",
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
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="write a split table (CSV), not the manifest"
    )
    command.add_argument(
        "--seed", type=int, default=0, help="another seed, other splits (%(default)s)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace splits that are there")
    command.set_defaults(run=split)

    command = commands.add_parser(
        "neutralise",
        parents=[common],
        help="make the files of both classes alike",
        description=neutralise.__doc__,
    )
    command.add_argument(
        "manifest", type=Path, metavar="IN", help="folder with metadata.csv; it is only read"
    )
    command.add_argument("out", type=Path, metavar="OUT", help="new or empty folder outside of IN")
    command.add_argument(
        "--quality",
        type=_quality,
        metavar="LOW-HIGH",
        help="JPEG qualities to draw from, such as 75-95; default: the tables of the set's real photos",
    )
    command.add_argument(
        "--sizes",
        type=_crop_sizes,
        default="reals",
        metavar="keep|reals|WxH,…",
        help="crop to: sizes of the real photos that both classes can give (%(default)s), these, or each its own",
    )
    command.add_argument(
        "--max-side", type=int, metavar="PIXELS", help="cut longer sides to it; nothing is resized"
    )
    command.add_argument(
        "--history",
        action="store_true",
        help="save every photo as a JPEG once more before the last",
    )
    command.add_argument(
        "--seed", type=int, default=0, help="another seed, other draws (%(default)s)"
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="processes; default: one for each processor"
    )
    command.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="at unreadable photos"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="remove what an earlier run made in OUT"
    )
    command.set_defaults(run=neutralise)
    command = commands.add_parser(
        "manifest",
        parents=[common],
        help="write metadata.csv for another layout",
        description=manifest.__doc__,
    )
    command.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder of photos, or a table of them"
    )
    # Named here, because the list itself lives in a module that needs pandas; a test compares the two.
    command.add_argument(
        "--layout",
        choices=("auto", "manifest", "imagefolder", "folders", "fraudbench", "table", "real"),
        help="how the photos lie there (default: look, or as FILE says); real: all below SOURCE are real",
    )
    command.add_argument(
        "--columns",
        type=Path,
        metavar="FILE",
        help="YAML with `columns` (our name: theirs), `values` (our column: {their word: ours}), `constants`",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="folder above the photos (default: theirs)"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace a metadata.csv that is there"
    )
    command.set_defaults(run=manifest)
    command = commands.add_parser(
        "audit",
        parents=[common],
        help="what a set gives away, before training on it",
        description=audit.__doc__,
    )
    command.add_argument(
        "manifest", type=Path, metavar="DIR", help="folder with metadata.csv, or a CSV file"
    )
    command.add_argument(
        "--quick", action="store_true", help="headers and columns only: what training asks for"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    command.add_argument(
        "--counts",
        type=Path,
        metavar="FILE",
        help="write the counts there as CSV, a row a combination",
    )
    command.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page there, with the worst photos"
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="processes; default: the CPUs at hand"
    )
    command.add_argument("--seed", type=int, default=0, help="of folds and intervals (%(default)s)")
    command.set_defaults(run=audit)


def split(arguments: argparse.Namespace) -> int:
    """Assign photos to train, val, test and policy, and write the column `split` into the manifest. Photos of one
    group, or of one pair, stay together."""
    with extra("analysis", "realdamage split"):
        from realdamage.data.duplicates import found_alike, near_duplicate_groups
        from realdamage.data.manifest import METADATA_NAME, write_manifest
        from realdamage.data.readers import read_dataset
        from realdamage.data.splits import assign_splits, write_split_table
        from realdamage.data.vocabulary import SPLITS
        from realdamage.evaluation.guarantee import DELTA, smallest_share
    output: Path | None = arguments.output
    if arguments.manifest.is_file() and arguments.manifest.name != METADATA_NAME and not output:
        raise UsageError(
            f"{arguments.manifest}: splits go into {METADATA_NAME}; name its folder, or rename the file"
        )
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
        print(found_alike(table, group, found.pairs))
        table = table.assign(group=group)
    table = table.assign(
        split=assign_splits(table, arguments.fractions, arguments.seed, arguments.damaged)
    )
    path = (
        write_split_table(output, manifest, table)
        if output
        else write_manifest(manifest.root, table)
    )
    names = [name for name in SPLITS if (table["split"] == name).any()]
    print(f"{path}: " + ", ".join(f"{(table['split'] == name).sum()} {name}" for name in names))
    groups = (
        table[table["kind"] == "damaged"]
        .groupby("split")["group"]
        .nunique()
        .reindex(names, fill_value=0)
    )
    print(
        "groups with really damaged photos: "
        + ", ".join(f"{count} {name}" for name, count in groups.items())
    )
    if share := smallest_share(groups.get("policy", 0), DELTA):
        print(
            f"the smallest promise that the policy ones allow: realdamage calibrate --alpha {share:g}"
        )
    return 0


def manifest(arguments: argparse.Namespace) -> int:
    """Read photos in another layout (Hugging Face image folder, real and synthetic folders, FraudBench, a table of any
    columns, a folder of real photos) and write the metadata.csv that every other command reads; where it is there
    already, check it and count. Opens no photo."""
    with extra("analysis", "realdamage manifest"):
        from realdamage.data.readers import (
            Reader,
            read_dataset,
            reader_from_yaml,
            reads_own_metadata,
            stale_metadata,
            write_metadata,
        )
        from realdamage.data.splits import split_command
    reader = reader_from_yaml(arguments.columns) if arguments.columns else Reader()
    if arguments.layout:
        reader = replace(reader, layout=arguments.layout)
    if (
        reader == Reader()
        and not (arguments.out or arguments.overwrite)
        and reads_own_metadata(arguments.source)
    ):
        found = read_dataset(arguments.source)
        path, told = (
            found.root / "metadata.csv",
            ", as the file that is there says; nothing was written",
        )
    else:
        path, found = write_metadata(
            arguments.source, reader, arguments.out, overwrite=arguments.overwrite
        )
        told = ""
    print(f"{path}: {len(found)} photos{told}")
    for column in ("label", "kind", "source", "split"):
        counts = found.table[column].value_counts()
        print(
            f"{column:8}"
            + ", ".join(f"{count} {name or '(not told)'}" for name, count in counts.items())
        )
    for other in stale_metadata(path.parent):
        print(
            f"{other} is no longer read; remove it, since Hugging Face's reader refuses two",
            file=sys.stderr,
        )
    if not (found.table["split"] != "").any():
        print(f"next: {split_command(found, path.parent)}")
        if (found.table["label"] == "real").all():
            print(f"then: realdamage-synthesize +recipe=codecs recipe.source.root={path.parent}")
    return 0


def neutralise(arguments: argparse.Namespace) -> int:
    """Write a set of photos anew so that their files no longer tell real from synthetic: size, crop, JPEG tables and
    sub-sampling are drawn whatever the label, an edit's as its original's, and metadata is left behind."""
    with extra("analysis", "realdamage neutralise"):
        from realdamage.data.neutralise import DROPPED_NAME, NeutraliseSettings
        from realdamage.data.neutralise import neutralise as write_anew
        from realdamage.data.readers import read_dataset
    settings = NeutraliseSettings(
        arguments.quality, arguments.sizes, arguments.history, arguments.seed, arguments.max_side
    )
    options = {name: getattr(arguments, name) for name in ("on_error", "overwrite", "workers")}
    done = write_anew(
        read_dataset(arguments.manifest), arguments.out, settings, progress=track, **options
    )
    for note in done.notes:
        print(f"realdamage: {note}", file=sys.stderr)
    for name, reason in done.dropped[:10]:
        print(f"realdamage: left out: {name}: {reason}", file=sys.stderr)
    labels = ", ".join(f"{count} {label}" for label, count in done.labels.items())
    print(f"{done.root}: {done.photos} photos ({labels}) in {done.seconds:.1f} s")
    sizes = [f"{width}x{height}: {count}" for (width, height), count in done.sizes.items()]
    print(
        "sizes    "
        + ", ".join(sizes[:12])
        + (f" and {len(sizes) - 12} more" if len(sizes) > 12 else "")
    )
    print(
        f"left out {len(done.dropped)}"
        + (f", listed in {done.root / DROPPED_NAME}" if done.dropped else "")
    )
    print(f"next: realdamage audit {done.root}")
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """Judge a set before training on it: what tells real from synthetic photos without looking at the damage (file
    format, source, damage type, condition), broken and doubled files, photos in the wrong split, faulty masks. The exit
    code is 1 when the set fails, 3 when it is too small for anything to be measured."""
    with extra("analysis", "realdamage audit"):
        import pandas as pd

        from realdamage.data.audit import audit as run
        from realdamage.data.readers import read_dataset
        from realdamage.rendering.html import audit_page
        from realdamage.rendering.terminal import format_audit
    found = read_dataset(
        arguments.manifest, check_files=False
    )  # missing files are for the audit to list
    report = run(
        found, quick=arguments.quick, workers=arguments.workers, seed=arguments.seed, progress=track
    )
    if arguments.json:
        write_atomically(arguments.json, report.to_json().encode())
    if arguments.counts:
        write_atomically(
            arguments.counts,
            pd.DataFrame(report.counts).to_csv(index=False, lineterminator="\n").encode(),
        )
    if arguments.html:
        write_atomically(arguments.html, audit_page(report, found).encode())
    print(format_audit(report))
    return 1 if report.failed else 0 if report.measured else RealDamageError.exit_code


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
        raise argparse.ArgumentTypeError(
            f"{text!r}: write shares as train=0.7,val=0.1,test=0.2"
        ) from None


def _quality(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write a range as 75-95") from None


def _crop_sizes(text: str) -> str | list[tuple[int, int]] | None:
    if text in ("keep", "reals"):
        return None if text == "keep" else text
    try:
        return [
            (int(width), int(height))
            for width, height in (size.lower().split("x") for size in text.split(","))
        ]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write keep, reals, or sizes as 384x512,512x384"
        ) from None
