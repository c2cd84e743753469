"""Limits on the bytes, photos and time of one request and of all together.

No header is believed: bytes are counted as they arrive, and reading stops at the first limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive

from realdamage.core.spans import span
from realdamage.service.schemas import Refusal, Upload, UploadForm, not_valid
from realdamage.service.settings import Settings

T = TypeVar("T")
FormT = TypeVar("FormT", bound=UploadForm)

_MAX_FIELD_BYTES = 64 * 1024
_MAX_NAME = 200
_STUCK_AFTER_S = 10.0
"""A job that still runs so long after its deadline counts as stuck."""
_CLOSE_S = 5.0


class DeadlineError(Exception):
    """The work was not begun before its deadline, and never will be."""


class UploadBudget:
    """The bytes that all current requests hold together; used on the event loop only."""

    def __init__(self, limit: int) -> None:
        self._limit, self.taken = limit, 0

    def take(self, count: int) -> None:
        """Bytes that arrived, or, below zero, that are free again. Raises Refusal 429."""
        if count > 0 and self.taken + count > self._limit:
            message = f"The current requests hold {self.taken} bytes of {self._limit}. Try again."
            raise Refusal(429, "busy", message, retry_after=1)
        self.taken += count


class BoundedBody:
    """An ASGI `receive` that counts bytes and waits until the deadline (time.monotonic) only."""

    def __init__(
        self, receive: Receive, limit: int, deadline: float, budget: UploadBudget | None = None
    ) -> None:
        self._receive, self._limit, self._deadline = receive, limit, deadline
        self._budget, self._complete = budget, False
        self.bytes = 0

    def check_length(self, content_length: str) -> None:
        """Refuse a body early that says it is too large. Raises Refusal 413."""
        if content_length.isascii() and content_length.isdigit():
            self._check(int(content_length[:20]))

    async def __call__(self) -> Message:
        """The next piece. Raises Refusal 408, 413 or 429."""
        if self._complete:  # a further call waits for the client to disconnect
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            reason = "The request did not arrive in time. Send fewer photos at once."
            raise Refusal(408, "slow_upload", reason) from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self._check(self.bytes + count)
            if self._budget is not None:
                self._budget.take(count)
            self.bytes += count
            self._complete = not message.get("more_body", False)
        return message

    def close(self) -> None:
        """Give the bytes back to the budget."""
        if self._budget is not None:
            self._budget.take(-self.bytes)

    def _check(self, count: int) -> None:
        if count > self._limit:
            message = f"The request has more than {self._limit} bytes. Send less at once."
            raise Refusal(413, "too_large", message)


class _BoundedParser(MultiPartParser):
    """Starlette's form parser, but in memory only and stopping at the first limit."""

    spool_max_size = 0  # files stay in memory

    def __init__(self, request: Request, form: type[UploadForm], settings: Settings) -> None:
        super().__init__(request.headers, request.stream())
        self._known, self._files, self._settings = form.model_fields, form.file_fields(), settings
        is_batch = "archive" in self._known
        self._most = settings.max_batch_photos if is_batch else settings.max_photos
        self._limits = {"videos": settings.max_video_bytes, "archive": settings.max_batch_bytes}
        self._text_seen: set[str] = set()
        self._part_bytes = 0
        self.ended = False

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        name, self._part_bytes = self._current_part.field_name, 0
        if name not in self._known:
            message = f"No field {name[:80]!r}; the fields are {', '.join(self._known)}."
            raise Refusal(422, "unknown_field", message)
        if name in self._text_seen:
            raise Refusal(422, "invalid_field", f"{name}: sent twice.")
        if name not in self._files:
            self._text_seen.add(name)
        elif self._current_part.file is None:
            raise Refusal(422, "not_a_file", f"{name}: not a file (curl: -F {name}=@photo.jpg).")
        elif self._current_files > self._most:
            message = f"The request has more than {self._most} photos. Send fewer at once."
            raise Refusal(413, "too_many_photos", message)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        name, self._part_bytes = self._current_part.field_name, self._part_bytes + end - start
        is_file = name in self._files
        limit = self._settings.max_photo_bytes if is_file else _MAX_FIELD_BYTES
        limit = self._limits.get(name, limit)
        if self._part_bytes > limit:
            what = f"File {self._current_files} of the request" if is_file else f"Field {name!r}"
            raise Refusal(413, "too_large", f"{what} has more than {limit} bytes.")
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self.ended = True


