"""Turns scores into probabilities and thresholds, on photos that the network never saw, and writes
both into the model file, so that everyone who loads it judges the same way.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression

from realdamage.commit import code_sha256
from realdamage.core.detector import Detector
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.core.progress import Track, no_progress
from realdamage.data.manifest import Manifest
from realdamage.errors import ManifestError, ModelFileError, RealDamageError, UsageError
from realdamage.evaluation.guarantee import Targets, check_enough, percent, with_guarantee
from realdamage.evaluation.predictions import group_ids, outcomes_by, score_manifest
from realdamage.evaluation.robustness import CODE, LIBRARIES, training_set
from realdamage.evaluation.slices import strictest_source, threshold_at, worst_source

_SHRINKABLE = 0.75  # of the scale of the most shrunk calibration photo; 0.6 begins to accuse
MIN_DAMAGED = 20
"""From this many really damaged photos on, false alarms are counted on them alone, otherwise on all
real ones. A guarantee is about really damaged photos only, however few."""


@dataclass(frozen=True)
class CalibrationSummary:
    """What `calibrate_model` wrote, and what the thresholds do to the photos they were chosen on.

    called_synthetic: share of the policy's negatives. called_real, caught: shares of the synthetic
    photos called real and synthetic. review: share of all photos. notes: what a guarantee depends
    on. warnings: what these photos are too few for, and what went with the old thresholds.
    """

    output: Path
    split: str
    calibration: Calibration
    policy: Policy
    called_synthetic: float
    called_real: float
    caught: float
    review: float
    demo: bool
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_policy(
    predictions: pd.DataFrame, targets: Targets, *, least: float = -math.inf
) -> Policy:
    """The two thresholds at the rates of `targets` over the scored photos; no guarantee.

    t_synthetic: the smallest, but at least `least`, that at most a share `fpr` of the negatives
    reaches. t_real: the largest at which at most a share `miss` of the synthetic photos scores as
    low. Raises RealDamageError: no photo of the kinds that `targets` names.
    predictions: of both classes.
    """
    scored = predictions[predictions["score"].notna()]
    real, synthetic = (scored[scored["label"] == label] for label in ("real", "synthetic"))
    missed = scored[targets.missed(scored)]
    if missed.empty:
        raise RealDamageError(
            f"No synthetic photo is of kind {' or '.join(targets.kinds)}; found "
            f"{', '.join(sorted(set(synthetic['kind'])))}.",
            code="no_photo_of_kind",
        )
    damaged = real[real["kind"] == "damaged"]
    enough = len(damaged) >= MIN_DAMAGED
    negatives = damaged if enough else real
    fpr, miss = targets.rates
    return Policy(
        t_synthetic=max(threshold_at(negatives["score"].to_numpy(), fpr), least),
        t_real=-threshold_at(-missed["score"].to_numpy(), miss),
        fpr=fpr,
        miss=miss,
        negatives="damaged" if enough else "real",
        photos={"real": len(real), "damaged": len(damaged), "synthetic": len(synthetic)},
    )


def fit_platt(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike) -> Calibration:
    """Logistic regression of the label [n] on the score [n], with the smoothed targets of Platt
    (1999), which give a finite slope even when the scores separate the classes completely.

    groups [n]: the photos of one class in one group together weigh as much as one photo. The prior
    is the synthetic share of the weight.
    Raises RealDamageError: scores that do not rise with the label.
    """
    score, synthetic = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    frame = pd.DataFrame({"synthetic": synthetic, "group": np.asarray(groups)})
    sizes = frame.groupby(["synthetic", "group"])["group"].transform("size")
    weight = 1 / sizes.to_numpy(np.float64)
    n_synthetic, n_real = weight[synthetic].sum(), weight[~synthetic].sum()
    target = np.where(synthetic, (n_synthetic + 1) / (n_synthetic + 2), 1 / (n_real + 2))
    # A soft target is a photo seen twice: as synthetic with weight t, as real with 1 - t.
    centre, scale = score.mean(), score.std() or 1.0
    model = LogisticRegression(C=1e6, max_iter=1000).fit(
        np.tile((score - centre) / scale, 2)[:, None],
        np.repeat([1, 0], len(score)),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]),
    )
    slope = float(model.coef_[0, 0]) / scale
    if slope <= 0:
        raise RealDamageError(
            f"The scores do not rise with the label (slope {slope:.3g} on {len(score)} photos): "
            "this model does not separate the classes of this manifest. Check the labels, or train "
            "on photos like these.",
            code="scores_do_not_rise",
        )
    prior = float(n_synthetic / (n_synthetic + n_real))
    intercept = float(model.intercept_[0]) - slope * centre
    return Calibration(slope=slope, intercept=intercept, prior=prior)


def calibrate_model(
    path: str | Path,
    manifest: Manifest,
    targets: Targets,
    *,
    split: str | None = None,
    output: str | Path | None = None,
    threads: int | None = None,
    progress: Track = no_progress,
) -> CalibrationSummary:
    """Scores the photos of `split`, fits calibration and policy, and writes them into the model
    file (or `output`), all or nothing.

    split: None takes the first of `policy` and `val` that has photos, or all photos of a manifest
    without splits. A guarantee uses `val` only when named: the checkpoint was chosen on it.
    With several sources, t_synthetic is raised to that of the strictest one (`strictest_source`).
    The file's quality gate stays.
    Raises UsageError: split `train`; ManifestError: the split is missing or lacks a class;
    RealDamageError: too few photos for the guarantee, or scores that do not rise with the label.
    """
    chosen, name = _calibration_photos(manifest, split, targets.guaranteed)
    if chosen.table["label"].nunique() < 2:
        raise ManifestError(
            f"{manifest.root}: {name} has photos of one class only; calibration needs real and "
            "synthetic ones. Add photos of the other class, or name another split.",
            code="one_class",
        )
    check_enough(targets, chosen.table, f"{manifest.root}: {name}")
    onnx_bytes, metadata, graph = read_model_file(path)
    notes = tuple(_notes(manifest, chosen, metadata.training)) if targets.guaranteed else ()
    scored, _ = score_manifest(Detector.load(path, threads=threads), chosen, progress=progress)
    synthetic = scored["label"] == "synthetic"
    fitted = fit_platt(scored["score"], synthetic, group_ids(scored))

    def thresholds(least: float = -math.inf) -> Policy:
        empirical = choose_policy(scored, targets, least=least)
        if not targets.guaranteed:
            return empirical
        about = {"split": name, "manifest_sha256": manifest.digest()}
        return with_guarantee(empirical, scored, targets, **about, least=least)

    policy = pooled = thresholds()
    strictest = strictest_source(scored[~synthetic], pooled.fpr)
    if strictest and strictest[0] > pooled.t_synthetic:
        policy = thresholds(strictest[0])
    longer = scored[["width", "height"]].max(axis=1).max()
    smallest = min(1.0, metadata.pixel_spec.max_side / longer)
    policy = replace(policy, min_scale=round(_SHRINKABLE * smallest, 4))
    if metadata.policy:  # its limits on quality are about the network, not about thresholds
        policy = replace(policy, gate=metadata.policy.gate)
    outcomes = outcomes_by(policy, scored)
    if strictest:
        real = scored[~synthetic].assign(outcome=outcomes)
        worst = worst_source(real, policy, pooled.t_synthetic, strictest[1])
        policy = replace(policy, worst_source=worst)
    output = Path(output or path)
    origin = _origin(graph, manifest, chosen, targets)
    training = {**metadata.training, "calibration": origin}
    changed = replace(metadata, calibration=fitted, policy=policy, training=training)
    write_model_file(output, onnx_bytes, changed)
    negatives = scored["kind"] == "damaged" if policy.negatives == "damaged" else ~synthetic
    return CalibrationSummary(
        output=output,
        split=name,
        calibration=fitted,
        policy=policy,
        called_synthetic=float((outcomes[negatives] == "synthetic").mean()),
        called_real=float((outcomes[synthetic] == "real").mean()),
        caught=float((outcomes[synthetic] == "synthetic").mean()),
        review=float((outcomes == "review").mean()),
        demo=metadata.demo,
        notes=notes,
        warnings=tuple(_warnings(metadata.policy, policy)),
    )


def is_calibrated(
    path: str | Path,
    manifest: Manifest,
    targets: Targets,
    *,
    split: str | None = None,
    output: str | Path | None = None,
) -> bool:
    """Whether `calibrate_model` with these arguments would write what the file holds already.

    Raises as `calibrate_model` for arguments that do not fit.
    """
    chosen, _ = _calibration_photos(manifest, split, targets.guaranteed)
    graph = read_model_file(path)[2]
    try:
        _, metadata, written = read_model_file(output or path)
    except ModelFileError:
        return False
    wanted = _origin(graph, manifest, chosen, targets)
    same = metadata.training.get("calibration") == wanted and written == graph
    return same and metadata.policy is not None


def _origin(graph: str, manifest: Manifest, chosen: Manifest, targets: Targets) -> str:
    """Digest of all that decides calibration and policy."""
    photos = (manifest.digest(), chosen.digest(), chosen.files_digest())
    facts = (graph, photos, targets, code_sha256(CODE, LIBRARIES))
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _calibration_photos(
    manifest: Manifest, split: str | None, guaranteed: bool
) -> tuple[Manifest, str]:
    """The photos to calibrate on, and what to call them."""
    if split == "train":
        raise UsageError(
            "split=train: a network errs less on photos it was trained on; use val or policy",
            code="training_photos",
        )
    splits = set(manifest.table["split"])
    if split is None and splits == {""}:
        return manifest, "the whole manifest"
    if split is None:
        split = next((name for name in ("policy", "val") if name in splits), None)
        if split is None or (guaranteed and split == "val"):
            raise ManifestError(
                f"{manifest.root}: no split to calibrate on (found: {', '.join(sorted(splits))}). "
                "Calibration takes policy, or val; a guarantee needs policy, because the best "
                "checkpoint is chosen on val. Set photos apart before training with realdamage "
                "split --fractions train=0.6,val=0.1,policy=0.15,test=0.15, or name a split with "
                "--split when its photos chose nothing.",
                code="no_calibration_split",
            )
    return manifest.select(split=split), f"split {split!r}"


def _notes(manifest: Manifest, chosen: Manifest, training: Mapping[str, Any]) -> Iterator[str]:
    """What only the user can know about the photos of a guarantee."""
    splits = set(chosen.table["split"])
    if training_set(manifest, training) is None:
        yield (
            "the model was trained on another manifest; only you can know that none of these "
            "photos was among its training photos"
        )
    elif "val" in splits:
        yield "the checkpoint was chosen on these val photos; the guarantee may claim too much"
    if "test" in splits:
        yield "these test photos chose a threshold; figures on them are no longer independent of it"


def _warnings(before: Policy | None, after: Policy) -> Iterator[str]:
    """What these photos are too few for, and what went with the replaced thresholds."""
    guarantee, photos = after.guarantee, after.photos
    alpha, beta = (guarantee.alpha, guarantee.beta) if guarantee else (None, None)
    if alpha is None and after.negatives == "real":
        yield (
            f"false alarms were counted on all {photos['real']} real photos: only "
            f"{photos['damaged']} of them show real damage (kind damaged), and it takes "
            f"{MIN_DAMAGED} to count on these alone"
        )
    elif alpha is None and 0 < after.fpr * photos[after.negatives] < 1:
        yield f"a rate of {percent(after.fpr)} takes at least {math.ceil(1 / after.fpr)} photos"
    for name, now in (("alpha", alpha), ("beta", beta)):
        was = getattr(before and before.guarantee, name, None)
        if was and not now:
            yield f"the file's guarantee {name}={was:g} is gone; --{name} makes a new one"
