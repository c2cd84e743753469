"""`realdamage predict`: photos in; verdicts out as a table, a file, heat maps or a sheet."""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from realdamage.commands import app
from realdamage.errors import PhotoError, UsageError
from realdamage.files import HEATMAP_ENDING, PICTURES, csv_line, find_photos, write_atomically
from realdamage.phrases import printable

if TYPE_CHECKING:
    from PIL import Image

    from realdamage.core.verdict import Verdict
    from realdamage.scale import Judge
    from realdamage.scale.run import Engine

_ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_ENDINGS |= {".txt": "table"}
_TABLE = "{:<{width}}  {:<9}  {:>8}  {:>11}  {:>7}  {}"
_TITLES = ("file", "outcome", "score", "probability", "regions", "reasons")
_FORMAT = "Default: by the ending of --output, else a table"
_OUTPUT = f"Write to this file, not to the terminal: {', '.join(_ENDINGS)}"
_ENGINE = "Write a folder of Parquet parts, resumable: in this process (local) or on Ray (ray)"
_SHEET = f"All photos with their heat maps as one picture: {', '.join(PICTURES)}"


@app.command("analysis")
def predict(
    photos: app.Photos,
    model: app.Model = None,
    form: Annotated[Literal["table", "jsonl", "csv"] | None, app.opt(_FORMAT, "--format")] = None,
    output: Annotated[Path | None, app.opt(_OUTPUT)] = None,
    heatmap: Annotated[Path | None, app.opt("Folder for a picture of each heat map")] = None,
    sheet: Annotated[Path | None, app.opt(_SHEET)] = None,
    engine: Annotated[Literal["local", "ray"] | None, app.opt(_ENGINE)] = None,
    prior: app.Prior = None,
    allow_demo: Annotated[bool, app.opt("Let a demo model say synthetic", "--allow-demo")] = False,
    device: app.Device = "cpu",
    threads: app.Threads = None,
) -> int:
    """Judge photos.

    Missing and unreadable photos are named on standard error (exit code 1) and get a row without a
    score; the others are still judged. With --engine, photos and output may also be URLs such as
    s3://bucket/folder, and a .csv or .parquet with a column file_name or path lists photos.
    """
    if engine:
        if form or heatmap or sheet or output is None:
            raise UsageError("--engine needs --output FOLDER and no --format, --heatmap or --sheet")
        from realdamage.scale import Judge

        judge = Judge(model, device, threads, prior, allow_demo)
        return _in_parts(photos, str(output), engine, judge)
    from realdamage.core.detector import Detector
    from realdamage.core.overlay import contact_sheet, draw_overlay, draw_pair, picture_bytes
    from realdamage.core.progress import no_progress, track
    from realdamage.core.tiles import read_photo
    from realdamage.core.verdict import verdict_row

    # Refuse what cannot be written before hours of judging, not after.
    written = form or _by_ending(output, _ENDINGS, "--output", ", or use --format") or "table"
    picture_form = _by_ending(sheet, PICTURES, "--sheet")
    if written == "parquet":
        import pyarrow  # noqa: F401

        from realdamage.evaluation.predictions import predictions_table, write_predictions
    paths = find_photos(photos, keep_missing=True)
    detector = Detector(model, device=device, threads=threads, prior=prior, allow_demo=allow_demo)

    lines: list[str] = []
    rows: list[Mapping[str, Any]] = []
    emit = lines.append if output else _print_now
    width = max(len(printable(str(path))) for path in paths)
    for title in _header(written, width):
        emit(title)
    outcomes: Counter[str] = Counter()
    sentences: dict[str, str] = {}
    pictures: set[Path] = set()
    cells: list[Image.Image] = []
    # Lines on the terminal show the progress; a bar would garble them.
    steps = track if output or not sys.stdout.isatty() else no_progress
    for path in steps(paths, len(paths), "photos"):
        start = time.perf_counter()
        found: Verdict | PhotoError
        try:
            photo = read_photo(path, detector.pixel_spec)
            found = detector.predict_photo(photo)
        except PhotoError as error:
            app.warn(str(error))
            found = error
        ms = 1000 * (time.perf_counter() - start)
        picture = None
        if not isinstance(found, PhotoError):
            outcomes[found.outcome] += 1
            sentences.update((reason.code, reason.sentence) for reason in found.reasons)
            if heatmap:
                picture = _picture_path(heatmap, path, pictures)
                write_atomically(picture, picture_bytes(draw_overlay(photo.rgb, found), "PNG"))
            if sheet:
                cells.append(draw_pair(photo.rgb, found, path.name))
        if written == "table":
            emit(_table_line(str(path), found, width))
        elif written == "jsonl":
            emit(_json_line(str(path), found, ms, picture))
        elif written == "csv":
            emit(csv_line(verdict_row(str(path), found, ms).values()))
        else:
            rows.append(verdict_row(str(path), found, ms))

    if output and written == "parquet":
        write_predictions(output, predictions_table(rows))
    elif output:
        text = "".join(f"{line}\n" for line in lines)
        write_atomically(output, text.encode(errors="surrogateescape"))
    if sheet and cells:
        write_atomically(sheet, picture_bytes(contact_sheet(cells), picture_form))
    if written == "table":
        for code, sentence in sentences.items():
            app.note(f"{code}: {sentence}")
    for where in (output, pictures and heatmap, cells and sheet):
        if where:
            app.note(f"written: {where}")
    app.note(_summary(len(paths), outcomes))
    if not outcomes:
        raise PhotoError("none of the photos could be read")
    return 1 if outcomes.total() < len(paths) else 0


