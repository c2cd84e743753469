"""Many claims in one request: a zip, or photos with their folders' names. Whole or not at all.
`routes.judge_batch` says which photos belong together.

Nothing is unpacked to a path that an archive names, and no size that it states is believed.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

from realdamage.claims.policy import PhotoRules
from realdamage.files import FORMULA, PHOTO_SUFFIXES
from realdamage.service.schemas import CLAIM_ID, BatchForm, ClaimForm, Refusal, Upload
from realdamage.service.settings import Settings

_HEADER = b"PK\x01\x02"
"""Begins each entry of a zip's directory."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst")
_UNSEEN = ("__MACOSX", "Thumbs.db", "desktop.ini")
_LISTING = "listing"
_CHUNK = 1 << 20
_LONGEST_PATH = 500  # characters
_SHOWN = 20  # names of ignored files in an answer
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class _File:
    path: PurePosixPath
    read: Callable[[], bytes]


@dataclass
class _Group:
    """The files of one claim."""

    name: str
    photos: list[_File] = field(default_factory=list)
    listings: list[_File] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """The claims of a batch, read one after the other; ignored: files that are no photos.

    Reading them raises Refusal 413 or 422.
    """

    forms: Iterator[ClaimForm]
    count: int
    photos: int
    ignored: tuple[str, ...]


def read_batch(form: BatchForm, settings: Settings, limits: PhotoRules) -> Batch:
    """What a batch holds, checked as far as it can be before photos are unpacked.

    Raises Refusal 413 when it is larger than allowed, else 422. limits: on the photos of a claim.
    """
    if bool(form.photos) == bool(form.archive) or len(form.archive) > 1:
        message = "Send one zip as `archive`, or photos with their folders' names as `photos`."
        raise Refusal(422, "missing_field", message)
    if form.archive:
        files = _entries(form.archive[0].data, settings)
    else:
        files = [_File(_path(one.name), partial(bytes, one.data)) for one in form.photos]
        files = [file for file in files if not _is_unseen(file.path)]
    groups, ignored = _groups(files)
    if not groups:
        raise Refusal(422, "batch_empty", "There is no photo in the batch.")
    for group in groups:
        kinds = ((group.photos, limits.at_most), (group.listings, limits.listings_at_most))
        for found, most in kinds:
            if len(found) > most:
                message = f"{group.name}: {len(found)} photos, but a claim has at most {most}."
                raise Refusal(413, "too_many_photos", message)
        if not group.photos:
            message = f"{group.name}: has photos of the listing, but none of the claim."
            raise Refusal(422, "batch_without_photos", message)
    photos = sum(len(group.photos) + len(group.listings) for group in groups)
    forms = (_form(group, form) for group in groups)
    return Batch(forms, len(groups), photos, tuple(ignored[:_SHOWN]))


def _form(group: _Group, batch: BatchForm) -> ClaimForm:
    def uploads(files: Sequence[_File]) -> list[Upload]:
        return [Upload(one.path.name[-200:], one.read()) for one in files]

    # The same folder has the same id when it is sent again, so no claim is judged twice.
    hashed = f"batch-{hashlib.sha256(group.name.encode()).hexdigest()[:20]}"
    return ClaimForm(
        photos=uploads(group.photos),
        listings=uploads(group.listings),
        claim_id=group.name if re.fullmatch(CLAIM_ID, group.name) else hashed,
        keep="true",
        order_id=group.name.lstrip("".join(FORMULA))[:100],
        merchant=batch.merchant,
        currency=batch.currency,
    )


