"""Compares every edited photo with its own original: product, camera and light are the same, so what is left of the
difference is what the model sees of the edit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from realdamage.data.intervals import DRAWS, bootstrap_interval
from realdamage.evaluation.predictions import group_ids


def pair_differences(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per scored synthetic photo whose original (column `pair`) was scored under the same perturbation:
    file_name, pair, kind, perturbation, group, difference = score of the edit - score of the original."""
    columns = ["file_name", "pair", "kind", "perturbation", "group", "difference"]
    if "pair" not in predictions.columns:
        return pd.DataFrame(columns=columns)
    scored = predictions[predictions["score"].notna()].assign(group=lambda table: group_ids(table))
    edits = scored[(scored["label"] == "synthetic") & (scored["pair"] != "")]
    originals = scored[["file_name", "perturbation", "score"]].rename(
        columns={"file_name": "pair", "score": "original_score"}
    )
    pairs = edits.merge(originals, on=["pair", "perturbation"], how="inner", validate="many_to_one")
    return pairs.assign(difference=pairs["score"] - pairs["original_score"])[columns]


def pair_figures(
    predictions: pd.DataFrame, *, n_boot: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """n pairs; edit_higher: the share in which the edit scores higher than its original, in 0..1, ties counted half
    (0.5: the edit makes no difference); low, high: its 95% interval by bootstrap over groups; median_difference of the
    scores; reason: why all are None."""
    pairs = pair_differences(predictions)
    if not len(pairs):
        undefined = dict.fromkeys(("edit_higher", "low", "high", "median_difference"))
        reason = "no synthetic photo has a scored original (column pair), so no edit can be compared with its own"
        return {"n": 0, **undefined, "reason": reason}
    difference = pairs["difference"].to_numpy(dtype=np.float64)
    higher = (np.sign(difference) + 1) / 2

    def share(weights: np.ndarray) -> float:
        total = weights.sum()
        return float(weights @ higher / total) if total else float("nan")

    low, high = bootstrap_interval(share, pairs["group"].to_numpy(), n_boot=n_boot, seed=seed)
    return {
        "n": len(pairs),
        "edit_higher": float(higher.mean()),
        "low": float(low),
        "high": float(high),
        "median_difference": float(np.median(difference)),
        "reason": None,
    }