async def read_form(request: Request, form: type[FormT], settings: Settings) -> FormT:
    """The multipart body of a request, checked. Raises Refusal 400, 413, 415 or 422."""
    content_type = request.headers.get("content-type", "")
    kind, _ = parse_options_header(content_type.encode("latin-1", "replace"))
    if kind != b"multipart/form-data":
        expected = "Send multipart/form-data (curl: -F photos=@photo.jpg)."
        message = f"Content-Type is {content_type[:80]!r}. {expected}"
        raise Refusal(415, "not_multipart", message)
    parser = _BoundedParser(request, form, settings)
    try:
        with span("receive"):
            parts = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        message = f"The multipart body cannot be read: {error}"
        raise Refusal(400, "malformed", message) from error
    if not parser.ended:
        raise Refusal(400, "malformed", "The multipart body is cut off. Send it again.")
    values: dict[str, Any] = {name: [] for name in form.file_fields()}
    for name, part in parts.multi_items():
        if isinstance(part, str):
            values[name] = part
        else:
            shown = "".join(filter(str.isprintable, part.filename or ""))[:_MAX_NAME]
            shown = shown or f"{name} {len(values[name]) + 1}"
            values[name].append(Upload(shown, part.file.read()))
    if form.model_fields["photos"].is_required() and not values["photos"]:
        raise Refusal(422, "missing_field", "No photo in the request (curl: -F photos=@photo.jpg).")
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise not_valid(error.errors(), form.model_fields) from error


class WorkQueue:
    """Runs jobs on a few threads; what is late is dropped. max_photos: that wait or are being
    judged; more are refused."""

    def __init__(self, workers: int, max_photos: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="realdamage-photo")
        self._workers, self._max_photos = workers, max_photos
        self._jobs: dict[Future[Any], tuple[int, float]] = {}  # photos and deadline of each

    @property
    def photos(self) -> int:
        """How many wait or are being judged."""
        return sum(photos for job, (photos, _) in self._jobs.items() if not job.done())

    @property
    def is_stuck(self) -> bool:
        """Whether every worker is busy with a job long after its deadline."""
        late = time.monotonic() - _STUCK_AFTER_S
        jobs = self._jobs.items()
        return sum(job.running() and end < late for job, (_, end) in jobs) >= self._workers

    def check_room(self, more: int) -> None:
        """Raises Refusal 429 without room for so many photos."""
        waiting = self.photos
        if waiting + more > self._max_photos:
            full = f"{waiting} of at most {self._max_photos} photos are waiting"
            raise Refusal(429, "busy", f"{full}, so {more} more do not fit.", retry_after=2)

    async def run(
        self, jobs: Sequence[Callable[[], T]], deadline: float, *, photos: int = 1
    ) -> list[T]:
        """What the jobs return, in order. deadline: in time.monotonic; jobs that begin later never
        run. photos: that each job is. Raises Refusal 429, 504, and the first job's error."""
        self.check_room(photos * len(jobs))

        def begin(job: Callable[[], T]) -> T:
            if time.monotonic() > deadline:
                raise DeadlineError
            return job()

        # Each in a copy of this request's context, so that its spans belong to the request.
        futures = [self._pool.submit(copy_context().run, begin, job) for job in jobs]
        self._jobs = self._jobs | dict.fromkeys(futures, (photos, deadline))
        gathered = asyncio.gather(*map(asyncio.wrap_future, futures))
        try:
            return await asyncio.wait_for(gathered, max(0.0, deadline - time.monotonic()))
        except (TimeoutError, DeadlineError):
            message = "Not done in time. Send fewer or smaller photos at once."
            raise Refusal(504, "deadline", message) from None
        finally:
            for future in futures:
                future.cancel()
            self._jobs = {job: about for job, about in self._jobs.items() if not job.done()}

    def close(self) -> None:
        """Drop the jobs that have not begun. Wait at most 5 s for the others: one may never end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait([job for job in self._jobs if job.running()], _CLOSE_S)
