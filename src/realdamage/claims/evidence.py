"""Writes what was found about a claim into a folder that can be kept, printed and checked years later.

evidence.html for people, evidence.json for programs (evidence.schema.json describes it), log.jsonl with the digests of
both. The folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from realdamage.claims.decide import Claim
from realdamage.claims.evidence import PhotoPictures, draw_pictures
from realdamage.claims.log import EvidenceLog
from realdamage.claims.page import render_page
from realdamage.errors import RealDamageError, UsageError
from realdamage.files import PHOTO_SUFFIXES

JSON_NAME, HTML_NAME, LOG_NAME, ORIGINALS = (
    "evidence.json",
    "evidence.html",
    "log.jsonl",
    "originals",
)
EVENT = "evidence_written"
"""Of the log's entries about a folder of evidence."""


def write_evidence(
    claim: Claim,
    photos: Sequence[tuple[str, bytes]],
    listings: Sequence[tuple[str, bytes]],
    folder: str | Path,
    *,
    keep_originals: bool = False,
    overwrite: bool = False,
    log: EvidenceLog | None = None,
) -> Path:
    """Write the evidence of a claim into `folder`; returns its evidence.html.

    photos, listings: what `judge_claim` was given, in the same order. keep_originals: the files too, as they came, with
    all that their metadata tell; without it, their digests only. overwrite: replace evidence that is there; its log
    goes on. log: one log over all claims, which gets the entry too.

    Raises UsageError when the folder is there and not empty, or the photos are not the claim's; RealDamageError when it
    cannot be written, and nothing is left behind then.
    """
    folder = Path(folder)
    check_free(folder, overwrite)
    _check_same("photo", [photo.sha256 for photo in claim.photos], photos)
    _check_same("listing photo", [listing.sha256 for listing in claim.listings], listings)
    if log is not None:
        if log.path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{log.path}: a log over all claims cannot lie in the evidence of one; name another place"
            )
        log.recover()
        _ = log.head  # a broken log is an error before anything is written
    by_name = {shown.name: data for shown, (_, data) in zip(claim.listings, listings, strict=True)}
    pictures = [
        draw_pictures(photo, data, by_name)
        for photo, (_, data) in zip(claim.photos, photos, strict=True)
    ]
    kept = dict(_originals(photos, listings)) if keep_originals else {}
    files = kept | _texts(claim, pictures, list(kept))
    event = {
        "event": EVENT,
        "claim_id": claim.claim_id,
        "recommendation": claim.recommendation,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    with _replaced(folder) as made:
        for name, data in files.items():
            _write(made / name, data)
        if (folder / LOG_NAME).is_file():
            shutil.copyfile(folder / LOG_NAME, made / LOG_NAME)
        EvidenceLog(made / LOG_NAME).append(event)
    if log is not None:
        log.append(event)
    return folder / HTML_NAME


def check_free(folder: Path, overwrite: bool) -> None:
    """Raises UsageError when evidence cannot be written there without losing what is not evidence of ours."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder for the evidence")
    inside = {path.name for path in folder.iterdir()}
    if inside and not overwrite:
        raise UsageError(
            f"{folder}: is not empty; name another folder, or replace what is there with --overwrite"
        )
    if inside and JSON_NAME not in inside:
        raise UsageError(
            f"{folder}: holds other files than evidence, which --overwrite would remove; name another folder"
        )
    if other := sorted(inside - {JSON_NAME, HTML_NAME, LOG_NAME, ORIGINALS}):
        raise UsageError(
            f"{folder}: holds {other[0]!r} beside the evidence, which --overwrite would remove; move it first"
        )


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of evidence.json."""
    found: dict[str, Any] = json.loads(_schema_text())
    return found


@cache
def _schema_text() -> str:
    return Path(__file__).with_name("evidence.schema.json").read_text(encoding="utf-8")


def _texts(
    claim: Claim, pictures: Sequence[PhotoPictures | None], kept: Sequence[str]
) -> dict[str, bytes]:
    values = claim.to_dict(heatmaps=True) | {"originals": list(kept)}
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    data = text.encode(
        "utf-8", errors="replace"
    )  # a file's own metadata may hold halves of characters
    page = render_page(claim, pictures, hashlib.sha256(data).hexdigest(), kept)
    return {JSON_NAME: data, HTML_NAME: page.encode("utf-8", errors="replace")}


def _originals(
    photos: Sequence[tuple[str, bytes]], listings: Sequence[tuple[str, bytes]]
) -> Iterator[tuple[str, bytes]]:
    """(path in the folder, bytes); the buyer's own file names stay out of the file system."""
    for kind, given in (("photo", photos), ("listing", listings)):
        for number, (name, data) in enumerate(given, start=1):
            suffix = Path(name).suffix.lower()
            yield (
                f"{ORIGINALS}/{kind}-{number:02d}{suffix if suffix in PHOTO_SUFFIXES else '.bin'}",
                data,
            )


def _check_same(what: str, digests: Sequence[str], given: Sequence[tuple[str, bytes]]) -> None:
    if [hashlib.sha256(data).hexdigest() for _, data in given] != list(digests):
        raise UsageError(
            f"the {what}s given are not those that the claim was judged by; pass the same, in the same order"
        )


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder beside, which takes the place of `folder` at the end; what was there is removed only then."""
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
            f"{folder}: the evidence cannot be written: {error.strerror or error}. Nothing was changed; make room, or "
            "choose another place"
        ) from error
    finally:
        for left in (made, old):
            with contextlib.suppress(OSError):
                shutil.rmtree(left)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
