"""Where the files of claims lie: in folders of this machine, or in an object store of fsspec.

A folder appears whole by a rename. An object store has none: the parts of a claim are written first
and one last key makes them count, which is also the first to be removed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from realdamage.errors import MissingExtraError, RealDamageError, UsageError
from realdamage.files import is_url, write_atomically

_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 20, "retries": {"mode": "standard"}}
_S3 = {"config_kwargs": _TIMEOUTS, "max_concurrency": 1}  # one request a file, not one for its size


class StoreError(RealDamageError, OSError):
    """An object store does not answer, or refuses; code `store_unusable`."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"{url}: cannot use the object store: {why.rstrip('.')}. Check that the bucket exists, "
            "that it can be reached (AWS_ENDPOINT_URL), and that the credentials "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) may list, read, write and delete there.",
            code="store_unusable",
        )


class ObjectPath:
    """A key or prefix of an object store, with the part of `pathlib.Path` that claims use.

    Methods raise FileNotFoundError where there is no such object, StoreError for all else.
    """

    def __init__(self, filesystem: Any, key: str) -> None:
        self._filesystem, self.key = filesystem, key

    @classmethod
    def at(cls, url: str) -> ObjectPath:
        """The place of a URL such as s3://bucket/prefix.

        Raises UsageError when it is none, MissingExtraError without the packages for it.
        """
        # Listings are never remembered, since other machines write too.
        options: dict[str, Any] = {"use_listings_cache": False}
        if url.startswith("s3"):
            options |= _S3
        try:
            import fsspec

            filesystem, key = fsspec.url_to_fs(url, **options)
        except ImportError as error:
            raise MissingExtraError(url.partition("://")[0] + "://", "s3", error.name) from error
        except ValueError as error:
            message = f"{url}: not a place that fsspec knows: {error}"
            raise UsageError(message, code="unknown_url") from error
        return cls(filesystem, key.rstrip("/"))

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return str(self._filesystem.unstrip_protocol(self.key))

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self._filesystem, f"{self.key}/{name}")

    def read_bytes(self) -> bytes:
        with self._errors():
            return bytes(self._filesystem.cat_file(self.key))

    def write_bytes(self, data: bytes) -> None:
        """Whole or not at all, also over an older object."""
        with self._errors(missing_bucket=True):
            self._filesystem.pipe_file(self.key, data)

    def is_file(self) -> bool:
        with contextlib.suppress(FileNotFoundError), self._errors():
            return bool(self._filesystem.info(self.key)["type"] == "file")
        return False

    def iterdir(self) -> Iterator[ObjectPath]:
        """What lies directly below. A prefix without objects, or a missing bucket, is empty."""
        found: list[str] = []
        with contextlib.suppress(FileNotFoundError), self._errors():
            found = self._filesystem.ls(self.key, detail=False)
        # Some programs make an object of the prefix's own name, for a folder.
        names = {key.rstrip("/").removeprefix(f"{self.key}/") for key in found}
        return (self / name for name in names if name and "/" not in name)

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        return (one for one in self.iterdir() if fnmatch.fnmatch(one.name, pattern))

    def below(self) -> dict[str, dict[str, Any]]:
        """fsspec's `info` of each object below, by its path from here."""
        with self._errors():
            found = self._filesystem.find(self.key, detail=True)
        return {key.removeprefix(f"{self.key}/"): info for key, info in sorted(found.items())}

    def remove(self, first: str = "") -> None:
        """Remove everything below. first: the object that makes the others count."""
        names = list(self.below())
        with self._errors():
            if first in names:
                self._filesystem.rm_file(f"{self.key}/{first}")
                names.remove(first)
            if names:
                self._filesystem.rm([f"{self.key}/{name}" for name in names])
        if left := self.below():  # s3fs does not say when it could not remove some
            raise StoreError(str(self), f"{len(left)} objects were not removed")

    def modified(self) -> float:
        """When the newest object below was written, in seconds since 1970; 0 for none."""
        times = [self._filesystem.modified(f"{self.key}/{name}") for name in self.below()]
        return max((time.timestamp() for time in times), default=0.0)

    @contextmanager
    def _errors(self, *, missing_bucket: bool = False) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each kind of store has errors of its own
            if isinstance(error, FileNotFoundError) and not missing_bucket:
                raise
            raise StoreError(str(self), str(error)) from error


AnyPath: TypeAlias = Path | ObjectPath


def to_path(place: str | AnyPath) -> AnyPath:
    """A path of this machine, or of an object store for a URL. Raises as `ObjectPath.at`."""
    if isinstance(place, str):
        return ObjectPath.at(place) if is_url(place) else Path(place)
    return place


def files_named(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """The files directly in a folder with such names, in order; none in a missing folder."""
    found: list[AnyPath] = [*folder.glob(pattern)]
    return sorted(found, key=lambda path: path.name)


def write_new(path: AnyPath, data: bytes) -> None:
    """Write a file that is not there yet, and flush it to the disk. Raises OSError."""
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: AnyPath, data: bytes) -> None:
    """Write a file whole or not at all; an older one stays until then. Raises RealDamageError."""
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
    else:
        write_atomically(path, data)


def files_below(folder: AnyPath) -> dict[str, int]:
    """Bytes of all files in a folder, by their path in it, in order; without links."""
    if isinstance(folder, ObjectPath):
        return {name: int(info["size"]) for name, info in folder.below().items()}
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def remove_folder(folder: AnyPath, first: str = "") -> None:
    """Remove a folder. first: the file that makes it count. Raises OSError."""
    if isinstance(folder, ObjectPath):
        return folder.remove(first)
    if first:
        (folder / first).unlink(missing_ok=True)
    return shutil.rmtree(folder)


def modified(folder: AnyPath) -> float:
    """When a folder was changed last, in seconds since 1970. Raises OSError."""
    return folder.modified() if isinstance(folder, ObjectPath) else folder.stat().st_mtime
