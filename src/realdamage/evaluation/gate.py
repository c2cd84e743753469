"""Derives from the robustness curves which photos a model must not judge, and writes that into the model file.

The limits are measured, not guessed: each is the point below which this very model, at its own threshold, stops finding
synthetic photos or starts accusing honest buyers. Only the limit on fine detail does not look at the model's answers:
see `blur_limit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from realdamage.core.gate import Gate
from realdamage.core.metadata import read_model_file, write_model_file
from realdamage.core.policy import Policy
from realdamage.core.quality import PhotoQuality
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.figures import labelled_and_scored
from realdamage.evaluation.predictions import clean
from realdamage.evaluation.quality_curve import (
    QUALITIES,
    BlurLimit,
    QualityCurve,
    blur_limit,
    quality_curve,
)

ENHANCED = ("sharpened", "denoised", "upscaled", "enhanced", "enhanced_upscaled")
"""Perturbations that stand for what an honest phone or gallery does (configs/robustness/enhanced.yaml)."""
# Really damaged photos, for each that a point of a curve needs, below which all real photos stand in for them.
_ENOUGH_DAMAGED = 10
# Shares of hot patches that are tried for the whole-photo rule: below half the photo, it is not the whole.
_SHARES = tuple(round(share, 2) for share in np.arange(1.0, 0.49, -0.05))


class WholePhotoShare(NamedTuple):
    """The whole-photo rule: `share` as `Policy.whole_photo_share`, `reason` for it; then shares of photos called
    synthetic, with and without the rule: of honest photos, clean and phone-enhanced, and of kind `ai_whole`."""

    share: float | None
    reason: str
    honest: tuple[float, float] | None = None
    ai_whole: tuple[float, float] | None = None


@dataclass(frozen=True)
class GateSummary:
    """What `derive_gate` found. tpr_floor, allowed: what a trusted photo was asked for; negatives: of which honest
    photos `allowed` is a share, "damaged" or "real". gated: share of photos that the gate sends to review, in 0..1, of
    the clean honest and the clean synthetic ones; per_perturbation: of all photos of each perturbation ("" is clean).
    """

    gate: Gate
    whole_photo: WholePhotoShare
    curves: tuple[QualityCurve, ...]
    blur: BlurLimit
    tpr_floor: float
    allowed: float
    negatives: str
    gated: tuple[float, float]
    per_perturbation: dict[str, float]


def derive_gate(
    predictions: pd.DataFrame,
    policy: Policy,
    *,
    tpr_floor: float | None = None,
    max_gated: float = 0.05,
    blur_share: float = 0.02,
    min_photos: int = 30,
    enhanced: Sequence[str] = ENHANCED,
) -> GateSummary:
    """The limits of a model with this policy, from photos under several perturbations; see `quality_curve`.

    tpr_floor: the share of synthetic photos that must be found, in 0..1; None: half of what is found among clean ones.
    False alarms may be what the policy was made for: the promised share, else its `fpr`, of the photos it names; of
    all real photos where those are few.
    Photos of kind `pasted` are a control and count for nothing. max_gated: the largest share of clean honest photos
    that the gate may send to review. blur_share: see `blur_limit`.
    Raises UsageError: a share out of range; RealDamageError: no perturbation, no quality numbers, too few photos, a
    model that is not trusted on good photos either, or a gate that would stop more than `max_gated`.
    """
    for name, share in (
        ("tpr_floor", tpr_floor),
        ("max_gated", max_gated),
        ("blur_share", blur_share),
    ):
        if share is not None and not 0 <= share < 1:
            raise UsageError(
                f"{name}={share} must be at least 0 and below 1: it is a share of photos"
            )
    if min_photos < 1:
        raise UsageError(f"min_photos={min_photos} must be at least 1")
    photos, negatives = _prepared(predictions, policy, min_photos)
    promised = policy.guarantee.alpha if policy.guarantee else None
    allowed = policy.fpr if promised is None else promised
    if tpr_floor is None:
        found = clean(photos[photos["is_positive"]])["found"]
        tpr_floor = float(found.mean()) / 2 if len(found) else 0.0
    whole_photo = whole_photo_share(photos, policy, allowed, enhanced)
    if whole_photo.share is not None:
        # What the whole-photo rule sends to review is not accused, and no reason for a gate.
        photos["accused"] &= ~(photos["hot_share"] >= whole_photo.share)
    curves = tuple(
        quality_curve(photos, column, tpr_floor=tpr_floor, allowed=allowed, min_photos=min_photos)
        for column in QUALITIES
    )
    side, sharpness, compression = (curve.limit for curve in curves)
    blur = blur_limit(photos, blur_share)
    gate = Gate(None if side is None else round(side), sharpness, compression, blur.limit)
    measured = photos[[*QUALITIES, "fine_detail"]]
    stopped = np.array(
        [bool(gate.faults(_quality(row))) for row in measured.itertuples(index=False)]
    )
    untouched = (photos["perturbation"] == "").to_numpy()
    honest = untouched & (photos["label"] == "real").to_numpy()
    gated = float(stopped[honest].mean()) if honest.any() else 0.0
    if gated > max_gated:
        raise RealDamageError(
            f"The gate would send {gated:.1%} of the {int(honest.sum())} clean honest photos to review, more than "
            f"max_gated allows ({max_gated:.1%}): {_limits_text(gate)}. Nothing was written. Train on photos degraded "
            "like these, lower --tpr-floor or --blur-share, or allow it with --max-gated."
        )
    synthetic = untouched & (photos["label"] == "synthetic").to_numpy()
    return GateSummary(
        gate=gate,
        whole_photo=whole_photo,
        curves=curves,
        blur=blur,
        tpr_floor=tpr_floor,
        allowed=allowed,
        negatives=negatives,
        gated=(gated, float(stopped[synthetic].mean()) if synthetic.any() else 0.0),
        per_perturbation={
            str(name): float(share)
            for name, share in pd.Series(stopped)
            .groupby(photos["perturbation"].to_numpy())
            .mean()
            .items()
        },
    )


def whole_photo_share(
    photos: pd.DataFrame, policy: Policy, allowed: float, enhanced: Sequence[str] = ENHANCED
) -> WholePhotoShare:
    """The largest share of hot patches from which on a photo must go to review, so that of honest photos, clean and
    phone-enhanced, at most a share `allowed` is called synthetic; the policy's own where nothing can be learnt.

    photos: scored rows with `hot_share`. A smaller share spares more honest photos and lets more of kind `ai_whole` go
    to review.
    """
    kept = policy.whole_photo_share
    there = [name for name in enhanced if (photos["perturbation"] == name).any()]
    if not there:
        return WholePhotoShare(
            kept, f"unchanged: no phone-enhanced photos ({', '.join(enhanced)}) among these"
        )
    if photos["hot_share"].isna().any():
        return WholePhotoShare(
            kept, "unchanged: the column hot_share is empty; score the photos again"
        )
    called = (photos["score"] >= policy.t_synthetic).to_numpy(dtype=bool)
    hot = photos["hot_share"].to_numpy(dtype=np.float64)
    honest = (photos["label"] == "real").to_numpy() & photos["perturbation"].isin(
        ["", *there]
    ).to_numpy()
    whole = (photos["kind"] == "ai_whole").to_numpy() & (photos["perturbation"] == "").to_numpy()

    def shares(of: np.ndarray, share: float | None) -> tuple[float, float] | None:
        if not of.any():
            return None
        with_rule = called if share is None else called & (hot < share)
        return float(with_rule[of].mean()), float(called[of].mean())

    def told(share: float | None, reason: str) -> WholePhotoShare:
        return WholePhotoShare(share, reason, shares(honest, share), shares(whole, share))

    if not honest.any() or called[honest].mean() <= allowed:
        return told(kept, "unchanged: honest photos are spared without it")
    for share in _SHARES:
        if (called & (hot < share))[honest].mean() <= allowed:
            return told(
                share, "the largest at which honest photos, clean and phone-enhanced, are spared"
            )
    return told(kept, f"unchanged: no share from {_SHARES[-1]} on spares enough honest photos")


def gate_model(
    path: str | Path,
    predictions: pd.DataFrame,
    *,
    tpr_floor: float | None = None,
    max_gated: float = 0.05,
    blur_share: float = 0.02,
    min_photos: int = 30,
    enhanced: Sequence[str] = ENHANCED,
    output: str | Path | None = None,
) -> GateSummary:
    """`derive_gate` for a model file, written into it, all or nothing; `output` None changes `path` itself.

    Raises what `derive_gate` does; ModelFileError; RealDamageError: the model is not calibrated, or the predictions are
    another model's.
    """
    onnx_bytes, metadata, graph_sha256 = read_model_file(path)
    if metadata.policy is None:
        raise RealDamageError(
            f"{path}: has no thresholds yet, so nobody knows what it gets wrong. Calibrate it first."
        )
    others = sorted(set(predictions["graph_sha256"]) - {"", graph_sha256})
    if others:
        raise RealDamageError(
            f"The predictions are another model's: made with the network {others[0][:12]}…, {path} is "
            f"{graph_sha256[:12]}…. Score the photos with this model."
        )
    summary = derive_gate(
        predictions,
        metadata.policy,
        tpr_floor=tpr_floor,
        max_gated=max_gated,
        blur_share=blur_share,
        min_photos=min_photos,
        enhanced=enhanced,
    )
    policy = replace(
        metadata.policy, gate=summary.gate, whole_photo_share=summary.whole_photo.share
    )
    write_model_file(output or path, onnx_bytes, replace(metadata, policy=policy))
    return summary


def summary_text(summary: GateSummary) -> str:
    """The curves and what was decided, as lines for a terminal."""
    lines = [
        f"trusted: finds at least {summary.tpr_floor:.1%} of the synthetic photos, accuses no more than "
        f"{summary.allowed:.1%} of the {summary.negatives} ones (95% sure when it does)"
    ]
    for curve in summary.curves:
        limit = "none" if curve.limit is None else f"{curve.limit:.4g}"
        lines += [
            "",
            f"{curve.column}: limit {limit} ({curve.reason}); {curve.others} photos were made worse in other ways",
        ]
        lines.append(
            f"{'from':>9}{'to':>9}{'honest':>8}{'accused':>9}{'synthetic':>11}{'found':>8}{'fitted':>8}"
        )
        for row in curve.bins.itertuples(index=False):
            lines.append(
                f"{row.low:>9.4g}{row.high:>9.4g}{row.real:>8}{row.false_alarms:>9.1%}{row.synthetic:>11}"
                f"{row.tpr:>8.1%}{row.tpr_fit:>8.1%}{'' if row.trusted else '  not trusted'}"
            )
    blur = summary.blur
    lines += [
        "",
        f"fine_detail: limit {'none' if blur.limit is None else f'{blur.limit:.4g}'} ({blur.reason})",
    ]
    for title, shares in (
        ("clean honest photos", blur.clean),
        ("perturbed honest photos", blur.perturbed),
    ):
        if shares:
            lines.append(
                f"  stops of {title}: "
                + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
            )
    whole = summary.whole_photo
    lines += [
        "",
        f"whole-photo rule: from {_share(whole.share)} of the patches on ({whole.reason})",
    ]
    for title, rates in (
        ("honest photos, clean and enhanced", whole.honest),
        ("kind ai_whole", whole.ai_whole),
    ):
        if rates:
            lines.append(
                f"  {title}: {rates[0]:.1%} called synthetic, {rates[1]:.1%} without the rule"
            )
    lines += ["", f"gate: {_limits_text(summary.gate)}"]
    lines.append(
        f"  sends to review {summary.gated[0]:.1%} of the clean honest and {summary.gated[1]:.1%} of the clean "
        "synthetic photos"
    )
    worst = sorted(
        ((share, name) for name, share in summary.per_perturbation.items() if name and share),
        reverse=True,
    )
    if worst:
        lines.append(
            "  of perturbed ones: " + ", ".join(f"{name} {share:.0%}" for share, name in worst)
        )
    return "\n".join(lines)


def _prepared(
    predictions: pd.DataFrame, policy: Policy, min_photos: int
) -> tuple[pd.DataFrame, str]:
    """The scored rows with `short_side` and what `quality_curve` needs, and which photos may not be accused; raises
    where they cannot make a curve."""
    photos = labelled_and_scored(predictions)
    if photos["perturbation"].nunique() < 2:
        raise RealDamageError(
            "The predictions hold no perturbations, so they cannot tell how bad a photo may be. Evaluate with a "
            "robustness suite: realdamage-evaluate … robustness=standard"
        )
    if not (photos["perturbation"] == "").any():
        raise RealDamageError(
            "The predictions hold no clean photos (empty column perturbation) to compare with."
        )
    for column in ("sharpness", "compression", "fine_detail", "width", "height"):
        if photos[column].isna().all():
            raise RealDamageError(
                f"The predictions have no values in the column {column}: they were made by an older version. "
                "Evaluate again."
            )
    real = photos["label"] == "real"
    damaged = real & (photos["kind"] == "damaged")
    only_damaged = policy.negatives == "damaged" and damaged.sum() >= _ENOUGH_DAMAGED * min_photos
    called = photos["score"] >= policy.t_synthetic
    prepared = photos.assign(
        found=called,
        accused=called,
        short_side=photos[["width", "height"]].min(axis=1),
        is_negative=damaged if only_damaged else real,
        is_positive=(photos["label"] == "synthetic") & (photos["kind"] != "pasted"),
    )
    return prepared, "damaged" if only_damaged else "real"


def _quality(row: object) -> PhotoQuality:
    """A photo without a number passes: what was not measured is no fault."""
    side, sharpness, compression, detail = (
        float(getattr(row, name)) for name in (*QUALITIES, "fine_detail")
    )
    return PhotoQuality(
        10**9 if np.isnan(side) else int(side),
        1.0 if np.isnan(sharpness) else sharpness,
        100.0 if np.isnan(compression) else compression,
        None if np.isnan(detail) else detail,
    )


def _share(share: float | None) -> str:
    return "no share" if share is None else f"{share:.0%}"


def _limits_text(gate: Gate) -> str:
    limits = [
        *([f"shorter side {gate.min_side} pixels"] if gate.min_side is not None else []),
        *([f"sharpness {gate.min_sharpness:.3f}"] if gate.min_sharpness is not None else []),
        *([f"fine detail {gate.min_fine_detail:.4f}"] if gate.min_fine_detail is not None else []),
        *([f"JPEG quality {gate.min_quality:.0f}"] if gate.min_quality is not None else []),
    ]
    return "at least " + ", ".join(limits) if limits else "lets every photo pass"
