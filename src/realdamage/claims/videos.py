"""Reads the video of a claim or of a packing table: what its file declares, its sharpest frames;
and seals a packing video in a log before the parcel leaves.

No model here was trained on frames of video codecs, which smooth and repeat what pixels show. So
frames are compared with photos, and what a model says of their pixels never leads beyond `review`.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.core.decode import MAX_PIXELS, UInt8Array
from realdamage.core.verdict import Reason
from realdamage.errors import MissingExtraError, PhotoError, UsageError
from realdamage.phrases import Phrase, in_english, phrase, printable
from realdamage.provenance import TrustAnchors, read_provenance
from realdamage.provenance.c2pa import read_credentials
from realdamage.provenance.containers import Blocks, clean
from realdamage.provenance.generators import find_generator
from realdamage.provenance.labels import find_label, judge_label
from realdamage.provenance.precedence import Finding as Declaration
from realdamage.provenance.precedence import in_order

if TYPE_CHECKING:
    from realdamage.claims.decide import Finding
    from realdamage.claims.log import EvidenceLog
    from realdamage.claims.policy import ClaimPolicy
    from realdamage.core.detector import Detector

MAX_BYTES = 4 << 30
"""A larger file is refused before it is read."""
MAX_FRAMES = 6
"""Frames that are kept of a video."""
SEALED = "video_sealed"
"""The event of log entries about a packing video."""
_PLACES = 24  # of a video, at which a frame is looked at
_MAX_DECODED = 900  # frames
_EVERY = 45  # frames, of a video of unknown length
_MAX_METADATA = 16 << 20
_MAX_BOXES = 4000
_CHUNK = 1 << 20
_ALIKE = 0.97  # correlation of two frames' thumbnails above which they show the same
_QUALITY = 92
_CAMERA = ("com.apple.quicktime.make", "com.apple.quicktime.model", "com.android.manufacturer")
_CAMERA_TOO = ("com.android.model", "make", "model")
_SOFTWARE = ("encoder", "software", "com.apple.quicktime.software", "handler_name", "comment")
_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta")
_ENCRYPTED = (b"encv", b"drmi")


class Frame(NamedTuple):
    """A frame: its time in seconds, uint8 [h, w, 3] upright, its sharpness, a thumbnail."""

    time: float
    rgb: UInt8Array
    sharpness: float
    thumbnail: NDArray[np.float64]


@dataclass(frozen=True)
class VideoFacts:
    """What a video's file says, and its sharpest distinct frames.

    container: MP4, MOV, Matroska or AVI. seconds: None where the file does not say.
    varies: whether the size of the frames changes. made: the file's own time of creation, or "".
    declared, declarations: as in `Provenance`. notes: what is broken or could not be read.
    frames: (name, JPEG), the sharpest first; not in `to_dict`.
    """

    name: str
    sha256: str
    byte_count: int
    container: str
    codec: str
    width: int
    height: int
    seconds: float | None
    varies: bool
    made: str
    camera: str
    declared: str
    declarations: tuple[Declaration, ...]
    notes: tuple[Reason, ...]
    frames: tuple[tuple[str, bytes], ...]

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types, without frames but with their names."""
        values = asdict(replace(self, declarations=(), notes=(), frames=()))
        values["declarations"] = [one.to_dict() for one in self.declarations]
        values["notes"] = [note.to_dict() for note in self.notes]
        return values | {"frames": [name for name, _ in self.frames]}


def read_video(
    source: bytes | Path, name: str = "", *, trust_anchors: TrustAnchors | None = None
) -> VideoFacts:
    """Read a video: MP4, MOV, Matroska (WebM) or AVI.

    name: what errors and frames call it; by default the file's.
    Raises PhotoError with the code not_a_video, video_without_frames, video_encrypted,
        video_damaged, video_too_large or missing_file; MissingExtraError without PyAV.
    """
    name = printable(name or (source.name if isinstance(source, Path) else "video"))
    with _opened(source, name) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        container = _container(file.read(64))
        if not container:
            raise _refused(name, phrase("not_a_video"))
        boxes = _Boxes(file, size) if container in ("MP4", "MOV") else None
        if boxes and boxes.encrypted:
            raise _refused(name, phrase("video_encrypted"))
        seen = _decode(file, container, name)
        found, notes = _declarations(file, container, boxes, seen.tags, trust_anchors)
        if boxes and boxes.cut_off:
            notes.append(Reason.of("video_cut_off", phrase("video_cut_off")))
        digest = _digest(file)
    kept = _sharpest(seen.frames)
    ordered = in_order(found)
    camera = (seen.tags.get(key, "") for key in (*_CAMERA, *_CAMERA_TOO))
    return VideoFacts(
        name=name,
        sha256=digest,
        byte_count=size,
        container=container,
        codec=seen.codec,
        width=kept[0].rgb.shape[1],
        height=kept[0].rgb.shape[0],
        seconds=seen.seconds,
        varies=seen.varies,
        made=clean(seen.tags.get("creation_time", ""), 40),
        camera=clean(" ".join(text for text in camera if text), 100),
        declared=ordered[0].declares if ordered else "none",
        declarations=ordered,
        notes=tuple(notes),
        frames=tuple((f"{name} @ {one.time:.1f} s", _jpeg(one.rgb)) for one in kept),
    )


