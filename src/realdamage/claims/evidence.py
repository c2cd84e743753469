"""Writes the findings about a claim into a folder that can be kept, printed and checked.

evidence.html for people, evidence.json for programs (evidence.schema.json), log.jsonl with the
digests of both. The folder appears complete or not at all; in an object store evidence.json, the
last one written, makes it complete.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import io
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from realdamage.claims.decide import Claim
from realdamage.claims.log import EvidenceLog, LogReport, canonical, follow_chain, make_entry
from realdamage.claims.paths import AnyPath, ObjectPath, files_named, replace_file, to_path
from realdamage.claims.paths import write_new as _write
from realdamage.claims.policy import Recommendation
from realdamage.core.decode import decode
from realdamage.core.overlay import draw_boxes, draw_overlay
from realdamage.errors import MissingExtraError, PhotoError, RealDamageError, UsageError
from realdamage.files import PHOTO_SUFFIXES

if TYPE_CHECKING:
    from jinja2 import Environment

JSON_NAME, HTML_NAME, LOG_NAME = "evidence.json", "evidence.html", "log.jsonl"
ORIGINALS, PICTURES, STATEMENTS = "originals", "pictures", "statements"
EVENT, STATEMENT = "evidence_written", "statement_received"
"""The events of log entries about files: a folder of evidence, and what was added to it."""
MAX_SIDE = 720
"""Of a picture in the page, in pixels; it then has at most about 150 kB."""
_QUALITY = 80
_MARK = (255, 0, 160)  # colour of the boxes around visible marks of AI

_TITLES: dict[Recommendation, str] = {
    "approve": "Approve: nothing found for which the policy asks more",
    "ask_photo": "Ask for another photo",
    "review": "Review: an agent should look at it",
    "escalate": "Escalate: a specialist should look at it and decide",
}
Files: TypeAlias = Sequence[tuple[str, bytes]]


@dataclass
class PhotoPictures:
    """Data URIs: the photo; the photo with its heat map, or ""; the photo with boxes around visible
    marks of AI, or ""; (listing photo, picture) pairs."""

    photo: str
    heat: str = ""
    marks: str = ""
    comparisons: list[tuple[str, str]] = field(default_factory=list)


def write_evidence(
    claim: Claim,
    photos: Files,
    listings: Files,
    folder: str | AnyPath,
    *,
    keep_originals: bool = False,
    keep_pictures: bool = False,
    overwrite: bool = False,
    log: EvidenceLog | None = None,
) -> AnyPath:
    """Write the evidence of a claim into `folder`; returns its evidence.html.

    photos, listings: what `judge_claim` was given, in the same order.
    keep_originals: keep the files too, with all their metadata; otherwise only their digests.
    keep_pictures: also keep the page's small pictures as files, for the review page.
    overwrite: replace evidence in the folder; its log continues. log: a log over all claims.

    Raises UsageError when the folder is not empty, or the photos are others; RealDamageError when
    it cannot be written, and then nothing is left behind.
    """
    folder = to_path(folder)
    check_free(folder, overwrite)
    _check_same("photo", [photo.sha256 for photo in claim.photos], photos)
    _check_same("listing photo", [listing.sha256 for listing in claim.listings], listings)
    if log is not None:
        if isinstance(folder, Path) and log.path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{log.path}: a log over all claims cannot be inside the evidence of one; move it"
            )
        log.recover()
        _ = log.head  # a broken log is an error before anything is written
    pictures = _draw_pictures(claim, [data for _, data in photos], [data for _, data in listings])
    kept = dict(originals_of(photos, listings)) if keep_originals else {}
    files = kept | _texts(claim, pictures, list(kept))
    if keep_pictures:
        files |= small_pictures("photo", photos) | small_pictures("listing", listings)
    event = {
        "event": EVENT,
        "claim_id": claim.claim_id,
        "recommendation": claim.recommendation,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    with _replaced(folder) as made:
        last = files.pop(JSON_NAME)
        for name, data in files.items():
            _write(made / name, data)
        if made != folder and (folder / LOG_NAME).is_file():
            _write(made / LOG_NAME, (folder / LOG_NAME).read_bytes())
        append_entry(made, event)
        _write(made / JSON_NAME, last)
    if log is not None:
        log.append(event)
    return folder / HTML_NAME


def append_entry(folder: AnyPath, event: Mapping[str, Any]) -> None:
    """Add an entry to the log of a claim's evidence. In an object store only one caller may at a
    time. Raises as `EvidenceLog.append`."""
    log = folder / LOG_NAME
    if isinstance(log, Path):
        EvidenceLog(log).append(event)
        return
    lines = b""
    with contextlib.suppress(FileNotFoundError):
        lines = log.read_bytes()
    report = follow_chain(lines.splitlines(), str(log))
    entry = make_entry(event, len(report.entries) - 1, report.head)
    log.write_bytes(lines + f"{canonical(entry)}\n".encode())


def read_log(path: AnyPath, head: str | None = None) -> LogReport:
    """Follow the chain of a log, as `EvidenceLog.verify`."""
    if isinstance(path, Path):
        return EvidenceLog(path).verify(head)
    return follow_chain(path.read_bytes().splitlines(), str(path), head)


def small_pictures(kind: str, photos: Files) -> dict[str, bytes]:
    """Small JPEGs without metadata by path in the folder; unreadable photos are left out."""
    found = {}
    for number, (_, data) in enumerate(photos, start=1):
        with contextlib.suppress(PhotoError):
            small = _small(Image.fromarray(decode(data)), MAX_SIDE)
            found[f"{PICTURES}/{kind}-{number:02d}.jpg"] = _jpeg(small)
    return found


def add_statement(
    folder: AnyPath, name: str, values: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, str]:
    """Add STATEMENTS/name with statement.json and `files` to a claim's evidence; it appears whole.

    Returns the digests by path in the claim's folder, for the event in both logs. Raises
    RealDamageError when it cannot be written.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    data = {**files, "statement.json": text.encode("utf-8", errors="replace")}
    with _replaced(folder / STATEMENTS / name) as made:
        for path, content in data.items():
            _write(made / path, content)
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in data.items()}
    return {f"{STATEMENTS}/{name}/{path}": digest for path, digest in digests.items()}


