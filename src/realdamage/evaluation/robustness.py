"""Scores every photo as it is and after each perturbation: streamed, on all processors, and resumable when killed.

Photos are scored shard by shard; a shard is written whole or not at all. What a photo gets depends on no other photo,
so any number of processes and of interruptions gives the same table.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

import realdamage
from realdamage.core.detector import Detector
from realdamage.core.photo import read_photo
from realdamage.core.processors import available_processors
from realdamage.core.progress import Track, no_progress
from realdamage.data.manifest import Manifest
from realdamage.data.parts import in_processes
from realdamage.errors import ConfigError, PhotoError
from realdamage.evaluation.perturbations import Perturbation
from realdamage.evaluation.predictions import (
    PatchEvidence,
    PhotoDetector,
    mask_of,
    patch_evidence,
    predictions_table,
    unscored_row,
    verdict_row,
)
from realdamage.evaluation.sampling import draw_keys
from realdamage.evaluation.shards import Shards
from realdamage.evaluation.perturbations import Pixels

log = logging.getLogger(__name__)

# A shard is so many verdicts, and at most so many photos: what a kill may cost, against the number of files.
_VERDICTS, _PHOTOS = 100, 50
# What decides the pixels and the verdicts beside the model; a change of it must not go into the same table.
_CODE = (
    *("core/*.py", "data/masks.py", "data/degradations.py", "evaluation/predictions.py"),
    *(
        f"evaluation/{name}.py"
        for name in ("perturbations", "sampling", "shards", "robustness")
    ),
)
_LIBRARIES = ("numpy", "pillow", "onnxruntime")

Rows = list[dict[str, object]]
Evidence = dict[str, list[PatchEvidence]]


@dataclass(frozen=True)
class ModelFile:
    """An .onnx file as each process loads it; see `Detector.load`. A demonstration model says synthetic too: figures
    are about its thresholds, and a note says what it is (`demo_note`)."""

    path: Path
    prior: float | None = None

    def __call__(self, threads: int | None) -> Detector:
        return Detector.load(self.path, threads=threads, prior=self.prior, allow_demo=True)


@dataclass(frozen=True, eq=False)
class Suite:
    """A set of photos, what each goes through, and where the shards lie. load: gives the detector, for so many threads
    (None: its own choice); it travels to other processes. seed: of all that the perturbations draw. per_shard: how many
    photos lie in a shard."""

    load: Callable[[int | None], PhotoDetector]
    manifest: Manifest
    perturbations: tuple[Perturbation, ...]
    shards: Shards
    seed: int
    on_error: Literal["raise", "skip"]
    per_shard: int

    @property
    def names(self) -> tuple[str, ...]:
        """What the column `perturbation` says; the photo as it is comes first."""
        return ("", *(each.name for each in self.perturbations))

    @property
    def count(self) -> int:
        """Of shards."""
        return -(-len(self.manifest) // self.per_shard)

    def photos(self, shard: int) -> range:
        """Positions in the manifest of a shard's photos."""
        start = shard * self.per_shard
        return range(start, min(start + self.per_shard, len(self.manifest)))

    def digest(self, shard: int) -> str:
        """Of the photos' and masks' size and time of change: who replaces a broken photo must not get the old row."""
        facts = []
        for name in (
            self.manifest.table[["file_name", "mask_file_name"]]
            .iloc[list(self.photos(shard))]
            .to_numpy()
            .flat
        ):
            path = self.manifest.path(name)
            stat = path.stat() if name and path.is_file() else None
            facts.append((name, stat and (stat.st_size, stat.st_mtime_ns)))
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def rows(self, shard: int) -> Rows | None:
        """The rows of a finished shard, None while it has to be scored."""
        rows = self.shards.rows(shard, self.digest(shard))
        if (
            rows
            and self.on_error == "raise"
            and any(not row["perturbation"] and row["score"] == "" for row in rows)
        ):
            return None  # scored when unreadable photos were skipped
        return rows

    @cached_property
    def keys(self) -> list[str]:
        """What each photo's random numbers hang on."""
        return draw_keys(self.manifest.table)


@dataclass(frozen=True)
class ScoredSuite:
    """predictions: the table of all photos under all perturbations, the photos as they are first. resumed: photos that
    an earlier, interrupted run had scored. The heat maps stay on the disk until `discard`, as they would fill the
    memory."""

    predictions: pd.DataFrame
    resumed: int
    suite: Suite

    def localisation(self, perturbation: str = "") -> list[PatchEvidence]:
        """Heat maps beside the truth under one perturbation ("": the photos as they are): one entry for each synthetic
        photo with a mask that was judged, except kind `ai_whole`."""
        shards = self.suite.shards
        return [
            photo
            for shard in range(self.suite.count)
            for photo in shards.evidence(shard, perturbation)
        ]

    def discard(self) -> None:
        """Removes the shards; call it when the predictions are written."""
        self.suite.shards.discard()