def judge_videos(
    videos: Sequence[VideoFacts],
    detector: Detector,
    policy: ClaimPolicy,
    photos: Sequence[bytes] = (),
) -> list[Finding]:
    """The findings about a claim's videos, for `judge_claim(more=…)`: what their files declare,
    what the model says of their frames, visible marks, and whether any frame shows the same object
    as a photo. photos: files of the claim and of the listing, all readable."""
    from realdamage.claims.decide import Finding
    from realdamage.claims.marks import find_marks
    from realdamage.core.decode import decode
    from realdamage.photo_pairs import compare, prepare

    rules, found = policy.rules, []
    said: tuple[Phrase, ...]
    others = [prepare(data, "listing") for data in photos]
    for video in videos:
        about = phrase("about", name=video.name)
        if video.declared != "none":
            rule = f"declared_{video.declared}"
            declared = video.declarations[0].phrases
            found.append(Finding(rule, (about, phrase(rule), *declared), getattr(rules, rule)))
        decoded = [(name, decode(data)) for name, data in video.frames]
        marked = sum(detector.predict(rgb).outcome == "synthetic" for _, rgb in decoded)
        if marked:
            counts = {"count": marked, "frames": len(decoded)}
            said = (about, phrase("video_frames_synthetic", **counts), phrase("video_untrained"))
            recommends = rules.video_frames_synthetic
            if recommends == "escalate":
                recommends = "review"
            found.append(Finding("video_frames_synthetic", said, recommends))
        for name, rgb in decoded:
            for mark in find_marks(rgb):
                said = (phrase("about", name=name), mark.said)
                found.append(Finding("visible_ai_mark", said, rules.visible_ai_mark))
        if others:
            frames = [prepare(data, "claim") for _, data in video.frames]
            pairs = ((frame, other) for frame in frames for other in others)
            if all(compare(*pair).outcome == "unrelated" for pair in pairs):
                said = (about, phrase("video_unlike_photos", frames=len(frames)))
                found.append(Finding("video_unlike_photos", said, rules.video_unlike_photos))
    return found


@dataclass(frozen=True)
class SealReport:
    """Whether a log holds a video. entry: the first one about these bytes, or None.

    problems: why that proves nothing. proves: what it proves, and what not.
    """

    entry: Mapping[str, Any] | None
    problems: tuple[str, ...]
    proves: tuple[str, ...]


def seal(path: Path, order: str, log: EvidenceLog) -> dict[str, Any]:
    """Add the digest of a packing video to a log, and return the entry. order: of the shop.

    Raises PhotoError for a file that is no video, UsageError for an order that is empty or long.
    """
    if not order.strip() or len(order) > 120 or order != printable(order):
        raise UsageError(
            f"--order {order[:120]!r}: must be 1 to 120 printable characters", code="order"
        )
    video = read_video(path)
    event = {"event": SEALED, "order": order, "name": video.name, "sha256": video.sha256}
    return log.append(event | {"bytes": video.byte_count})


def check_seal(
    path: Path, log: EvidenceLog, order: str | None = None, head: str | None = None
) -> SealReport:
    """Look for a video in a log. order: that it must have been sealed for. head: noted earlier.

    Raises PhotoError when the file cannot be read, RealDamageError when the log cannot.
    """
    with _opened(path, path.name) as file:
        digest = _digest(file)
    report = log.verify(head)
    sealed = [
        (number, entry)
        for number, entry in enumerate(report.entries)
        if entry["event"] == SEALED and entry["payload"].get("sha256") == digest
    ]
    fitting = [one for one in sealed if order is None or one[1]["payload"].get("order") == order]
    problems = list(report.problems)
    if not sealed:
        problems.append(f"{path}: these bytes were never sealed in {log.path} (SHA-256 {digest})")
    elif not fitting:
        orders = ", ".join(str(entry["payload"].get("order")) for _, entry in sealed)
        problems.append(f"{path}: was sealed for the order {orders}, not for {order}")
    if problems:
        return SealReport(fitting[0][1] if fitting else None, tuple(problems), ())
    number, entry = fitting[0]
    covered = report.since is not None and number < len(report.entries) - report.since
    when = (
        f"Shown: these bytes existed before the head {str(head)[:16]}… was noted elsewhere; "
        f"the log says {entry['time']}."
        if covered
        else f"The log says {entry['time']}. Not shown: that it was written then; only a head "
        "noted or time-stamped elsewhere (--head) shows that."
    )
    more = "Not shown: that the video is true, or that this parcel was sent."
    return SealReport(entry, (), (when, more))


