"""Scores every photo unchanged and after each perturbation; can be resumed when killed.

Photos are scored part by part. What a photo gets depends on no other photo, so any number of
processes and of interruptions gives the same table.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.commit import code_sha256
from realdamage.core.detector import Detector
from realdamage.core.model_file import ModelMetadata
from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.core.tiles import Photo, PixelSpec, read_photo
from realdamage.data.degradations import RGB
from realdamage.data.manifest import Manifest
from realdamage.data.parts import Parts, in_processes
from realdamage.data.shortcuts import container_auroc
from realdamage.errors import ConfigError, ManifestError, PhotoError
from realdamage.evaluation.figures import photo_metrics
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.perturbations import Perturbation, Pixels
from realdamage.evaluation.predictions import (
    PatchEvidence,
    Row,
    clean,
    judge,
    predictions_table,
    read_with_mask,
    unscored_row,
)
from realdamage.evaluation.slices import CLEAN, json_records, robustness_table, standard_slices

log = logging.getLogger(__name__)

# The size of a part: this many verdicts, and at most this many photos, which is all that a kill can
# lose.
_VERDICTS, _PHOTOS = 100, 50
# Rows from before a change of these must not go into the same table.
CODE = ("core/*.py", "data/*.py", "evaluation/*.py")
LIBRARIES = ("numpy", "pillow", "onnxruntime")

# What is kept of each perturbation's localisation; all of it is kept for unperturbed photos.
_LOCALISATION = (
    *("pixel_ap", "prevalence", "f1", "best_f1", "baseline_f1"),
    *("n_photos", "intervals", "reason"),
)


@dataclass(frozen=True)
class ModelFile:
    """An .onnx file as each process loads it; see `Detector.load`.

    A demonstration model may say synthetic here: the figures are about its thresholds, and a note
    says what it is.
    """

    path: Path
    prior: float | None = None

    def __call__(self, threads: int | None) -> Detector:
        return Detector.load(self.path, threads=threads, prior=self.prior, allow_demo=True)


def unresized(photo: Photo) -> RGB:
    """The upright photo at its own size, which perturbations start from."""
    return photo.rgb if photo.upright is None else photo.upright


def handed_in(changed: Pixels, perturbation: Perturbation, spec: PixelSpec) -> Photo:
    """A perturbed photo as a detector takes it. Raises PhotoError: it is too small now."""
    photo = read_photo(changed.rgb, spec, name=perturbation.name)
    # The quality gate has to see the photo as the file that would be handed in.
    return replace(photo, file_quality=perturbation.file_quality)


@dataclass(eq=False)
class Suite:
    """A set of photos, scored unchanged and after each perturbation; sent to the workers.

    load: returns the detector for a number of threads (None: its own choice).
    folder: where finished parts lie until `discard`; the heat maps stay there, because they would
    fill the memory.
    model: digest of everything that decides the model's verdicts.
    on_error: whether an unreadable photo stops the run or leaves a row without score.
    predictions: after `score`, all photos under all perturbations, the unperturbed ones first.
    resumed: how many photos an earlier, interrupted run had scored.
    """

    load: Callable[[int | None], Detector]
    manifest: Manifest
    perturbations: Sequence[Perturbation]
    folder: str | Path
    model: str
    seed: int = 0
    on_error: Literal["raise", "skip"] = "raise"
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame, init=False)
    resumed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        again = "overwrite=true, or give this run another name=…"
        self._parts = Parts(Path(self.folder), "evaluate", again)
        self._per_part = max(1, min(_PHOTOS, _VERDICTS // (1 + len(self.perturbations))))

    @property
    def names(self) -> tuple[str, ...]:
        """Values of the column `perturbation`; the unchanged photo comes first."""
        return ("", *(each.name for each in self.perturbations))

    def score(
        self,
        *,
        threads: int | None = None,
        workers: int | None = None,
        overwrite: bool = False,
        progress: Track = no_progress,
    ) -> None:
        """Judges every photo; continues what the folder holds of the same run.

        A photo that a perturbation makes too small leaves a row without score.
        threads: of the detector in a single process; each of several workers has one.
        overwrite: drop what another evaluation left in the folder.
        Raises PhotoError and ManifestError as `score_manifest`; ConfigError: workers below 1;
        UsageError: unfinished parts of another evaluation; RealDamageError: a process died. What
        was scored is kept then.
        """
        if workers is not None and workers < 1:
            raise ConfigError(f"workers={workers}: at least 1, or null for as many as processors")
        steps = repr(tuple(self.perturbations)).encode()
        identity = {
            "model": self.model,
            "set of photos": self.manifest.digest(),
            "robustness suite": hashlib.sha256(steps).hexdigest(),
            "seed": str(self.seed),
            "version of the code": code_sha256(CODE, LIBRARIES),
        }
        mark = self._parts.mark()
        if overwrite and mark and mark["digest"] != identity:
            self._parts.discard()
        self._parts.claim(identity, alone=False)
        todo = [part for part in range(self._count) if self._rows(part) is None]
        self.resumed = len(self.manifest) - sum(len(self._photos(part)) for part in todo)
        if self.resumed:
            known = (self._parts.folder, self.resumed, len(self.manifest))
            log.info("%s: %d of %d photos were already scored", *known)
        workers = max(1, min(workers or available_processors(), len(todo)))
        arguments = (self, threads if workers == 1 else 1, workers > 1)
        finished = in_processes(_start, arguments, _score_part, todo, workers, fresh=True)
        for _ in progress(finished, len(todo), f"parts of {self._per_part} photos"):
            pass
        tables = [predictions_table(self._rows(part) or []) for part in range(self._count)]
        order = {name: place for place, name in enumerate(self.names)}
        self.predictions = pd.concat(tables).sort_values(
            "perturbation", key=lambda names: names.map(order), kind="stable", ignore_index=True
        )

    def localisation(self, perturbation: str = "") -> list[PatchEvidence]:
        """Heat maps with the truth under one perturbation; see `judge`."""
        found = []
        for part in range(self._count):
            arrays = self._parts.arrays(part)
            names = self._parts.read(part)["evidence"][perturbation]
            for index, name in enumerate(names):
                at = f"{perturbation}/{index}"
                found.append(PatchEvidence(name, arrays[f"heat/{at}"], arrays[f"painted/{at}"]))
        return found

    def discard(self) -> None:
        """Removes the parts; call it when the predictions are written."""
        self._parts.discard()

    @property
    def _count(self) -> int:
        """Number of parts."""
        return -(-len(self.manifest) // self._per_part)

    def _photos(self, part: int) -> range:
        """Positions in the manifest of a part's photos."""
        start = part * self._per_part
        return range(start, min(start + self._per_part, len(self.manifest)))

    def _digest(self, part: int) -> str:
        """Of the files of photos and masks: a replaced photo must not get the old row."""
        rows = np.isin(np.arange(len(self.manifest)), list(self._photos(part)))
        return self.manifest.subset(rows).files_digest()

    def _rows(self, part: int) -> list[Row] | None:
        """The rows of a finished part, None while it has to be scored."""
        if not self._parts.path(part).is_file():
            return None
        content = self._parts.read(part)
        rows: list[Row] = content["rows"]
        # Under "raise", an unreadable photo that was skipped earlier has to raise now.
        skipped = any(not row["perturbation"] and row["score"] == "" for row in rows)
        stale = content["digest"] != self._digest(part) or (self.on_error == "raise" and skipped)
        return None if stale else rows

    def score_part(self, detector: Detector, part: int) -> None:
        """Scores and writes a part."""
        rows: list[Row] = []
        names: dict[str, list[str]] = {name: [] for name in self.names}
        arrays: dict[str, npt.NDArray[Any]] = {}
        digest = self._digest(part)
        for index in self._photos(part):
            for row, found in self._photo(detector, index):
                rows.append(row)
                own = names[str(row["perturbation"])]
                for photo in found:
                    at = f"{row['perturbation']}/{len(own)}"
                    arrays |= {f"heat/{at}": photo.heat, f"painted/{at}": photo.painted}
                    own.append(photo.file_name)
        self._parts.write(part, {"digest": digest, "rows": rows, "evidence": names}, arrays)

    def _photo(self, detector: Detector, index: int) -> Iterator[tuple[Row, list[PatchEvidence]]]:
        """Row and heat map of one photo, unchanged and after each perturbation."""
        manifest = self.manifest
        try:
            photo, mask, seconds = read_with_mask(detector, manifest, index)
            unchanged = judge(detector, manifest, index, photo, mask, seconds)
        except PhotoError:
            if self.on_error == "raise":
                raise
            yield from ((unscored_row(manifest, index, name), []) for name in self.names)
            return
        yield unchanged
        # Both halves of a pair draw the same.
        key = str(manifest.table["pair"].iat[index] or manifest.table["file_name"].iat[index])
        pixels = Pixels(unresized(photo), None if mask is None else mask.astype(np.float32))
        for each in self.perturbations:
            changed = each(pixels, seed=self.seed, key=key)
            start = time.perf_counter()
            try:
                photo = handed_in(changed, each, detector.pixel_spec)
            except PhotoError:  # too small after the perturbation
                yield unscored_row(manifest, index, each.name), []
                continue
            seconds = time.perf_counter() - start
            yield judge(detector, manifest, index, photo, changed.mask, seconds, each.name)


