"""Reads a multipart body piece by piece into memory and stops as soon as a limit is passed.

Nothing is written to the disk, and nothing that a header promises is believed: bytes are counted as they come.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from realdamage.service.refusals import Refusal

MAX_FIELD_BYTES = 64 * 1024
_MAX_PART_HEADER_BYTES = 8 * 1024
_MAX_NAME = 200


@dataclass(frozen=True)
class Limits:
    """files: photos of all fields together. file_bytes: of each."""

    files: int
    file_bytes: int


@dataclass(frozen=True)
class Upload:
    """A file of a request; name: as the caller wrote it, at most 200 characters, without control characters."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Form:
    """What a request carried. size: bytes of the body."""

    files: Mapping[str, tuple[Upload, ...]]
    fields: Mapping[str, str]
    size: int


class UploadBudget:
    """Counts the bytes of all requests at hand; a request takes what it reads and gives it back at its end."""

    def __init__(self, limit: int, observe: Callable[[int], object]) -> None:
        self._limit, self._observe, self._taken = limit, observe, 0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Raises Refusal 429 when all requests together would pass the limit."""
        with self._lock:
            if self._taken + count > self._limit:
                raise Refusal(
                    429,
                    "busy",
                    f"the requests at hand already hold {self._taken} bytes, at most {self._limit} fit; try again",
                    {"Retry-After": "1"},
                )
            self._taken += count
            self._observe(self._taken)

    def give_back(self, count: int) -> None:
        """Of a request that has ended."""
        with self._lock:
            self._taken -= count
            self._observe(self._taken)


@dataclass
class _Part:
    headers: dict[str, str] = field(default_factory=dict)
    name: str = ""
    file_name: str | None = None
    data: bytearray = field(default_factory=bytearray)
    header_bytes: int = 0


class _FormReader:
    """What python-multipart calls while it reads; a limit that is passed ends the reading with a Refusal."""

    def __init__(self, files: frozenset[str], fields: frozenset[str], limits: Limits) -> None:
        self._file_fields, self._text_fields, self._limits = files, fields, limits
        self.files: dict[str, list[Upload]] = {name: [] for name in sorted(files)}
        self.fields: dict[str, str] = {}
        self._count = 0
        self._part = _Part()
        self._header = (bytearray(), bytearray())
        self.ended = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header_data(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._header_data(1, data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finished,
        }

    def _begin(self) -> None:
        self._part = _Part()
        self._header = (bytearray(), bytearray())

    def _header_data(self, which: int, data: bytes) -> None:
        self._part.header_bytes += len(data)
        if self._part.header_bytes > _MAX_PART_HEADER_BYTES:
            raise Refusal(
                413,
                "too_large",
                f"the headers of a part have more than {_MAX_PART_HEADER_BYTES} bytes; shorten the name",
            )
        self._header[which].extend(data)

    def _header_end(self) -> None:
        name, value = (bytes(text).decode("utf-8", "replace") for text in self._header)
        self._part.headers[name.strip().lower()] = value
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(
            self._part.headers.get("content-disposition", "").encode()
        )
        if kind != b"form-data" or b"name" not in options:
            raise Refusal(
                400,
                "malformed",
                "a part of the body is no form field: it needs Content-Disposition with a name",
            )
        self._part.name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            self._part.file_name = options[b"filename"].decode("utf-8", "replace")
        self._check_field()

    def _check_field(self) -> None:
        name, known = self._part.name, sorted(self._file_fields | self._text_fields)
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise Refusal(
                422,
                "unknown_field",
                f"unknown field {name[:80]!r}; known are {', '.join(known)}{hint}",
            )
        if name in self._file_fields and self._part.file_name is None:
            raise Refusal(
                422,
                "not_a_file",
                f"the field {name!r} must be a file (with curl: -F {name}=@photo.jpg); found a text",
            )
        if name in self._file_fields:
            self._count += 1
            if self._count > self._limits.files:
                raise Refusal(
                    413,
                    "too_many_photos",
                    f"more than {self._limits.files} photos; send them in several requests",
                )
        elif name in self.fields:
            raise Refusal(422, "invalid_field", f"the field {name!r} was given twice; give it once")

    def _data(self, data: bytes, start: int, end: int) -> None:
        is_file = self._part.name in self._file_fields
        limit = self._limits.file_bytes if is_file else MAX_FIELD_BYTES
        if len(self._part.data) + end - start > limit:
            what = (
                f"photo {self._count} of the request"
                if is_file
                else f"the field {self._part.name!r}"
            )
            raise Refusal(
                413, "too_large", f"{what} has more than {limit} bytes; send it at a smaller size"
            )
        self._part.data += data[start:end]

    def _end(self) -> None:
        part = self._part
        if part.name in self._file_fields:
            name = "".join(letter for letter in (part.file_name or "") if letter.isprintable())[
                :_MAX_NAME
            ]
            self.files[part.name].append(Upload(name or f"photo {self._count}", bytes(part.data)))
        else:
            try:
                self.fields[part.name] = part.data.decode("utf-8")
            except UnicodeDecodeError:
                raise Refusal(
                    422, "invalid_field", f"the field {part.name!r} is not UTF-8 text"
                ) from None

    def _finished(self) -> None:
        self.ended = True


async def read_form(
    content_type: str,
    chunks: AsyncIterator[bytes],
    *,
    files: frozenset[str],
    fields: frozenset[str],
    limits: Limits,
    take: Callable[[int], None],
) -> Form:
    """The fields of a multipart body. files, fields: the names that may come. take: told of each piece's bytes before
    it is kept; may refuse. Raises Refusal 400, 413, 415 or 422."""
    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    if kind != b"multipart/form-data":
        raise Refusal(
            415,
            "not_multipart",
            f"Content-Type is {content_type[:80]!r}; photos are sent as multipart/form-data "
            "(with curl: -F photos=@photo.jpg)",
        )
    reader = _FormReader(files, fields, limits)
    try:
        parser = MultipartParser(options.get(b"boundary", b""), reader.callbacks())  # type: ignore[arg-type]
    except FormParserError as error:
        raise Refusal(
            400, "malformed", f"the boundary of the multipart body cannot be used: {error}"
        ) from error
    if not options.get(b"boundary"):
        raise Refusal(
            400,
            "malformed",
            "Content-Type is multipart/form-data without a boundary; the client is at fault",
        )
    size = 0
    try:
        async for chunk in chunks:
            size += len(chunk)
            take(len(chunk))
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, "malformed", f"the multipart body cannot be read: {error}") from error
    if not reader.ended:
        raise Refusal(
            400,
            "malformed",
            f"the multipart body ends in the middle, after {size} bytes; send it again",
        )
    return Form(
        {name: tuple(found) for name, found in reader.files.items()}, dict(reader.fields), size
    )
