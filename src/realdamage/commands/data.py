"""The commands of `realdamage` for sets of photos: manifest, split, audit and neutralise."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from realdamage.commands import app
from realdamage.core.progress import track
from realdamage.errors import RealDamageError, UsageError
from realdamage.files import write_atomically

# A test compares this with data.readers, which needs pandas.
Layout = Literal["auto", "manifest", "folders", "fraudbench", "table", "real"]
Set = Annotated[Path, app.arg("Folder with metadata.csv", "DIR")]
_COLUMNS = (
    "YAML with `columns` (our name: theirs), `values` (our column: {theirs: ours}), `constants`"
)
_SHARDS = "Write photos, masks and manifest into WebDataset shards, for training on very many"
_DAMAGED = "The same for groups with a really damaged photo; default: --fractions"
_NEAR = "Look at the photos: those that look alike form one group"
_QUALITY = "JPEG qualities to draw from; default: the tables of the real photos"
_SIZES = "Crop to these sizes; default: one that nearly all photos can give"


@app.command("analysis")
def manifest(
    source: Annotated[Path, app.arg("Folder of photos, or a table that lists them")],
    layout: Annotated[Layout | None, app.opt("Default: detect; real: all are real photos")] = None,
    columns: Annotated[Path | None, app.opt(_COLUMNS)] = None,
    to_shards: Annotated[Path | None, app.opt(_SHARDS, metavar="OUT")] = None,
    overwrite: app.Overwrite = False,
) -> int:
    """Write metadata.csv for photos in another layout, or write them as shards.

    A metadata.csv that is there already is checked and counted. Opens no photo, except for shards.
    """
    from realdamage.data import readers
    from realdamage.data.splits import split_command

    reader = readers.reader_from_yaml(columns) if columns else readers.Reader()
    if layout:
        reader = replace(reader, layout=layout)
    if to_shards:
        return _to_shards(readers.read_dataset(source, reader), to_shards, overwrite)
    if reader != readers.Reader() or overwrite or not readers.reads_own_metadata(source):
        path, found = readers.write_metadata(source, reader, overwrite=overwrite)
        print(f"{path}: {len(found)} photos")
    else:
        found = readers.read_dataset(source)
        path = found.root / "metadata.csv"
        print(f"{path}: {len(found)} photos, checked; nothing was written")
    for column in ("label", "kind", "source", "split"):
        counts = found.table[column].value_counts()
        print(f"{column:8}{_listed({str(name) or '(not given)': n for name, n in counts.items()})}")
    if not (found.table["split"] != "").any():
        print(f"next: {split_command(found, path.parent)}")
        if (found.table["label"] == "real").all():
            print(f"then: realdamage-synthesize +recipe=codecs recipe.source.root={path.parent}")
    return 0


def _to_shards(found: Any, out: Path, overwrite: bool) -> int:
    from realdamage.data.shards import write_shards

    made = write_shards(found, out, overwrite=overwrite, progress=track)
    shards = made.shards.names if made.shards else ()
    print(f"{out}: {len(made)} photos in {len(shards)} shards")
    print(f"next: realdamage-train data.root={out}")
    return 0


@app.command("analysis")
def split(
    manifest: Set,
    fractions: Annotated[
        str, app.opt("Shares of train, val, test and policy", metavar="NAME=SHARE,…")
    ] = "train=0.55,val=0.1,test=0.15,policy=0.2",
    damaged: Annotated[str | None, app.opt(_DAMAGED, metavar="NAME=SHARE,…")] = None,
    near_duplicates: Annotated[bool, app.opt(_NEAR, "--near-duplicates")] = False,
    output: Annotated[Path | None, app.opt("Write a split table instead of metadata.csv")] = None,
    seed: app.Seed = 0,
    overwrite: app.Overwrite = False,
) -> int:
    """Assign photos to train, val, test and policy.

    Writes the column `split` into metadata.csv. Photos of one group or pair stay together. False
    alarms are counted on really damaged photos, so --damaged can give policy more of them.
    """
    from realdamage.data.duplicates import near_duplicate_groups
    from realdamage.data.manifest import METADATA_NAME, write_manifest
    from realdamage.data.readers import read_dataset
    from realdamage.data.splits import assign_splits, write_split_table
    from realdamage.data.vocabulary import SPLITS
    from realdamage.evaluation.guarantee import DELTA, smallest_share

    shares, damaged_shares = _shares(fractions), _shares(damaged) if damaged else None
    if manifest.is_file() and manifest.name != METADATA_NAME and not output:
        raise UsageError(f"{manifest}: rename it {METADATA_NAME}, or write a table with --output")
    found = read_dataset(manifest)
    table = found.table
    if not overwrite and (output.exists() if output else (table["split"] != "").any()):
        raise UsageError(
            f"{output or found.root}: there are splits already, and models may have been trained "
            "with them. Keep them, or assign new ones with --overwrite",
            code="exists",
        )
    if near_duplicates:
        group, alike = near_duplicate_groups(found, progress=track)
        for warning in alike.warnings:
            app.warn(warning)
        before, after = table["group"].nunique(), group.nunique()
        print(f"{len(alike.pairs)} pairs of photos look alike: {before} groups became {after}")
        table = table.assign(group=group)
    table = table.assign(split=assign_splits(table, shares, seed, damaged_shares))
    path = write_split_table(output, found, table) if output else write_manifest(found.root, table)
    photos = table["split"].value_counts()
    groups = table[table["kind"] == "damaged"].groupby("split")["group"].nunique()
    names = [name for name in SPLITS if name in photos]
    print(f"{path}: {_listed({name: photos[name] for name in names})}")
    print(f"groups with really damaged photos: {_listed({n: groups.get(n, 0) for n in names})}")
    if share := smallest_share(groups.get("policy", 0), DELTA):
        print(f"smallest guarantee that they allow: realdamage calibrate --alpha {share:g}")
    return 0


@app.command("analysis")
def audit(
    manifest: Set,
    quick: Annotated[
        bool, app.opt("Only headers and columns, as training does", "--quick")
    ] = False,
    json_file: app.Json = None,
    html: app.Html = None,
    workers: app.Workers = None,
) -> int:
    """Check what gives a set's labels away before you train on it.

    Looks for what separates real from synthetic photos apart from the damage (file format, source,
    damage type, condition), broken and duplicate files, photos in the wrong split, and faulty
    masks. Exit code 1: the set fails. Exit code 3: it is too small to measure anything.
    """
    from realdamage.data.audit import audit as run_audit
    from realdamage.data.readers import read_dataset
    from realdamage.rendering.html import audit_page
    from realdamage.rendering.terminal import format_audit

    found = read_dataset(manifest, check_files=False)  # the audit lists missing files
    report = run_audit(found, quick=quick, workers=workers, progress=track)
    if json_file:
        write_atomically(json_file, report.to_json().encode())
    if html:
        write_atomically(html, audit_page(report, found).encode())
    print(format_audit(report))
    if report.failed:
        return 1
    return 0 if report.measured else RealDamageError.exit_code


@app.command("analysis")
def neutralise(
    manifest: Annotated[Path, app.arg("Folder with metadata.csv; only read", "IN")],
    out: Annotated[Path, app.arg("New or empty folder outside IN", "OUT")],
    quality: Annotated[str | None, app.opt(_QUALITY, metavar="LOW-HIGH")] = None,
    sizes: Annotated[str | None, app.opt(_SIZES, metavar="WxH,…")] = None,
    seed: app.Seed = 0,
    workers: app.Workers = None,
    overwrite: Annotated[bool, app.opt("Remove an earlier run from OUT", "--overwrite")] = False,
) -> int:
    """Save a set again so that files of both classes look alike.

    Crop, size, JPEG tables and subsampling are drawn whatever the label (for an edit as for its
    original), and metadata is dropped.
    """
    from realdamage.data import neutralise as neutral
    from realdamage.data.readers import read_dataset

    settings = neutral.NeutraliseSettings(_quality_range(quality), _crop_sizes(sizes), seed)
    found = read_dataset(manifest)
    done = neutral.neutralise(
        found, out, settings, overwrite=overwrite, workers=workers, progress=track
    )
    for line in done.notes:
        app.warn(line)
    for name, reason in list(done.dropped.items())[:10]:
        app.warn(f"left out: {name}: {reason}")
    labels = _listed(done.manifest.table["label"].value_counts().sort_index().to_dict())
    print(f"{out}: {len(done.manifest)} photos ({labels})")
    listed = [f"{width}x{height}: {number}" for (width, height), number in done.sizes.items()]
    more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
    print(f"sizes    {', '.join(listed[:12])}{more}")
    where = f", listed in {out / neutral.DROPPED_NAME}" if done.dropped else ""
    print(f"left out {len(done.dropped)}{where}")
    print(f"next: realdamage audit {out}")
    return 0


def _listed(counts: Mapping[Any, Any]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def _shares(text: str) -> dict[str, float]:
    try:
        return {name: float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UsageError(f"{text!r}: write shares as train=0.7,val=0.1,test=0.2") from None


def _quality_range(text: str | None) -> tuple[int, int] | None:
    low, _, high = (text or "").partition("-")
    try:
        return (int(low), int(high or low)) if text else None
    except ValueError:
        raise UsageError(f"--quality {text!r}: write a range as 75-95") from None


def _crop_sizes(text: str | None) -> list[tuple[int, int]]:
    try:
        pairs = [size.lower().split("x") for size in text.split(",")] if text else []
        return [(int(width), int(height)) for width, height in pairs]
    except ValueError:
        raise UsageError(f"--sizes {text!r}: write 384x512,512x384") from None
