"""Turns scores into probabilities and thresholds, measured on photos the network never saw, and puts both into the
model file, so that whoever loads the file judges as it was calibrated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression

from realdamage.data.manifest import Manifest
from realdamage.evaluation.predictions import check_predictions, score_manifest
from realdamage.inference.detector import Detector
from realdamage.inference.errors import ManifestError, RealDamageError, UsageError
from realdamage.inference.metadata import read_model_file, write_model_file
from realdamage.inference.policy import Calibration, Policy
from realdamage.inference.progress import Track, no_progress

# The false positive rate is measured on really damaged photos as soon as there are so many, else on all real ones.
MIN_DAMAGED = 20


@dataclass(frozen=True)
class CalibrationSummary:
    """What `calibrate_model` wrote, and what the thresholds do to the photos they were chosen on.

    called_synthetic: share of the policy's negatives that `t_synthetic` accuses; called_real: share of the synthetic
    photos that `t_real` lets pass; review: share of all photos that lie between. In 0..1; of the thresholds alone,
    without the whole-photo rule. unreadable: photos left out.
    """

    output: Path
    split: str
    calibration: Calibration
    policy: Policy
    called_synthetic: float
    called_real: float
    review: float
    unreadable: int


def fit_platt(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike) -> Calibration:
    """Platt scaling (Platt 1999): logistic regression of the label on the score, with his smoothed targets, so that
    scores which separate the classes entirely still give a finite slope.

    `scores` [n]; `labels` [n], 1 = synthetic; `groups` [n]: the photos of one class in one group weigh one photo
    together, so a product that was photographed often does not decide alone. The prior is the synthetic share of that
    weight. Raises RealDamageError: one class only, or scores that do not rise with the label.
    """
    score, synthetic = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"Calibration needs scores of both classes; found {int(synthetic.sum())} synthetic and "
            f"{int((~synthetic).sum())} real ones."
        )
    frame = pd.DataFrame({"synthetic": synthetic, "group": np.asarray(groups)})
    weight = 1 / frame.groupby(["synthetic", "group"])["group"].transform("size").to_numpy(dtype=np.float64)
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
            f"The scores do not rise with the label (slope {slope:.3g} on {len(score)} photos): this model does not "
            "tell the classes of this manifest apart. Check the labels, or train on photos like these."
        )
    prior = float(n_synthetic / (n_synthetic + n_real))
    return Calibration(slope=slope, intercept=float(model.intercept_[0]) - slope * centre, prior=prior)


def choose_policy(predictions: pd.DataFrame, fpr: float, miss: float) -> Policy:
    """The two thresholds at given rates over the scored photos; a promise about other photos it is not.

    t_synthetic: the smallest at which at most a share `fpr` of the negatives scores as high or higher. Negatives are
    the really damaged photos (kind `damaged`) when there are at least 20, else all real ones; the policy says which.
    t_real: the largest at which at most a share `miss` of the synthetic photos scores as low or lower.
    Raises UsageError: a rate outside 0..1; RealDamageError: one class only.
    """
    for name, rate in (("fpr", fpr), ("miss", miss)):
        if not 0 <= rate < 1:
            raise UsageError(f"{name}={rate} must be at least 0 and below 1: it is a share of photos")
    check_predictions(predictions)
    scored = predictions[predictions["score"].notna()]
    real, synthetic = (scored[scored["label"] == label]["score"].to_numpy() for label in ("real", "synthetic"))
    if not len(real) or not len(synthetic):
        raise RealDamageError(
            f"Thresholds need both classes; found {len(real)} real, {len(synthetic)} synthetic photos."
        )
    damaged = scored[(scored["label"] == "real") & (scored["kind"] == "damaged")]["score"].to_numpy()
    negatives, name = (damaged, "damaged") if len(damaged) >= MIN_DAMAGED else (real, "real")
    return Policy(
        t_synthetic=-_largest_below(-negatives, fpr),
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
    fpr: float = 0.01,
    miss: float = 0.05,
    *,
    output: str | Path | None = None,
    threads: int | None = None,
    progress: Track = no_progress,
    on_error: Literal["raise", "skip"] = "raise",
) -> CalibrationSummary:
    """Scores the photos of `split`, fits calibration and policy, and writes them into the model file, all or nothing.

    `split` None takes the first of `policy` and `val` that has photos, or every photo of a manifest without splits;
    photos of `train` are refused. `output` None changes `path` itself. `progress`, `on_error`: see `score_manifest`.
    Raises UsageError: the split is `train` or a rate is out of range; ManifestError: the split is missing or lacks a
    class; ModelFileError, PhotoError, RealDamageError (scores do not rise with the label, file cannot be written).
    """
    chosen, name = _calibration_photos(manifest, split)
    counts = {label: int((chosen.table["label"] == label).sum()) for label in ("real", "synthetic")}
    if not all(counts.values()):
        raise ManifestError(
            f"{manifest.root}: {name} has {counts['real']} real and {counts['synthetic']} synthetic photos; "
            "calibration needs both. Add photos of the other class, or name another split."
        )
    onnx_bytes, metadata, _ = read_model_file(path)
    predictions, _ = score_manifest(Detector.load(path, threads=threads), chosen, progress=progress, on_error=on_error)
    scored = predictions[predictions["score"].notna()]
    policy = choose_policy(scored, fpr, miss)
    calibration = fit_platt(scored["score"], scored["label"] == "synthetic", scored["group"])
    output = Path(output or path)
    write_model_file(output, onnx_bytes, replace(metadata, calibration=calibration, policy=policy))
    outcomes = scored["score"].map(policy.outcome)
    negatives = scored["kind"] == "damaged" if policy.negatives == "damaged" else scored["label"] == "real"
    return CalibrationSummary(
        output=output,
        split=name,
        calibration=calibration,
        policy=policy,
        called_synthetic=float((outcomes[negatives] == "synthetic").mean()),
        called_real=float((outcomes[scored["label"] == "synthetic"] == "real").mean()),
        review=float((outcomes == "review").mean()),
        unreadable=len(predictions) - len(scored),
    )


def _calibration_photos(manifest: Manifest, split: str | None) -> tuple[Manifest, str]:
    """The photos to calibrate on, and what to call them."""
    if split == "train":
        raise UsageError("split=train: thresholds from photos the network was trained on promise too much; take val")
    if split is not None:
        return manifest.select(split=split), f"split {split!r}"
    splits = set(manifest.table["split"])
    for name in ("policy", "val"):
        if name in splits:
            return manifest.select(split=name), f"split {name!r}"
    if splits != {""}:
        raise ManifestError(
            f"{manifest.root}: neither a split 'policy' nor 'val' to calibrate on (found: "
            f"{', '.join(sorted(splits))}). Give photos that were not trained on one of them, or name a split."
        )
    return manifest, "the whole manifest"


def _largest_below(scores: npt.NDArray[np.float64], share: float) -> float:
    """The largest number at or below which at most `share` (below 1) of the scores lie."""
    # The tolerance forgives the last digit of the product: 0.29 * 100 is 28.999….
    allowed = math.floor(share * len(scores) + 1e-9)
    return float(np.nextafter(np.sort(scores)[allowed], -np.inf))
