"""Turns scores into probabilities and thresholds, measured on photos the network never saw, and puts both into the
model file, so that whoever loads the file judges as it was calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.detector import Detector
from realdamage.core.metadata import read_model_file, write_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.core.progress import Track, no_progress
from realdamage.data.manifest import Manifest
from realdamage.errors import ManifestError, RealDamageError, UsageError
from realdamage.evaluation.guarantee import (
    DELTA,
    Promise,
    check_enough,
    percent,
    upper_bound,
    with_guarantee,
)
from realdamage.evaluation.predictions import check_predictions, group_ids, score_manifest
from realdamage.evaluation.probability import Method, check_method, fit_calibration
from realdamage.evaluation.robustness import is_training_set
from realdamage.evaluation.slices import strictest_source, worst_source

# The false positive rate is measured on really damaged photos as soon as there are so many, else on all real ones.
# A promise is about really damaged photos only, however few.
MIN_DAMAGED = 20
FPR, MISS = 0.01, 0.05


@dataclass(frozen=True)
class CalibrationSummary:
    """What `calibrate_model` wrote, and what the thresholds do to the photos they were chosen on.

    called_synthetic: share of the policy's negatives that are called synthetic; called_real, caught: shares of the
    synthetic photos that are called real and synthetic; review: share of all photos that are left to a person. In 0..1,
    after the whole-photo rule, as an evaluation counts them. unreadable: photos left out. demo: of the model.
    brier: held-out Brier score of each method, None unless `calibration` was "auto". notes: what a promise rests on;
    warnings: what these photos are too few for, and what the file held before and no longer does.
    """

    output: Path
    split: str
    calibration: Calibration
    policy: Policy
    called_synthetic: float
    called_real: float
    caught: float
    review: float
    unreadable: int
    demo: bool
    brier: dict[str, float] | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_policy(
    predictions: pd.DataFrame, fpr: float, miss: float, *, least: float = -math.inf
) -> Policy:
    """The two thresholds at given rates over the scored photos; a promise about other photos it is not.

    t_synthetic: the smallest, but at least `least`, at which at most a share `fpr` of the negatives scores as high or
    higher. Negatives are the really damaged photos (kind `damaged`) when there are at least 20, else all real ones; the
    policy says which.
    t_real: the largest at which at most a share `miss` of the synthetic photos scores as low or lower.
    Raises UsageError: a rate outside 0..1; RealDamageError: one class only.
    """
    _check_rates(fpr, miss)
    check_predictions(predictions)
    scored = predictions[predictions["score"].notna()]
    real, synthetic = (
        scored[scored["label"] == label]["score"].to_numpy() for label in ("real", "synthetic")
    )
    if not len(real) or not len(synthetic):
        raise RealDamageError(
            f"Thresholds need both classes; found {len(real)} real, {len(synthetic)} synthetic photos."
        )
    damaged = scored[(scored["label"] == "real") & (scored["kind"] == "damaged")][
        "score"
    ].to_numpy()
    negatives, name = (damaged, "damaged") if len(damaged) >= MIN_DAMAGED else (real, "real")
    return Policy(
        t_synthetic=max(-_largest_below(-negatives, fpr), least),
        t_real=_largest_below(synthetic, miss),
        fpr=fpr,
        miss=miss,
        negatives=name,
        photos={"real": len(real), "damaged": len(damaged), "synthetic": len(synthetic)},
    )


def calibrate_model(
    path: str | Path,
    manifest: Manifest,
    split: str | None = None,
    fpr: float | None = None,
    miss: float | None = None,
    *,
    calibration: Method = "platt",
    alpha: float | None = None,
    beta: float | None = None,
    delta: float | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    threads: int | None = None,
    progress: Track = no_progress,
    on_error: Literal["raise", "skip"] = "raise",
) -> CalibrationSummary:
    """Scores the photos of `split`, fits calibration and policy, and writes them into the model file, all or nothing.

    `split` None takes the first of `policy` and `val` that has photos, or every photo of a manifest without splits;
    photos of `train` are refused. A promise (see `with_guarantee`) takes `val` only when it is named, because the
    checkpoint was chosen on it. `fpr`, `miss`: empirical rates, 0.01 and 0.05 by default; each gives way to its
    promise, `alpha` and `beta`, which hold with confidence 1 - `delta` (0.05). Where the photos are of several sources,
    t_synthetic is raised until in each of them (`strictest_source`) at most a share `alpha`, else `fpr`, of the real
    photos of every kind scores as high. That only lowers false alarms, so the promise still holds; it promises nothing
    for a single source, whose share is only counted on these photos. `calibration`, `seed`: see `fit_calibration` and
    `one_per_group`. `output` None changes `path` itself. `progress`, `on_error`: see
    `score_manifest`.
    Raises UsageError: the split is `train`, a rate is out of range, a rate and its promise are both given;
    ManifestError: the split is missing or lacks a class; ModelFileError, PhotoError, RealDamageError (too few photos
    for the promise, scores do not rise with the label, file cannot be written).
    """
    check_method(calibration)
    promise = _promise(fpr, miss, alpha, beta, delta, seed)
    fpr, miss = FPR if fpr is None else fpr, MISS if miss is None else miss
    _check_rates(fpr, miss)
    chosen, name = _calibration_photos(manifest, split, promised=promise is not None)
    counts = {label: int((chosen.table["label"] == label).sum()) for label in ("real", "synthetic")}
    if not all(counts.values()):
        raise ManifestError(
            f"{manifest.root}: {name} has {counts['real']} real and {counts['synthetic']} synthetic photos; "
            "calibration needs both. Add photos of the other class, or name another split."
        )
    if promise:
        check_enough(promise, chosen.table, f"{manifest.root}: {name}")
    onnx_bytes, metadata, _ = read_model_file(path)
    notes = _notes(manifest, chosen, metadata.training) if promise else ()
    predictions, _ = score_manifest(
        Detector.load(path, threads=threads), chosen, progress=progress, on_error=on_error
    )
    scored = predictions[predictions["score"].notna()]
    synthetic = scored["label"] == "synthetic"
    fitted, brier = fit_calibration(
        calibration, scored["score"], synthetic, group_ids(scored), seed=seed
    )

    def thresholds(least: float = -math.inf) -> Policy:
        chosen = choose_policy(scored, fpr, miss, least=least)
        if promise is None:
            return chosen
        digest = manifest.digest()
        return with_guarantee(
            chosen, scored, promise, split=name, manifest_sha256=digest, least=least
        )

    policy = pooled = thresholds()
    strictest = strictest_source(scored[~synthetic], pooled.fpr)
    if strictest and strictest.threshold > pooled.t_synthetic:
        policy = thresholds(strictest.threshold)
    outcomes = scored["score"].map(policy.outcome)
    if policy.whole_photo_share is not None:
        outcomes = outcomes.mask(scored["hot_share"] >= policy.whole_photo_share, "review")
    if strictest:
        worst = worst_source(
            scored[~synthetic].assign(outcome=outcomes),
            policy,
            pooled.t_synthetic,
            strictest.source,
        )
        policy = replace(policy, worst_source=worst)
    output = Path(output or path)
    write_model_file(output, onnx_bytes, replace(metadata, calibration=fitted, policy=policy))
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
        unreadable=len(predictions) - len(scored),
        demo=metadata.demo,
        brier=brier,
        notes=notes,
        warnings=(*_too_few_for_a_rate(policy), *_given_up(metadata.policy, policy)),
    )


def _check_rates(fpr: float, miss: float) -> None:
    for name, rate in (("fpr", fpr), ("miss", miss)):
        if not 0 <= rate < 1:
            raise UsageError(
                f"{name}={rate} must be at least 0 and below 1: it is a share of photos"
            )


def _promise(
    fpr: float | None,
    miss: float | None,
    alpha: float | None,
    beta: float | None,
    delta: float | None,
    seed: int,
) -> Promise | None:
    """What is promised, None when nothing is. Raises UsageError: options that contradict each other."""
    for rate, share, names in ((fpr, alpha, ("fpr", "alpha")), (miss, beta, ("miss", "beta"))):
        if rate is not None and share is not None:
            raise UsageError(
                f"{names[0]} and {names[1]} set the same threshold; give {names[0]} for a rate on these photos, or "
                f"{names[1]} for a promise about others"
            )
    if alpha is None and beta is None:
        if delta is not None:
            raise UsageError("delta is the risk of a promise; give alpha or beta with it")
        return None
    promise = Promise(alpha, beta, DELTA if delta is None else delta, seed)
    promise.check()
    return promise


def _calibration_photos(
    manifest: Manifest, split: str | None, promised: bool
) -> tuple[Manifest, str]:
    """The photos to calibrate on, and what to call them."""
    if split == "train":
        raise UsageError(
            "split=train: thresholds from photos the network was trained on promise too much; take val"
        )
    if split is not None:
        return manifest.select(split=split), f"split {split!r}"
    splits = set(manifest.table["split"])
    if promised and "policy" not in splits and "val" in splits:
        raise ManifestError(
            f"{manifest.root}: no split 'policy' (found: {', '.join(sorted(splits))}). A promise needs photos that "
            "chose nothing before, and the best checkpoint is chosen on 'val'. Set some apart, before training, with "
            "realdamage split --fractions train=0.6,val=0.1,policy=0.15,test=0.15; or name --split val when this "
            "model's checkpoint was not chosen on it."
        )
    for name in ("policy", "val"):
        if name in splits:
            return manifest.select(split=name), f"split {name!r}"
    if splits != {""}:
        raise ManifestError(
            f"{manifest.root}: neither a split 'policy' nor 'val' to calibrate on (found: "
            f"{', '.join(sorted(splits))}). Give photos that were not trained on one of them, or name a split."
        )
    return manifest, "the whole manifest"


def _notes(manifest: Manifest, chosen: Manifest, training: Mapping[str, Any]) -> tuple[str, ...]:
    """What only the user can know about the photos of a promise."""
    notes = []
    splits = set(chosen.table["split"])
    if not is_training_set(manifest, training):
        notes.append(
            "the model was trained on another manifest than this one; that none of these photos was among its "
            "training photos is for you to know"
        )
    elif "val" in splits:
        notes.append(
            "the model's checkpoint was chosen on these val photos; the promise may claim too much"
        )
    if "test" in splits:
        notes.append(
            "these test photos have now chosen a threshold; figures on them are no longer independent of it"
        )
    return tuple(notes)


def _too_few_for_a_rate(policy: Policy) -> Iterator[str]:
    """What the photos cannot tell of the rates that were asked for; a promise refuses too few photos by itself."""
    guarantee = policy.guarantee
    if not (guarantee and guarantee.accused) and policy.negatives == "real":
        yield (
            f"false alarms were counted on all {policy.photos['real']} real photos: only {policy.photos['damaged']} of "
            f"them show real damage (kind damaged), and it takes {MIN_DAMAGED} to count on these alone"
        )
    for promised, rate, sort, outcome in (
        (guarantee and guarantee.accused, policy.fpr, policy.negatives, "synthetic"),
        (guarantee and guarantee.passed, policy.miss, "synthetic", "real"),
    ):
        photos = policy.photos[sort]
        if not promised and rate > 0 and rate * photos < 1:
            yield (
                f"a rate of {percent(rate)} takes at least {math.ceil(1 / rate - 1e-9)} photos: that none of these "
                f"{photos} {sort} ones is called {outcome} leaves it open whether up to "
                f"{upper_bound(0, photos, DELTA):.0%} of such photos are (with {percent(1 - DELTA)} confidence)"
            )


def _given_up(before: Policy | None, after: Policy) -> Iterator[str]:
    """What belonged to the thresholds that have been replaced."""
    held, holds = before and before.guarantee, after.guarantee
    for was, still, option, outcome in (
        (
            held and held.accused,
            holds and holds.accused,
            "alpha",
            "photos with real damage called synthetic",
        ),
        (held and held.passed, holds and holds.passed, "beta", "synthetic photos called real"),
    ):
        if was and not still:
            yield f"the file's promise of at most {percent(was.share)} of {outcome} is gone; --{option} makes one"
    if before and before.gate and not after.gate:
        yield "the file's limits on photos too poor to judge went with its thresholds; set new ones: realdamage gate"


def _largest_below(scores: npt.NDArray[np.float64], share: float) -> float:
    """The largest number at or below which at most `share` (below 1) of the scores lie."""
    # The tolerance forgives the last digit of the product: 0.29 * 100 is 28.999….
    allowed = math.floor(share * len(scores) + 1e-9)
    return float(np.nextafter(np.sort(scores)[allowed], -np.inf))