def score_suite(
    load: Callable[[int | None], PhotoDetector],
    manifest: Manifest,
    perturbations: Sequence[Perturbation] = (),
    *,
    folder: str | Path,
    model: str,
    seed: int = 0,
    threads: int | None = None,
    workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
    progress: Track = no_progress,
) -> ScoredSuite:
    """Judges every photo as it is and after each perturbation; goes on from what `folder` holds of the same evaluation.

    load: see `Suite`. model: digest of all that decides its verdicts. threads: of the detector, where one process does
    it all; each of several `workers` (None: one for each processor) has one. overwrite: drop what another evaluation
    left in `folder`. Rows of perturbed photos tell the size, digest and mask of what was judged; their `ms` begins at
    the pixels. A perturbed photo that is too small to be judged leaves a row without score.

    Raises PhotoError and ManifestError as `score_manifest`; ConfigError: workers below 1, unfinished shards of another
    evaluation; RealDamageError: a process died. What was scored is kept then.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}: at least 1, or null for as many as processors")
    per_shard = max(1, min(_PHOTOS, _VERDICTS // (1 + len(perturbations))))
    suite = Suite(
        load, manifest, tuple(perturbations), Shards(Path(folder)), seed, on_error, per_shard
    )
    identity = {
        "model": model,
        "set of photos": manifest.digest(),
        "robustness suite": hashlib.sha256(repr(suite.perturbations).encode()).hexdigest(),
        "seed": str(seed),
        "version of the code": _code_version(),
    }
    suite.shards.claim(identity, overwrite=overwrite)
    todo = [shard for shard in range(suite.count) if suite.rows(shard) is None]
    resumed = len(manifest) - sum(len(suite.photos(shard)) for shard in todo)
    if resumed:
        log.info(
            "%s: %d of %d photos were scored already", suite.shards.folder, resumed, len(manifest)
        )
    workers = max(1, min(workers or available_processors(), len(todo)))
    arguments = (suite, threads if workers == 1 else 1, workers > 1)
    finished = in_processes(_start, arguments, _score_shard, todo, workers, fresh=True)
    for _ in progress(finished, len(todo), f"parts of {per_shard} photos"):
        pass
    return ScoredSuite(_collected(suite), resumed, suite)


def _collected(suite: Suite) -> pd.DataFrame:
    tables = [predictions_table(suite.rows(shard) or []) for shard in range(suite.count)]
    order = {name: place for place, name in enumerate(suite.names)}
    return pd.concat(tables).sort_values(
        "perturbation", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )


@dataclass(frozen=True)
class _Scorer:
    """A suite in one process, with its detector."""

    suite: Suite
    detector: PhotoDetector

    def shard(self, shard: int) -> None:
        """Scores and writes a shard."""
        rows: Rows = []
        evidence: Evidence = {name: [] for name in self.suite.names}
        digest = self.suite.digest(shard)
        for index in self.suite.photos(shard):
            for row, name, own in self._photo(index):
                rows.append(row)
                evidence[name] += own
        self.suite.shards.write(shard, digest, rows, evidence)

    def _photo(self, index: int) -> Iterator[tuple[dict[str, object], str, list[PatchEvidence]]]:
        """Row, perturbation and heat map of one photo as it is, and after each perturbation."""
        suite, manifest, spec = self.suite, self.suite.manifest, self.detector.pixel_spec
        path = manifest.path(str(manifest.table["file_name"].iat[index]))
        start = time.perf_counter()
        try:
            photo = read_photo(path, spec, name=str(path))
            verdict = self.detector.predict_photo(photo)
        except PhotoError:
            if suite.on_error == "raise":
                raise
            yield from ((unscored_row(manifest, index, name), name, []) for name in suite.names)
            return
        ms = 1000 * (time.perf_counter() - start)
        mask = mask_of(manifest, index, (photo.height, photo.width))
        row = verdict_row(manifest, index, verdict, mask, ms=ms)
        yield row, "", patch_evidence(manifest, index, photo, verdict, mask, spec.patch)
        whole = photo.rgb if photo.upright is None else photo.upright
        pixels = Pixels(whole, None if mask is None else mask.astype(np.float32))
        for each in suite.perturbations:
            changed = each(pixels, seed=suite.seed, key=suite.keys[index])
            start = time.perf_counter()
            try:
                photo = read_photo(changed.rgb, spec, name=f"{path} ({each.name})")
            except PhotoError:
                yield unscored_row(manifest, index, each.name), each.name, []
                continue
            # The gate is to see the photo as the file that would be handed in.
            photo = replace(photo, file_quality=each.file_quality)
            verdict = self.detector.predict_photo(photo)
            ms = 1000 * (time.perf_counter() - start)
            row = verdict_row(manifest, index, verdict, changed.mask, ms=ms, perturbation=each.name)
            yield (
                row,
                each.name,
                patch_evidence(manifest, index, photo, verdict, changed.mask, spec.patch),
            )


_scorer: _Scorer | None = None


def _start(suite: Suite, threads: int | None, apart: bool) -> None:
    """Loads the detector in this process; `apart`: one that was started for this."""
    global _scorer
    if apart:
        # Ctrl-C reaches every process (unless nohup keeps it away); those that only score end at once, without a word.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.Thread(target=_end_with_parent, daemon=True).start()
    _scorer = _Scorer(suite, suite.load(threads))


def _end_with_parent() -> None:
    """Ends this process when the first is killed, which would otherwise leave it waiting for work for good."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _score_shard(shard: int) -> None:
    assert _scorer is not None  # `_start` ran first
    _scorer.shard(shard)


def _code_version() -> str:
    """Of the sources and libraries that decide pixels and verdicts."""
    root = Path(realdamage.__file__).parent
    sources = sorted(path for pattern in _CODE for path in root.glob(pattern))
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()