_scores: Callable[[int], None] | None = None  # of this process: scores one part


def _start(suite: Suite, threads: int | None, apart: bool) -> None:
    """Loads the detector in this process; `apart`: it was started for scoring only."""
    global _scores
    # Ctrl-C reaches every process, unless nohup blocks it; workers exit silently.
    if apart and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _scores = partial(suite.score_part, suite.load(threads))


def _score_part(part: int) -> None:
    assert _scores is not None  # `_start` ran first
    _scores(part)


def all_figures(scored: Suite, metadata: ModelMetadata, *, seed: int = 0) -> dict[str, Any]:
    """All figures of one evaluation, as metrics.json holds them: `photo_metrics`, "slices" and,
    after perturbations, "robustness" with title and localisation. Raises RealDamageError.
    """
    calibration = metadata.calibration
    threshold = calibration.score_at(0.5, prior=0.5) if calibration else None
    predictions, perturbations = scored.predictions, scored.perturbations
    metrics = photo_metrics(
        clean(predictions), scored.localisation(), threshold=threshold, seed=seed
    )
    trained_on = metadata.training.get("generators")
    named = set(scored.manifest.table["generator"])
    for name, row in metrics["per_generator"].items():
        row["trained_on"] = name in trained_on if trained_on is not None and name in named else None
    slices = standard_slices(predictions, seed=seed)
    metrics["slices"] = {name: json_records(table) for name, table in slices.items()}
    if perturbations:
        titles = {CLEAN: "As it is", **{each.name: each.title for each in perturbations}}
        metrics["robustness"] = json_records(robustness_table(predictions, seed=seed))
        for row in metrics["robustness"]:
            name = "" if row["perturbation"] == CLEAN else row["perturbation"]
            own = predictions[predictions["perturbation"] == name]
            found = localisation_metrics(scored.localisation(name), own, seed=seed)
            row["title"] = titles[row["perturbation"]]
            row["localisation"] = {key: found[key] for key in _LOCALISATION}
    return metrics