def page_with_statements(folder: AnyPath, names: Sequence[str]) -> bytes:
    """The claim's evidence.html with these of its statements, both sides next to each other.

    names: of folders that `add_statement` made, the oldest first.
    """
    sides: dict[str, list[dict[str, Any]]] = {"buyer": [], "merchant": []}
    for name in names:
        inside = folder / STATEMENTS / name
        values = json.loads((inside / "statement.json").read_bytes())
        received = dt.datetime.fromtimestamp(values["received"], dt.UTC)
        pictures = [_jpeg_uri(path.read_bytes()) for path in files_named(inside, "photo-*.jpg")]
        shown = {"received": f"{received:%Y-%m-%d %H:%M}", "pictures": pictures}
        sides[values["side"]].append(values | shown)
    page = (folder / HTML_NAME).read_bytes().decode()
    before, start, rest = page.partition("<!-- statements -->")
    _, end, after = rest.partition("<!-- end of statements -->")
    rendered = environment().get_template("statements.html.j2").render(sides=sides)
    text = f"{before}{start}\n{rendered}\n{end}{after}"
    return text.encode("utf-8", errors="replace")


@contextmanager
def replaced_page(folder: AnyPath, page: bytes) -> Iterator[None]:
    """Replace evidence.html; the old page comes back when what follows fails."""
    path = folder / HTML_NAME
    old = path.read_bytes()
    replace_file(path, page)
    try:
        yield
    except BaseException:
        replace_file(path, old)
        raise


