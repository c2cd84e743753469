"""Finds photos, writes files that are whole or absent, and writes CSV that no spreadsheet runs."""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from realdamage.errors import RealDamageError, UsageError

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif"}
    | {".heic", ".heif", ".tif", ".tiff", ".bmp", ".gif", ".jp2"}
)
HEATMAP_ENDING = ".heatmap.png"
"""What `predict --heatmap` appends; such files are not photos to judge."""
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""The endings of the pictures that are written, and Pillow's names for them."""
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
"""A spreadsheet may run a cell that starts with one of these; full-width forms and white space
count too."""
_FORMULA_CELL = re.compile(f"'*[{re.escape(''.join(FORMULA))}]")


def find_photos(given: Iterable[str], *, keep_missing: bool = False) -> list[Path]:
    """The photos that paths, folders (searched recursively) and globs name, each once, in order.

    keep_missing: keep names without a file in the list, so that the reader can report each of them.
        Raises UsageError when a name matches no file (with `keep_missing`: when all do), or for a
        folder without photos.
    """
    found: dict[Path, None] = {}
    missing: dict[Path, UsageError] = {}
    for text in given:
        path = Path(text)
        if path.is_dir():
            below = photos_below(path)
            if not below:
                suffixes = " ".join(sorted(PHOTO_SUFFIXES))
                raise UsageError(f"{path}: no photo in this folder; looked for {suffixes}")
        elif path.exists():
            below = [path]
        else:
            matches = glob.glob(text, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
            below = sorted(match for match in map(Path, matches) if match.is_file())
            if not below:
                missing[path] = UsageError(no_such_photo(text), code="no_such_photo")
                below = [path]
        found.update(dict.fromkeys(below))
    if missing and (not keep_missing or len(missing) == len(found)):
        raise next(iter(missing.values()))
    return list(found)


def is_url(name: str) -> bool:
    """Whether a name is a URL, also after `Path` has made one slash of two."""
    return re.match(r"[a-z]\w+:/|data:", name, re.IGNORECASE) is not None


def no_such_photo(name: str) -> str:
    """What is wrong with a name that matches no file, and what to do."""
    if is_url(name):
        name = re.sub(r":/(?!/)", "://", name, count=1)
        return f"{name[:200]}: is a URL, and nothing is downloaded. Download the photo first"
    return f"{name}: no such photo. Check the name and the folder"


def photos_below(folder: Path) -> list[Path]:
    """The photos in a folder and below it, sorted.

    Hidden names and heat maps are skipped; linked folders are followed, each once. Raises
    UsageError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be listed ({error.strerror})")

    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for parent, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(parent).stat()
        place = (status.st_dev, status.st_ino)
        below[:] = [name for name in below if place not in seen and not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if place not in seen
            and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES  # noqa: PTH122 (speed)
            and not name.startswith(".")
            and not name.endswith(HEATMAP_ENDING)
        ]
        seen.add(place)
    return sorted(found)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a temporary file next to `path`, flush it to the disk, and rename it over `path`.

    Makes missing parent folders. Raises RealDamageError when that fails; the old file is then
    unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RealDamageError(
            f"{path}: cannot be written: {error.strerror or error}. Check free space and "
            "permissions.",
            code="cannot_write",
        ) from error


def csv_line(values: Iterable[object]) -> str:
    """One record of a CSV file, without its end. Text is escaped, numbers stay as they are, line
    breaks are quoted."""
    buffer = io.StringIO()
    end = "\r\n"  # the writer only quotes the characters of its own line end
    cells = (escape_cell(value) if isinstance(value, str) else value for value in values)
    csv.writer(buffer, lineterminator=end).writerow(cells)
    return buffer.getvalue().removesuffix(end)


def escape_cell(text: str) -> str:
    """Put an apostrophe in front of text that a spreadsheet would run: file names come from
    strangers."""
    return f"'{text}" if _FORMULA_CELL.match(text) else text


def unescape_cell(text: str) -> str:
    """Undo `escape_cell`."""
    return text[1:] if text.startswith("'") and _FORMULA_CELL.match(text) else text