def _groups(files: Sequence[_File]) -> tuple[list[_Group], list[str]]:
    """The claims, in the order of their names, and the names of files that are no photos."""
    groups: dict[str, _Group] = {}
    folders: dict[str, PurePosixPath] = {}
    ignored = []
    for file in sorted(files, key=lambda one: str(one.path)):
        path = file.path
        if path.suffix.lower() in _ARCHIVES:
            message = f"{_shown(path)}: an archive in the batch. Unpack it first."
            raise Refusal(422, "batch_nested", message)
        if path.suffix.lower() not in PHOTO_SUFFIXES:
            ignored.append(_shown(path))
            continue
        folder, rest = path.parent, path.name
        if folder.name.lower() == _LISTING:
            folder, rest = folder.parent, _LISTING
        name = folder.name
        if rest == _LISTING and not name:
            name = _LISTING  # a folder of its own, without a claim around it
        elif not name:
            beginning, underscore, end = path.stem.rpartition("_")
            name, rest = (beginning, end) if underscore and beginning else (path.stem, "")
        if folders.setdefault(name, folder) != folder:
            message = f"Two folders are called {name[:80]!r}. Rename one: it is the claim's name."
            raise Refusal(422, "batch_same_name", message)
        group = groups.setdefault(name, _Group(name))
        is_listing = rest.lower().startswith(_LISTING)
        (group.listings if is_listing else group.photos).append(file)
    return list(groups.values()), ignored


def _entries(data: bytes, settings: Settings) -> list[_File]:
    """The files of a zip. Raises Refusal."""
    most = settings.max_batch_photos
    # The directory is not read before its entries are counted: a small zip may name millions.
    if data.count(_HEADER) > 2 * most:
        raise _too_many(most)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _FAULTS as error:
        raise Refusal(422, "archive_unreadable", f"Not a zip that can be read: {error}.") from error
    left = [settings.max_batch_bytes]
    files: list[_File] = []
    for info in archive.infolist():
        path = _path(_name(info))
        if info.is_dir() or _is_unseen(path):
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise _unsafe(path)
        if info.flag_bits & 0x41:
            message = f"{_shown(path)}: encrypted. Pack the zip again without a password."
            raise Refusal(422, "archive_encrypted", message)
        if info.compress_type not in _METHODS:
            message = f"{_shown(path)}: packed in an unusual way. Use plain zip (deflate)."
            raise Refusal(422, "archive_unreadable", message)
        read = partial(_unpacked, archive, info, path, left, settings.max_photo_bytes)
        files.append(_File(path, read))
    if len(files) > most:
        raise _too_many(most)
    return files


def _unpacked(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: PurePosixPath, left: list[int], most: int
) -> bytes:
    """A file of a zip. left: bytes that may still be unpacked, of all together. most: of one."""
    content = bytearray()
    try:
        with archive.open(info) as file:
            while piece := file.read(_CHUNK):
                content += piece
                left[0] -= len(piece)
                if len(content) > most:
                    message = f"{_shown(path)}: more than {most} bytes."
                    raise Refusal(413, "too_large", message)
                if left[0] < 0:
                    message = "The zip unpacks to more bytes than a batch may have. Send fewer."
                    raise Refusal(413, "archive_too_large", message)
    except _FAULTS as error:
        message = f"{_shown(path)}: damaged in the zip: {error}."
        raise Refusal(422, "archive_damaged", message) from error
    if content.startswith((b"PK\x03\x04", b"Rar!", b"7z\xbc\xaf")):
        message = f"{_shown(path)}: an archive in the batch. Unpack it first."
        raise Refusal(422, "batch_nested", message)
    return bytes(content)


def _name(info: zipfile.ZipInfo) -> str:
    """The name of an entry. Old programs of Chinese Windows write GBK and do not say so."""
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    for encoding in ("utf-8", "gbk"):
        try:
            return name.encode("cp437").decode(encoding)
        except UnicodeError:
            continue
    return name


def _path(name: str) -> PurePosixPath:
    """A name as a path inside the batch. Raises Refusal 422 for one that leads out of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    is_odd = not name.isprintable() or len(name) > _LONGEST_PATH or ":" in name
    if is_odd or path.is_absolute() or ".." in path.parts or not path.name:
        raise _unsafe(path)
    return path


def _is_unseen(path: PurePosixPath) -> bool:
    """What systems put into archives by themselves."""
    return any(part in _UNSEEN or part.startswith(".") for part in path.parts)


def _unsafe(path: PurePosixPath) -> Refusal:
    message = f"{_shown(path)}: this name may lead out of the batch. Use plain folders and files."
    return Refusal(422, "batch_path", message)


def _too_many(most: int) -> Refusal:
    return Refusal(413, "batch_too_many", f"The batch has more than {most} files. Send fewer.")


def _shown(path: PurePosixPath) -> str:
    return "".join(filter(str.isprintable, str(path)))[:120]