def shortcut_figures(
    manifest: Manifest, predictions: pd.DataFrame, *, seed: int = 0
) -> dict[str, Any]:
    """AUROC and its 95% interval of a classifier that sees only facts of the photos' files.

    None with a reason where the photos are too few.
    """
    judged = predictions.loc[predictions["score"].notna(), "file_name"]
    photos = manifest.subset(np.isin(manifest.table["file_name"], judged))
    try:
        found = container_auroc(photos, seed=seed)
    except ManifestError as error:
        return {"auroc": None, "low": None, "high": None, "text": str(error)}
    text = f"AUROC {found.auroc:.3f} (95%: {found.low:.3f} to {found.high:.3f})"
    return {**found._asdict(), "text": text}


def draw_photos(manifest: Manifest, limit: int, seed: int = 0) -> Manifest:
    """At most `limit` photos: random whole groups, and a part of the last one.

    Both halves of a pair lie in one group, so nearly all pairs stay whole. Raises ConfigError:
    `limit` below 2, or the draw holds one class only though the set has both (code one_class).
    """
    if limit < 2:
        raise ConfigError(
            f"data.limit={limit}: at least 2, because a real and a synthetic photo are needed"
        )
    table = manifest.table
    if len(manifest) <= limit:
        return manifest
    names, group = np.unique(table["group"].to_numpy(dtype=str), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[group]
    chosen = np.zeros(len(table), dtype=bool)
    chosen[np.argsort(place, kind="stable")[:limit]] = True
    drawn = manifest.subset(chosen)
    missing = set(table["label"]) - set(drawn.table["label"])
    if missing:
        raise ConfigError(
            f"data.limit={limit}: no {missing.pop()} photo was drawn of {len(manifest)}; raise it",
            code="one_class",
        )
    return drawn


def training_set(manifest: Manifest, training: Mapping[str, Any]) -> Manifest | None:
    """The manifest without what `data.exclude` kept out of training; None: the model was trained
    on another one.

    training: what the model's file says of its training.
    """
    known = manifest.subset(~_left_out(manifest, training))
    return known if known.digest() == training.get("manifest_sha256") else None


def trained_on_note(
    manifest: Manifest, chosen: Manifest, training: Mapping[str, Any], split: str | None
) -> tuple[str, ...]:
    """What a report must say first when the model was trained on `chosen` photos of `manifest`.

    () when it was not, or was trained on another set, about which this knows nothing.
    Raises ConfigError: some are the model's training photos, but `split` is not "train" (code
    training_photos).
    """
    trained = (chosen.table["split"] == "train") & ~_left_out(chosen, training)
    if not trained.any() or training_set(manifest, training) is None:
        return ()
    count = f"{trained.sum():,} of these {len(chosen):,} photos"
    if split != "train":
        splits = sorted(set(manifest.table["split"]) - {"", "train"})
        others = ", ".join(f"data.split={name}" for name in splits) or "other photos"
        raise ConfigError(
            f"data.split={'null' if split is None else split}: the model was trained on {count} "
            f"(split train of {manifest.root}), so it makes fewer errors on them. Choose {others}; "
            "data.split=train scores them and says so",
            code="training_photos",
        )
    return (
        f"The model was trained on {count}: the figures show what it has learned by heart, not how "
        "it does on new photos.",
    )


def _left_out(manifest: Manifest, training: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """bool [n]: train and val rows that `data.exclude` kept out of training."""
    table = manifest.table
    left_out = pd.Series(False, table.index)
    for column, values in (training.get("excluded") or {}).items():
        if column in table.columns:
            left_out |= table[column].isin(values)
    return (left_out & table["split"].isin(("train", "val"))).to_numpy(dtype=bool)
