"""One photo, from its path to its row, in two halves: reading it, and judging it with a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from pyarrow import fs

from realdamage.core.detector import PACKAGED_MODEL, Detector
from realdamage.core.model_file import ModelMetadata, read_model_file, stored_policy_sha256
from realdamage.core.scorer import OnnxScorer
from realdamage.core.tiles import Photo, PixelSpec, read_photo
from realdamage.core.verdict import verdict_row
from realdamage.errors import PhotoError
from realdamage.files import is_url

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Judge:
    """Which model judges, and how; it travels to the workers with the model's contents.

    model: path of a model file, None for the model in the package. The rest: see `Detector`.
    """

    model: Path | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int | None = None
    prior: float | None = None
    allow_demo: bool = False

    @cached_property
    def contents(self) -> tuple[bytes, ModelMetadata, str]:
        """Of the model file. Raises ModelFileError."""
        return read_model_file(self.model or PACKAGED_MODEL)

    def detector(self) -> Detector:
        """Raises ModelFileError, UsageError as `Detector`."""
        data, metadata, digest = self.contents
        return Detector(
            OnnxScorer(data, threads=self.threads, device=self.device),
            metadata,
            graph_sha256=digest,
            policy_sha256=stored_policy_sha256(data),
            prior=self.prior,
            allow_demo=self.allow_demo,
        )


@dataclass(frozen=True)
class ReadPhoto:
    """A photo before the network. seconds: spent on it so far."""

    name: str
    found: Photo | PhotoError
    seconds: float


def read(name: str, spec: PixelSpec, folder: str = "") -> ReadPhoto:
    """Decode a photo, limit its size, and measure its detail.

    name: a URL of object storage, or a path, also one relative to `folder`.
    """
    start = time.perf_counter()
    found: Photo | PhotoError
    try:
        source = _download(name) if is_url(name) else Path(folder, name)
        photo = read_photo(source, spec, name=name)
        quality = photo.quality
        found = replace(photo, upright=None)  # large, and only needed for the quality
        found.__dict__["quality"] = quality
    except PhotoError as error:
        found = error
    return ReadPhoto(name, found, time.perf_counter() - start)


def judge_photo(photo: ReadPhoto, detector: Detector) -> Row:
    """The row of a photo, as `verdict_row`, and `error`: the code why it could not be read."""
    start = time.perf_counter()
    found = (
        photo.found if isinstance(photo.found, PhotoError) else detector.predict_photo(photo.found)
    )
    ms = 1000 * (photo.seconds + time.perf_counter() - start)
    error = found.code if isinstance(found, PhotoError) else ""
    return {**verdict_row(photo.name, found, ms), "error": error}


def _download(url: str) -> bytes:
    try:
        scheme, _, path = url.partition("://")
        bucket, _, key = path.partition("/")
        filesystem, root = _connected(f"{scheme}://{bucket}/")
        with filesystem.open_input_stream(f"{root.rstrip('/')}/{unquote(key)}") as stream:
            contents: bytes = stream.read()
    except FileNotFoundError as error:
        raise PhotoError(f"{url}: no such photo", code="no_such_photo") from error
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise PhotoError(f"{url}: cannot be read: {error}", code="cannot_read") from error
    return contents


@cache
def _connected(bucket: str) -> tuple[fs.FileSystem, str]:
    """The object storage of a URL, and the path of it there. Each new client would first ask for
    its region and its keys."""
    filesystem, path = fs.FileSystem.from_uri(bucket)
    return filesystem, path