def _refused(name: str, why: Phrase) -> PhotoError:
    said = [why]
    return PhotoError(f"{name}: {in_english(said)}", said, code=why.template)


def _opened(source: bytes | Path, name: str) -> IO[bytes]:
    """The file, checked for its size before anything is read."""
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > MAX_BYTES:
            limit = f"{MAX_BYTES / 2**30:.0f} GiB"
            raise _refused(name, phrase("video_too_large", size=size, limit=limit))
        return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise PhotoError(
            f"{name}: cannot be read: {error.strerror or error}. Check the name and permissions.",
            code="missing_file",
        ) from error


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while data := file.read(_CHUNK):
        digest.update(data)
    return digest.hexdigest()


def _container(start: bytes) -> str:
    """MP4, MOV, Matroska or AVI by the first bytes, else "". A playlist, which names other files,
    is none of them."""
    if start[4:8] == b"ftyp":
        return "MOV" if start[8:12] == b"qt  " else "MP4"
    if start[4:8] in (b"moov", b"mdat", b"wide"):
        return "MOV"
    if start.startswith(b"\x1a\x45\xdf\xa3"):
        return "Matroska"
    return "AVI" if start[:4] == b"RIFF" and start[8:12] == b"AVI " else ""


class _Boxes:
    """The boxes of an MP4 or MOV file: packets of XMP, credentials, encryption. Reads their headers
    and what is small, never the pictures.

    cut_off: a box is longer than the file.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.xmp: list[bytes] = []
        self.credentials = self.encrypted = self.cut_off = False
        self._file, self._left = file, _MAX_BOXES
        self._walk(0, size)

    def _walk(self, start: int, end: int) -> None:
        position = start
        while position + 8 <= end and self._left > 0:
            self._left -= 1
            self._file.seek(position)
            header = self._file.read(32)
            length, kind = struct.unpack(">I4s", header[:8])
            head = 8
            if length == 1 and len(header) >= 16:
                length, head = struct.unpack(">Q", header[8:16])[0], 16
            length = length or end - position
            if length < head:
                return
            self.cut_off = self.cut_off or (start == 0 and position + length > end)
            inside, last = position + head, min(end, position + length)
            if kind in _PARENTS:
                self._walk(inside, last)
            elif kind == b"stsd":
                self._file.seek(inside + 8)
                entry = self._file.read(min(8, max(0, last - inside - 8)))
                self.encrypted |= entry[4:8] in _ENCRYPTED
            elif kind == b"uuid":
                uuid = header[head : head + 16]
                self.credentials |= uuid == _C2PA_UUID
                if uuid == _XMP_UUID:
                    self._keep(inside + 16, last)
            elif kind == b"XMP_":
                self._keep(inside, last)
            position += length

    def _keep(self, start: int, end: int) -> None:
        if 0 < end - start <= _MAX_METADATA and len(self.xmp) < 8:
            self._file.seek(start)
            self.xmp.append(self._file.read(end - start))


class _Seen(NamedTuple):
    """tags: of the container and its video stream, keys in lower case."""

    codec: str
    seconds: float | None
    varies: bool
    tags: dict[str, str]
    frames: list[Frame]


def _decode(file: IO[bytes], container: str, name: str) -> _Seen:
    """Look at frames at places spread over the video. The demuxer is named, so that the bytes
    cannot choose one that opens other files."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading videos", "video", error.name) from None
    formats = {"MP4": "mov", "MOV": "mov", "Matroska": "matroska", "AVI": "avi"}
    file.seek(0)
    try:
        with av.open(
            file, mode="r", format=formats[container], metadata_errors="replace"
        ) as opened:
            streams = [one for one in opened.streams.video if one.codec_context is not None]
            if not streams:
                raise _refused(name, phrase("video_without_frames"))
            stream = streams[0]
            if stream.width * stream.height > MAX_PIXELS:
                size = {"width": stream.width, "height": stream.height, "limit": MAX_PIXELS}
                raise _refused(
                    name, phrase("too_many_pixels", pixels=stream.width * stream.height, **size)
                )
            stream.codec_context.thread_count = 1
            seconds = opened.duration / av.time_base if opened.duration else None
            frames, sizes = _frames(opened, stream, seconds)
            tags = {str(key).lower(): str(text) for key, text in stream.metadata.items()}
            tags |= {str(key).lower(): str(text) for key, text in opened.metadata.items()}
            codec = stream.codec_context.name
    except av.FFmpegError as error:
        raise _refused(name, phrase("video_damaged", detail=clean(error.strerror))) from error
    if not frames:
        raise _refused(name, phrase("video_without_frames"))
    return _Seen(codec, seconds, len(sizes) > 1, tags, frames)


