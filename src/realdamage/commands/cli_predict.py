"""`realdamage predict`: photos in, verdicts out, as a table, as files for programs and as pictures. Heavy imports wait
inside."""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realdamage.commands.cli_data import extra
from realdamage.commands.cli_model import THREADS_HELP
from realdamage.errors import PhotoError, RealDamageError, UsageError
from realdamage.files import HEATMAP_ENDING, csv_line, write_atomically
from realdamage.phrases import printable

if TYPE_CHECKING:
    from PIL import Image

    from realdamage.core.verdict import Verdict

_TABLE = "{:<{width}}  {:<9}  {:>8}  {:>11}  {:>7}  {}"
_ENDINGS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "table",
}
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY = 92  # of JPEG and WebP


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parser; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser(
        "predict", parents=[common], help="judge photos", description=predict.__doc__
    )
    command.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="photos, folders (with all below) or globs"
    )
    command.add_argument(
        "--model", type=Path, metavar="FILE", help="the .onnx file; default: the one in the package"
    )
    command.add_argument(
        "--format",
        choices=("table", "jsonl", "csv"),
        help="default: by the ending of --output, else a table",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"write there instead of to the terminal: {', '.join(_ENDINGS)}",
    )
    command.add_argument(
        "--heatmap",
        type=Path,
        metavar="DIR",
        help="draw each heat map into a picture in this folder",
    )
    command.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help=f"draw all photos, each beside its heat map, into this one picture: {', '.join(_PICTURES)}",
    )
    command.add_argument(
        "--prior", type=float, metavar="P", help="share of synthetic photos among yours, in 0..1"
    )
    command.add_argument(
        "--allow-demo", action="store_true", help="let a demonstration model say synthetic"
    )
    command.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)
    command.set_defaults(run=predict)


def predict(arguments: argparse.Namespace) -> int:
    """Judge photos. Missing and unreadable ones are named on the error stream (exit code 1) and have a line without a
    score; the others are still judged."""
    from realdamage.core.detector import Detector
    from realdamage.core.overlay import contact_sheet, draw_overlay, draw_pair
    from realdamage.core.tiles import read_photo
    from realdamage.core.verdict import verdict_row
    from realdamage.files import find_photos

    # What cannot be written is told before hours of judging, not after.
    form = (
        arguments.format
        or _by_ending(arguments.output, _ENDINGS, "--output", ", or say --format")
        or "table"
    )
    picture_form = _by_ending(arguments.sheet, _PICTURES, "--sheet")
    if form == "parquet":
        with extra("analysis", "realdamage predict --output FILE.parquet"):
            import pyarrow  # noqa: F401

            import realdamage.evaluation.predictions  # noqa: F401
    paths = find_photos(arguments.photos, keep_missing=True)
    detector = Detector.load(
        arguments.model,
        threads=arguments.threads,
        prior=arguments.prior,
        allow_demo=arguments.allow_demo,
    )
    width = max(len(printable(str(path))) for path in paths)
    lines: list[str] = []
    rows: list[Mapping[str, Any]] = []
    emit = lines.append if arguments.output else _print_now
    for title in _header(form, width):
        emit(title)
    outcomes: Counter[str] = Counter()
    sentences: dict[str, str] = {}
    pictures: set[Path] = set()
    cells: list[Image.Image] = []
    for path in paths:
        start = time.perf_counter()
        found: Verdict | PhotoError
        try:
            photo = read_photo(path, detector.pixel_spec)
            found = detector.predict_photo(photo)
        except PhotoError as error:
            _tell(f"realdamage: {error}")
            found = error
        ms = 1000 * (time.perf_counter() - start)
        if form == "parquet":
            rows.append(verdict_row(str(path), found, ms))
        else:
            emit(_line(form, width, str(path), found, ms))
        if isinstance(found, PhotoError):
            continue
        outcomes[found.outcome] += 1
        sentences.update((reason.code, reason.sentence) for reason in found.reasons)
        if arguments.heatmap:
            picture = _encoded(draw_overlay(photo.rgb, found), "PNG")
            write_atomically(_picture_path(arguments.heatmap, path, pictures), picture)
        if arguments.sheet:
            cells.append(draw_pair(photo.rgb, found, path.name))
    if form == "parquet":
        _write_parquet(arguments.output, rows)
    elif arguments.output:
        write_atomically(
            arguments.output,
            "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"),
        )
    if cells:
        write_atomically(arguments.sheet, _encoded(contact_sheet(cells), picture_form))
    if form == "table":
        for code, sentence in sentences.items():
            _tell(f"{code}: {sentence}")
    if arguments.output:
        _tell(f"verdicts: {arguments.output}")
    if pictures:
        _tell(
            f"heat maps: {arguments.heatmap / f'*{HEATMAP_ENDING}'} ({_count(len(pictures), 'picture')})"
        )
    if cells:
        _tell(f"sheet: {arguments.sheet}")
    _tell(_summary(len(paths), outcomes))
    if not outcomes:
        raise PhotoError(
            f"none of the {len(paths)} photos could be read"
            if len(paths) > 1
            else "no photo was judged"
        )
    return 1 if outcomes.total() < len(paths) else 0


