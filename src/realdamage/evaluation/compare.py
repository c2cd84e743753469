"""Is model B better than model A? Both are measured on the same photos with the same draws.

What counts is the interval of the difference: two overlapping intervals would say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from realdamage.data.bootstrap import DRAWS, percentile_interval
from realdamage.errors import RealDamageError
from realdamage.evaluation.figures import RATES, ScoredPhotos

Standing = Literal["better", "worse", "no clear difference", "not measured"]

KEYS = ["file_name", "perturbation"]
FIGURES: Mapping[str, tuple[str, bool]] = {
    "auroc": ("AUROC", True),
    "tpr_at_fpr_1": ("TPR at 1% FPR over real damage", True),
    "tpr_at_fpr_5": ("TPR at 5% FPR over real damage", True),
    "balanced_at_thresholds": ("balanced accuracy at the thresholds", True),
    "false_alarms": ("real damage called synthetic", False),
    "missed": ("synthetic called real", False),
    "review": ("photos sent to review", False),
    "brier": ("Brier score", False),
    "pairs": ("edits above their own original", True),
}
"""Title of each figure, and whether more of it is better."""
MIN_GROUPS = 20
"""From fewer groups a bootstrap interval comes out too narrow to judge by."""


@dataclass(frozen=True)
class Difference:
    """One figure of both models and b - a; None with a `reason` where it is not measured.

    low, high: 95% interval of the difference, None from fewer than `MIN_GROUPS` groups.
    standing: of B compared with A.
    """

    figure: str
    title: str
    higher_is_better: bool
    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    standing: Standing = "not measured"
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What to conclude, in plain words."""
        if self.standing == "not measured":
            return f"not measured: {self.reason}"
        if self.standing == "no clear difference":
            why = f": {self.reason}" if self.reason else " at 95%"
            return f"no clear difference between A and B{why}"
        return f"B is {self.standing} at 95%"


@dataclass(frozen=True)
class Comparison:
    """Two models, named `a` and `b`, on the unperturbed photos that both have judged.

    only_a, only_b: rows left out because the other side lacks the photo. unscored: because one side
    has no score. perturbed: the same figures for each perturbation.
    """

    a: str
    b: str
    n: int
    n_real: int
    n_damaged: int
    n_groups: int
    only_a: int
    only_b: int
    unscored: int
    figures: tuple[Difference, ...]
    perturbed: Mapping[str, tuple[Difference, ...]]


def compare_models(
    a: pd.DataFrame, b: pd.DataFrame, *, names: tuple[str, str] = ("A", "B"), n_boot: int = DRAWS
) -> Comparison:
    """Compares two predictions tables on the rows they share, by file name and perturbation.

    Codes of RealDamageError: no_common_photo, one_class, labels_differ, photos_differ.
    """
    both = a.merge(b, on=KEYS, suffixes=("", "_b"), validate="one_to_one")
    if both.empty:
        raise RealDamageError(
            f"{names[0]} ({len(a)} rows) and {names[1]} ({len(b)} rows) have no photo in common. "
            "Evaluate both models on the same manifest and split.",
            code="no_common_photo",
        )
    _check_same(both, names)
    scored = both[both["score"].notna() & both["score_b"].notna()].reset_index(drop=True)
    as_is = scored[scored["perturbation"] == ""]
    first = as_is if len(as_is) else scored
    if first["label"].nunique() < 2:
        raise RealDamageError(
            f"{names[0]} and {names[1]} share {len(first)} photos with scores, but not of both "
            "classes. Evaluate both models on real and synthetic photos.",
            code="one_class",
        )
    perturbed = {
        str(name): _differences(rows, n_boot)
        for name, rows in scored.groupby("perturbation", sort=False)
        if name and len(as_is)
    }
    one_side = ScoredPhotos(first, n_boot=0)
    return Comparison(
        *names,
        n=len(first),
        n_real=int(one_side.real.sum()),
        n_damaged=int(one_side.damaged.sum()),
        n_groups=len(set(one_side.groups)),
        only_a=len(a) - len(both),
        only_b=len(b) - len(both),
        unscored=len(both) - len(scored),
        figures=_differences(first, n_boot),
        perturbed=perturbed,
    )


def _differences(both: pd.DataFrame, n_boot: int) -> tuple[Difference, ...]:
    """All of `FIGURES` for joined rows of one perturbation; B's columns end in `_b`."""
    own = {f"{column}_b": column for column in ("score", "probability", "outcome", "reasons")}
    of_b = both.drop(columns=list(own.values())).rename(columns=own)
    a, b = (ScoredPhotos(table, n_boot=n_boot) for table in (both, of_b))
    return tuple(_difference(a, b, figure) for figure in FIGURES)


def _difference(a: ScoredPhotos, b: ScoredPhotos, figure: str) -> Difference:
    title, higher_is_better = FIGURES[figure]
    key, mask, against = {
        "pairs": ("edit_higher", a.synthetic, a.real),
        "false_alarms": ("called_synthetic", a.damaged, a.damaged),
        "missed": ("called_real", a.synthetic, a.synthetic),
        "review": ("review", a.everything, a.everything),
    }.get(figure, (figure, a.synthetic, a.damaged if figure in RATES else a.real))
    missing = {name: side.missing(key, mask, against) for name, side in (("A", a), ("B", b))}
    if any(missing.values()):
        reason = "; ".join(f"{name}: {why}" for name, why in missing.items() if why)
        return Difference(figure, title, higher_is_better, reason=reason)
    of_a, of_b = (side.draw(key, mask, against) for side in (a, b))
    values = (float(of_a[0]), float(of_b[0]), float(of_b[0] - of_a[0]))
    known = Difference(figure, title, higher_is_better, *values, standing="no clear difference")
    low, high = (float(end) for end in percentile_interval(of_b[1:] - of_a[1:]))
    if (n_groups := len(set(a.groups))) < MIN_GROUPS or math.isnan(low):
        few = f"{n_groups} groups of photos; an interval needs at least {MIN_GROUPS}"
        return replace(known, reason=few)
    if low <= 0 <= high:
        return replace(known, low=low, high=high)
    better = (low > 0) == higher_is_better
    return replace(known, low=low, high=high, standing="better" if better else "worse")


def _check_same(both: pd.DataFrame, names: tuple[str, str]) -> None:
    differ = both.loc[(both["label"] != both["label_b"]) | (both["label"] == ""), "file_name"]
    if len(differ):
        raise RealDamageError(
            f"{differ.iat[0]}: {names[0]} and {names[1]} need the same label for it. Evaluate both "
            "models on the same manifest.",
            code="labels_differ",
        )
    digest, other = both["photo_sha256"], both["photo_sha256_b"]
    named = (both["perturbation"] == "") & (digest != "") & (other != "")
    changed = both.loc[named & (digest != other), "file_name"]
    if len(changed):
        raise RealDamageError(
            f"{changed.iat[0]}: another photo of the same name (its digest differs between "
            f"{names[0]} and {names[1]}; {len(changed)} such photos). Evaluate both models on the "
            "same files.",
            code="photos_differ",
        )