def _frames(opened: Any, stream: Any, seconds: float | None) -> tuple[list[Frame], set[Any]]:
    """Frames at `_PLACES` places (every 45th of the first ones where the length is unknown), and
    the sizes that were seen. A damaged place is left out."""
    import av

    found: list[Frame] = []
    sizes: set[tuple[int, int]] = set()
    left, last = _MAX_DECODED, -math.inf
    places = [0.0]
    if seconds:
        places = [seconds * (place + 0.5) / _PLACES for place in range(_PLACES)]
    for wanted in places:
        if wanted < last:
            continue  # the frame at the place before is still shown
        shown = None
        try:
            if seconds:
                opened.seek(int(wanted * av.time_base), backward=True)
            for frame in opened.decode(stream):
                left -= 1
                sizes.add((frame.width, frame.height))
                shown = frame
                if left <= 0 or (seconds and (frame.time or 0.0) >= wanted):
                    break
                if not seconds and left % _EVERY == 0:
                    found.append(_looked_at(frame))
        except av.FFmpegError:
            pass
        if shown is not None and (shown.time or 0.0) > last:
            found.append(_looked_at(shown))
            last = shown.time or 0.0
        if len(found) >= 2 * MAX_FRAMES:
            found = _sharpest(found)  # frames of 4K take 25 MB each
        if left <= 0:
            break
    return found, sizes


def _looked_at(frame: Any) -> Frame:
    import cv2

    rgb = frame.to_ndarray(format="rgb24")
    turns = round(float(getattr(frame, "rotation", 0)) / 90) % 4
    upright = np.ascontiguousarray(np.rot90(rgb, turns))
    grey = cv2.cvtColor(upright, cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    return Frame(
        frame.time or 0.0, upright, float(cv2.Laplacian(grey, cv2.CV_32F).var()), thumbnail
    )


def _sharpest(frames: Sequence[Frame]) -> list[Frame]:
    """Up to `MAX_FRAMES` frames that show different things, the sharpest first."""
    kept: list[Frame] = []
    for one in sorted(frames, key=lambda frame: -frame.sharpness):
        if len(kept) < MAX_FRAMES and not any(_alike(one, other) for other in kept):
            kept.append(one)
    return kept


def _alike(one: Frame, other: Frame) -> bool:
    flat = min(one.thumbnail.std(), other.thumbnail.std()) < 1.0
    if flat or one.rgb.shape != other.rgb.shape:
        return bool(np.abs(one.thumbnail - other.thumbnail).max() < 4)
    return float(np.corrcoef(one.thumbnail, other.thumbnail)[0, 1]) > _ALIKE


def _jpeg(rgb: UInt8Array) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, format="JPEG", quality=_QUALITY)
    return data.getvalue()


def _declarations(
    file: IO[bytes],
    container: str,
    boxes: _Boxes | None,
    tags: Mapping[str, str],
    trust_anchors: TrustAnchors | None,
) -> tuple[list[Declaration], list[Reason]]:
    """What the file says about AI: labels in its tags, XMP, content credentials; and notes."""
    found = list(_of_tags(tags))
    notes: list[Reason] = []
    if boxes is None:
        return found, notes
    for packet in boxes.xmp:
        found += read_provenance(packet, name="XMP").findings
    if boxes.credentials:
        blocks = Blocks(container=container, credentials=True)
        file.seek(0)
        found += read_credentials(file, blocks, trust_anchors)
        notes += blocks.notes
    return found, notes


def _of_tags(tags: Mapping[str, str]) -> Iterator[Declaration]:
    for key, text in tags.items():
        where = f"tag {clean(key, 60)}"
        if fields := find_label(text):
            declares, said, _ = judge_label(fields)
            yield Declaration.of("tc260_video", declares, where, fields, said)
        if key in _SOFTWARE and (generator := find_generator(text)):
            fields = {"generator": generator.name, "field": clean(key), "text": clean(text)}
            maybe = generator.declares == "ai_possible"
            said = [phrase("generator_maybe" if maybe else "generator_named", **fields)]
            yield Declaration.of("generator_name", generator.declares, where, fields, said)