def check_free(folder: AnyPath, overwrite: bool) -> None:
    """Raises UsageError when writing evidence there would remove anything but evidence."""
    if isinstance(folder, ObjectPath) or not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder for the evidence")
    inside = {path.name for path in folder.iterdir()}
    if inside and not overwrite:
        raise UsageError(
            f"{folder}: is not empty; name another folder, or replace its contents with "
            "--overwrite",
            code="not_empty",
        )
    other = sorted(inside - {JSON_NAME, HTML_NAME, LOG_NAME, ORIGINALS, PICTURES, STATEMENTS})
    if inside and (other or JSON_NAME not in inside):
        named = repr(other[0]) if other else "no evidence"
        raise UsageError(
            f"{folder}: contains {named}, and --overwrite would remove everything; name another "
            "folder",
            code="not_evidence",
        )


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of evidence.json."""
    text = Path(__file__).with_name("evidence.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _draw_pictures(
    claim: Claim, photos: Sequence[bytes], listings: Sequence[bytes]
) -> list[PhotoPictures | None]:
    """Small new pictures of each photo, without metadata; None for an unreadable photo. Each file
    is decoded once."""
    from realdamage.photo_pairs.draw import PAIR_SIDE, draw_comparison

    found: list[PhotoPictures | None] = []
    halves: list[Image.Image] = []
    for photo, data in zip(claim.photos, photos, strict=True):
        if photo.error:
            found.append(None)
            halves.append(Image.new("RGB", (1, 1)))
            continue
        rgb = decode(data)
        small = _small(Image.fromarray(rgb), MAX_SIDE)
        drawn = PhotoPictures(_data_uri(small))
        if photo.verdict is not None and photo.verdict.heatmap is not None:
            heat = draw_overlay(np.asarray(small), photo.verdict, reasons=False)
            drawn.heat = _data_uri(heat)
        if photo.marks:
            boxed = small.copy()
            scale = (small.width / rgb.shape[1], small.height / rgb.shape[0])
            draw_boxes(boxed, [mark.box for mark in photo.marks], scale, _MARK, 3)
            drawn.marks = _data_uri(boxed)
        found.append(drawn)
        halves.append(_small(Image.fromarray(rgb), PAIR_SIDE) if photo.comparisons else small)
    for listing, data in zip(claim.listings, listings, strict=True):
        if listing.error:
            continue
        rgb = decode(data)
        for photo, pictures, half in zip(claim.photos, found, halves, strict=True):
            comparison = dict(photo.comparisons).get(listing.name)
            if pictures is None or comparison is None or comparison.outcome == "unrelated":
                continue
            pair = draw_comparison(np.asarray(half), rgb, comparison)
            pair.thumbnail((2 * MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
            pictures.comparisons.append((listing.name, _data_uri(pair)))
    return found


def _small(picture: Image.Image, side: int) -> Image.Image:
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture


def _data_uri(picture: Image.Image) -> str:
    return _jpeg_uri(_jpeg(picture))


def _jpeg_uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.convert("RGB").save(data, format="JPEG", quality=_QUALITY, optimize=True)
    return data.getvalue()


def _texts(
    claim: Claim, pictures: Sequence[PhotoPictures | None], kept: Sequence[str]
) -> dict[str, bytes]:
    """evidence.json, and the page: one file that loads nothing, runs no script and prints well.
    Names, texts and metadata come from strangers' files: the page escapes all."""
    values = claim.to_dict(heatmaps=True) | {"originals": list(kept)}
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # A file's metadata may contain lone surrogates.
    data = text.encode("utf-8", errors="replace")
    notes = {"no_promise", "false_alarm_bound"}
    template = environment().get_template("evidence.html.j2")
    page = template.render(
        claim=claim,
        title=_TITLES[claim.recommendation],
        photos=list(zip(claim.photos, pictures, strict=True)),
        found=[one for one in claim.reasons if one.code not in notes],
        promise=[one for one in claim.reasons if one.code in notes],
        json_sha256=hashlib.sha256(data).hexdigest(),
        kept=kept,
    )
    return {JSON_NAME: data, HTML_NAME: page.encode("utf-8", errors="replace")}


@cache
def environment() -> Environment:
    """The templates of this room; all values are escaped."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingExtraError("the evidence page", "claims", error.name) from None
    return Environment(
        loader=PackageLoader("realdamage.claims", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def originals_of(photos: Files, listings: Files) -> Iterator[tuple[str, bytes]]:
    """(path in the folder, bytes); the buyer's own file names stay out of the file system."""
    for kind, given in (("photo", photos), ("listing", listings)):
        for number, (name, data) in enumerate(given, start=1):
            suffix = Path(name).suffix.lower()
            ending = suffix if suffix in PHOTO_SUFFIXES else ".bin"
            yield f"{ORIGINALS}/{kind}-{number:02d}{ending}", data


def _check_same(what: str, digests: Sequence[str], given: Files) -> None:
    if [hashlib.sha256(data).hexdigest() for _, data in given] != list(digests):
        raise UsageError(
            f"these are not the {what}s of the claim; pass the same files in the same order",
            code="other_photos",
        )


@contextmanager
def _replaced(folder: AnyPath) -> Iterator[AnyPath]:
    """A new folder, which replaces `folder` at the end; the old one is removed only then. In an
    object store it is `folder` itself, and what is written last makes the rest count."""
    if isinstance(folder, ObjectPath):
        yield folder
        return
    mark = secrets.token_hex(4)
    folder = folder.resolve()
    made, old = (folder.with_name(f".{folder.name}.{mark}.{kind}") for kind in ("tmp", "old"))
    try:
        made.mkdir(parents=True)
        yield made
        if folder.exists():
            folder.rename(old)
        try:
            made.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise RealDamageError(
            f"{folder}: the evidence cannot be written: {error.strerror or error}. "
            "Check free space and permissions.",
            code="cannot_write",
        ) from error
    finally:
        for left in (made, old):
            with contextlib.suppress(OSError):
                shutil.rmtree(left)