def _in_parts(photos: list[str], output: str, engine: "Engine", judge: "Judge") -> int:
    from realdamage.core.progress import track
    from realdamage.scale import score

    # Path has made one slash of two.
    folder = re.sub(r"^(\w\w+):/(?!/)", r"\1://", output)
    done = score(photos, folder, engine=engine, judge=judge, progress=track)
    outcomes = Counter({name: count for name, count in done.outcomes.items() if name})
    app.note(f"written: {folder}")
    if there := done.photos - done.judged:
        app.note(f"{app.count(there, 'photo')} judged earlier")
    app.note(_summary(done.judged, outcomes))
    return 1 if outcomes.total() < done.judged else 0


def _by_ending(path: Path | None, forms: Mapping[str, str], option: str, more: str = "") -> str:
    """What the ending of the file means; "" without a file. Raises UsageError on another ending."""
    if path is None:
        return ""
    ending = path.suffix.lower()
    if ending not in forms:
        text = f"{option} {path}: the name must end in {', '.join(forms)}{more}"
        raise UsageError(f"{text}; found {ending or 'none'}", code="unknown_ending")
    return forms[ending]


def _header(form: str, width: int) -> list[str]:
    """The lines before the first verdict; width: of the column of file names, in characters."""
    from realdamage.core.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS

    if form == "table":
        line = _TABLE.format(*_TITLES, width=width)
        return [line, "-" * max(len(line), width + 60)]
    return [csv_line((*PREDICTION_COLUMNS, *MEASURED_COLUMNS))] if form == "csv" else []


def _table_line(file_name: str, found: "Verdict | PhotoError", width: int) -> str:
    file_name = printable(file_name)
    if isinstance(found, PhotoError):
        return _TABLE.format(file_name, "-", "-", "-", "-", "unreadable", width=width)
    probability = "-" if found.probability is None else f"{found.probability:.3f}"
    codes = ", ".join(reason.code for reason in found.reasons) or "-"
    score, regions = f"{found.score:+.2f}", len(found.regions)
    return _TABLE.format(file_name, found.outcome, score, probability, regions, codes, width=width)


def _json_line(name: str, found: "Verdict | PhotoError", ms: float, picture: Path | None) -> str:
    """The verdict without its heat map, or an `error` as in /v1/photos; `heatmap_file` if drawn."""
    line: dict[str, Any] = {"file_name": name, "ms": round(ms, 1)}
    if picture:
        line["heatmap_file"] = str(picture)
    if isinstance(found, PhotoError):
        line |= {"outcome": None, "error": found.to_dict()}
    else:
        line |= found.to_dict(heatmap=False)
    return json.dumps(line)


def _picture_path(folder: Path, photo: Path, taken: set[Path]) -> Path:
    """A name that no other photo of this run has."""
    path, number = folder / f"{photo.stem}{HEATMAP_ENDING}", 1
    while path in taken:
        number += 1
        path = folder / f"{photo.stem}-{number}{HEATMAP_ENDING}"
    taken.add(path)
    return path


def _summary(photos: int, outcomes: Counter[str]) -> str:
    """`6 photos: 4 judged (3 real, 1 synthetic), 2 unreadable`."""
    text = f"{app.count(photos, 'photo')}: {outcomes.total()} judged"
    if outcomes:
        text += f" ({', '.join(f'{n} {outcome}' for outcome, n in sorted(outcomes.items()))})"
    unreadable = photos - outcomes.total()
    return text + (f", {unreadable} unreadable" if unreadable else "")


def _print_now(line: str) -> None:
    print(printable(line, keep="\n") if sys.stdout.isatty() else line, flush=True)