def _header(form: str, width: int) -> list[str]:
    """The lines before the first verdict; `width` of the column of file names, in characters."""
    from realdamage.core.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS

    if form == "table":
        titles = ("file", "outcome", "score", "probability", "regions", "reasons")
        line = _TABLE.format(*titles, width=width)
        return [line, "-" * max(len(line), width + 60)]
    return [csv_line((*PREDICTION_COLUMNS, *MEASURED_COLUMNS))] if form == "csv" else []


def _line(form: str, width: int, file_name: str, found: Verdict | PhotoError, ms: float) -> str:
    """One photo as one record: its verdict, or why it has none; `ms`: milliseconds from bytes to verdict.

    CSV has the columns of a predictions file, then MEASURED_COLUMNS. JSON lines have `file_name`, `ms` and the verdict
    without its heat map, or an `error` as in /v1/photos instead of an `outcome`.
    """
    from realdamage.core.verdict import UNREADABLE, verdict_row

    if form == "csv":
        return csv_line(verdict_row(file_name, found, ms).values())
    if form == "jsonl":
        if isinstance(found, PhotoError):
            values: dict[str, Any] = {"outcome": None, "error": found.to_dict()}
        else:
            values = found.to_dict(heatmap=False)
        return json.dumps({"file_name": file_name, "ms": round(ms, 1), **values})
    file_name = printable(file_name)
    if isinstance(found, PhotoError):
        return _TABLE.format(file_name, "-", "-", "-", "-", UNREADABLE, width=width)
    probability = "-" if found.probability is None else f"{found.probability:.3f}"
    codes = ", ".join(reason.code for reason in found.reasons) or "-"
    score, regions = f"{found.score:+.2f}", len(found.regions)
    return _TABLE.format(file_name, found.outcome, score, probability, regions, codes, width=width)


def _by_ending(path: Path | None, forms: Mapping[str, str], option: str, more: str = "") -> str:
    """What the ending of the file stands for, "" without a file. Raises UsageError on another ending."""
    if path is None:
        return ""
    if path.suffix.lower() not in forms:
        found = f"{path.suffix!r}" if path.suffix else "none"
        raise UsageError(
            f"{option} {path}: end its name in {', '.join(forms)}{more}; found {found}"
        )
    return forms[path.suffix.lower()]


def _summary(photos: int, outcomes: Counter[str]) -> str:
    """`6 photos: 4 judged (3 real, 1 synthetic), 2 unreadable`."""
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    unreadable = photos - outcomes.total()
    return (
        f"{_count(photos, 'photo')}: {outcomes.total()} judged"
        + (f" ({told})" if told else "")
        + (f", {unreadable} unreadable" if unreadable else "")
    )


def _count(number: int, one: str) -> str:
    return f"{number} {one}{'' if number == 1 else 's'}"


def _picture_path(folder: Path, photo: Path, taken: set[Path]) -> Path:
    """A name that no other photo of this run has."""
    path, number = folder / f"{photo.stem}{HEATMAP_ENDING}", 1
    while path in taken:
        number += 1
        path = folder / f"{photo.stem}-{number}{HEATMAP_ENDING}"
    taken.add(path)
    return path


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from realdamage.evaluation.predictions import predictions_table, write_predictions

    write_predictions(path, predictions_table(rows))


def _encoded(picture: Image.Image, form: str) -> bytes:
    """The picture as a file's bytes. Raises RealDamageError when it is too high for a format: PNG has no such limit."""
    data = io.BytesIO()
    try:
        picture.save(data, format=form, quality=_QUALITY)
    except (OSError, ValueError) as error:
        size = f"{picture.width}x{picture.height} pixels"
        raise RealDamageError(
            f"{size} do not fit into {form} ({error}); end the name in .png"
        ) from error
    return data.getvalue()


def _print_now(line: str) -> None:
    print(printable(line, keep="\n") if sys.stdout.isatty() else line, flush=True)


def _tell(line: str) -> None:
    print(printable(line), file=sys.stderr)
