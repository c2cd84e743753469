"""What an evaluation has scored so far, in files that are whole or not there, so that a killed one goes on.

Each shard holds the rows and the heat maps of some photos. A mark in the folder says which model, photos and
perturbations they come from: figures of two evaluations must never mix.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realdamage.errors import ConfigError
from realdamage.evaluation.predictions import PatchEvidence
from realdamage.files import write_atomically

FOLDER = ".parts"
Rows = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Shards:
    """The shards of the evaluation that writes into `root`."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    def claim(self, identity: Mapping[str, str], *, overwrite: bool = False) -> None:
        """Marks the folder as this evaluation's; `identity`: what decides its verdicts, each under a name for people.

        Shards of another evaluation are dropped with `overwrite`. Raises ConfigError naming what differs without it.
        """
        path = self.folder / "mark.json"
        found = self._mark(path)
        if found is not None and found != dict(identity):
            if not overwrite:
                differs = [name for name in identity if found.get(name) != identity[name]]
                raise ConfigError(
                    f"{self.folder} holds an unfinished evaluation with another {' and another '.join(differs)}. "
                    "Run it to its end as it was started, give this one another name=…, or drop what it has scored "
                    "with overwrite=true"
                )
            self.discard()
        write_atomically(path, json.dumps(dict(identity), indent=1).encode())

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"

    def write(
        self, index: int, digest: str, rows: Rows, evidence: Mapping[str, Sequence[PatchEvidence]]
    ) -> None:
        """Finishes a shard. digest: of its photos. evidence: heat maps beside the truth, under each perturbation."""
        arrays: dict[str, Any] = {"header": _packed({"digest": digest, "rows": list(rows)})}
        for name, photos in evidence.items():
            arrays[f"about/{name}"] = _packed(
                [(photo.file_name, photo.heat.shape) for photo in photos]
            )
            arrays[f"heat/{name}"] = np.concatenate(
                [np.zeros(0, np.float32), *(photo.heat.ravel() for photo in photos)]
            )
            arrays[f"painted/{name}"] = np.concatenate(
                [np.zeros(0, bool), *(photo.painted.ravel() for photo in photos)]
            )
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(self.path(index), buffer.getvalue())

    def rows(self, index: int, digest: str) -> list[dict[str, object]] | None:
        """The rows of a shard; None when it is not there or its photos have changed since."""
        if not self.path(index).is_file():
            return None
        with np.load(self.path(index)) as arrays:
            header = _unpacked(arrays["header"])
        return list(header["rows"]) if header["digest"] == digest else None

    def evidence(self, index: int, perturbation: str) -> list[PatchEvidence]:
        """The heat maps beside the truth that a shard has for one perturbation ("": the photo as it is)."""
        with np.load(self.path(index)) as arrays:
            about = _unpacked(arrays[f"about/{perturbation}"])
            heat, painted = arrays[f"heat/{perturbation}"], arrays[f"painted/{perturbation}"]
        ends = np.cumsum([height * width for _, (height, width) in about])[:-1]
        return (
            [
                PatchEvidence(name, own.reshape(shape), truth.reshape(shape))
                for (name, shape), own, truth in zip(
                    about, np.split(heat, ends), np.split(painted, ends), strict=True
                )
            ]
            if about
            else []
        )

    def discard(self) -> None:
        """Removes the shards, when all that they hold lies elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mark(self, path: Path) -> dict[str, str] | None:
        if not path.is_file():
            return None
        mark: dict[str, str] = json.loads(path.read_text())
        return mark


def _packed(content: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(json.dumps(content, default=float).encode(), dtype=np.uint8)


def _unpacked(array: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    return json.loads(array.tobytes())
