"""Is model B better than model A? Both are measured on the same photos, and what is judged is the difference of their
figures with an interval: two intervals that overlap would not tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.intervals import DRAWS
from realdamage.errors import RealDamageError
from realdamage.evaluation.folder import find_predictions
from realdamage.evaluation.metrics import has_thresholds
from realdamage.evaluation.predictions import check_predictions, group_ids, read_predictions
from realdamage.evaluation.resampling import Floats, GroupDraws, percentile_interval

Standing = Literal["better", "worse", "not told apart", "not measured"]
Flags = npt.NDArray[np.bool_]

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
_LEAST = {
    "tpr_at_fpr_1": 100,
    "tpr_at_fpr_5": 20,
}  # really damaged photos: one false alarm is then at most the rate


@dataclass(frozen=True)
class Difference:
    """One figure of both models and b − a; None with a `reason` where it is not measured.

    low, high: 95% interval of the difference, None from fewer than `MIN_GROUPS` groups. standing: of B beside A.
    """

    figure: str
    title: str
    higher_is_better: bool
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    standing: Standing
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What to conclude, in plain words."""
        if self.standing == "not measured":
            return f"not measured: {self.reason}"
        if self.standing == "not told apart":
            return f"A and B are not told apart{f': {self.reason}' if self.reason else ' at 95%'}"
        return f"B is {self.standing} at 95%"


@dataclass(frozen=True)
class Flip:
    """A photo that the two models call differently. gain: True where B is nearer to the truth."""

    file_name: str
    label: str
    kind: str
    a_outcome: str
    b_outcome: str
    a_score: float
    b_score: float
    gain: bool


@dataclass(frozen=True)
class Comparison:
    """Two models on the photos that both have judged; `a`, `b`: what they are called.

    n, n_groups: of the photos as they are; only_a, only_b, unscored: rows left out, because the other side lacks the
    photo or one side has no score for it. perturbed: the same figures, perturbation by perturbation.
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
    flips: tuple[Flip, ...]

    @property
    def worse(self) -> tuple[Difference, ...]:
        """The figures, of photos as they are, in which B is worse."""
        return tuple(figure for figure in self.figures if figure.standing == "worse")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; each figure carries its sentence."""
        values = asdict(self)
        values["figures"] = _records(self.figures)
        values["perturbed"] = {name: _records(figures) for name, figures in self.perturbed.items()}
        return values


def compare_models(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    names: tuple[str, str] = ("A", "B"),
    n_boot: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compares two predictions tables (see `read_predictions`) on the rows they share, by file name and perturbation.

    Whole groups are drawn, the same ones for both models (paired percentile bootstrap, Efron & Tibshirani 1993).
    Raises RealDamageError: no row in common, a shared photo whose label is missing or differs, or that is another
    photo of the same name; one class only.
    """
    for table, name in zip((a, b), names, strict=True):
        check_predictions(table, name)
    both = a.merge(b, on=KEYS, suffixes=("", "_b"), validate="one_to_one")
    if both.empty:
        raise RealDamageError(
            f"{names[0]} ({_examples(a)}) and {names[1]} ({_examples(b)}) have no photo in common, so nothing can be "
            "compared. Evaluate both models on the same manifest and split."
        )
    _check_same(both, names)
    scored = both[both["score"].notna() & both["score_b"].notna()].reset_index(drop=True)
    as_is = scored[scored["perturbation"] == ""]
    first = as_is if len(as_is) else scored
    if first["label"].nunique() < 2:
        raise RealDamageError(
            f"{names[0]} and {names[1]} share {len(first)} photos with scores, but not of both classes. Evaluate both "
            "models on real and synthetic photos."
        )
    perturbed = {
        str(name): rows
        for name, rows in scored.groupby("perturbation", sort=False)
        if name and rows is not first
    }
    return Comparison(
        *names,
        n=len(first),
        n_real=int((first["label"] == "real").sum()),
        n_damaged=int(_damaged(first).sum()),
        n_groups=int(group_ids(first).nunique()),
        only_a=len(a) - len(both),
        only_b=len(b) - len(both),
        unscored=len(both) - len(scored),
        figures=differences(first, n_boot=n_boot, seed=seed),
        perturbed={
            name: differences(rows, n_boot=n_boot, seed=seed) for name, rows in perturbed.items()
        },
        flips=_flips(first),
    )


def differences(
    both: pd.DataFrame, *, n_boot: int = DRAWS, seed: int = 0
) -> tuple[Difference, ...]:
    """All of `FIGURES` for joined rows of one perturbation; B's columns end in `_b`."""
    reasons = _reasons(both)
    draws = GroupDraws(group_ids(both).to_numpy(), n_boot=n_boot, seed=seed)
    of_a, of_b = (_figures(both, suffix, draws) for suffix in ("", "_b"))
    n_groups = draws.n_groups(np.arange(len(both)))
    few = f"{n_groups} groups of photos; an interval takes at least {MIN_GROUPS}"
    rows = []
    for index, (figure, (title, higher)) in enumerate(FIGURES.items()):
        a, b = float(of_a[index, 0]), float(of_b[index, 0])
        if figure in reasons or math.isnan(a) or math.isnan(b):
            reason = reasons.get(figure, "photos of one class are missing")
            rows.append(
                Difference(
                    figure, title, higher, None, None, None, None, None, "not measured", reason
                )
            )
            continue
        ends = percentile_interval(of_b[index, 1:] - of_a[index, 1:])
        told = n_groups >= MIN_GROUPS and not math.isnan(ends[0])
        low, high = ends if told else (None, None)
        standing: Standing = "not told apart"
        if low is not None and high is not None and (low > 0 or high < 0):
            standing = "better" if (low > 0) == higher else "worse"
        rows.append(
            Difference(figure, title, higher, a, b, b - a, low, high, standing, "" if told else few)
        )
    return tuple(rows)


def read_sides(a: str | Path, b: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables, from evaluation folders or predictions files. Raises UsageError, RealDamageError."""
    return read_predictions(find_predictions(a)), read_predictions(find_predictions(b))


def _figures(both: pd.DataFrame, suffix: str, draws: GroupDraws) -> Floats:
    """One model's figures, [those of `FIGURES`, 1 + draws], the sample's first; NaN where undefined."""
    synthetic, damaged = (both["label"] == "synthetic").to_numpy(), _damaged(both).to_numpy()
    score = both[f"score{suffix}"].to_numpy(dtype=np.float64)
    outcome = both[f"outcome{suffix}"].to_numpy()
    probability = both[f"probability{suffix}"].to_numpy(dtype=np.float64)
    own = _pair_rows(both)
    above = (np.sign(score - score[np.maximum(own, 0)]) + 1) / 2  # ties count half

    def against(negative: Flags, *fprs: float) -> Floats:
        return draws.roc(score, np.flatnonzero(synthetic), np.flatnonzero(negative), fprs)

    def share(values: npt.NDArray[Any], of: Flags) -> Floats:
        return draws.share(values[of], np.flatnonzero(of))

    everything = np.ones(len(both), dtype=bool)
    called = outcome == "synthetic"
    return np.stack(
        [
            against(~synthetic)[0],
            *against(damaged, 0.01, 0.05)[1:],
            (share(called, synthetic) + share(~called, ~synthetic)) / 2,
            share(called, damaged),
            share(outcome == "real", synthetic),
            share(outcome == "review", everything),
            share((probability - synthetic) ** 2, everything),
            share(above, own >= 0),
        ]
    )


def _pair_rows(both: pd.DataFrame) -> npt.NDArray[np.int64]:
    """For each synthetic photo the position of its own original; -1 where there is none."""
    positions = {name: index for index, name in enumerate(both["file_name"])}
    named = zip(both["pair"], both["label"], strict=True)
    return np.array(
        [positions.get(pair, -1) if pair and label == "synthetic" else -1 for pair, label in named],
        dtype=np.int64,
    )


def _damaged(both: pd.DataFrame) -> pd.Series:
    return (both["label"] == "real") & (both["kind"] == "damaged")


def _reasons(both: pd.DataFrame) -> dict[str, str]:
    """Why a figure cannot be measured on these rows, by figure."""
    reasons = {}
    damaged = int(_damaged(both).sum())
    for figure, least in _LEAST.items():
        if damaged < least:
            reasons[figure] = f"{damaged} really damaged photos; this rate takes at least {least}"
    if not damaged:
        reasons["false_alarms"] = "no really damaged photo"
    for name, suffix in (("A", ""), ("B", "_b")):
        side = both[[f"reasons{suffix}"]].set_axis(["reasons"], axis=1)
        if not has_thresholds(side).all() or (both[f"outcome{suffix}"] == "").any():
            for figure in ("balanced_at_thresholds", "false_alarms", "missed", "review"):
                reasons[figure] = (
                    f"{name} has no thresholds; run `realdamage calibrate` on it and evaluate again"
                )
        if both[f"probability{suffix}"].isna().any():
            reasons["brier"] = (
                f"{name} gave no probabilities; run `realdamage calibrate` on it and evaluate again"
            )
    if not (_pair_rows(both) >= 0).any():
        reasons["pairs"] = "no edit stands beside its own original"
    return reasons


def _flips(both: pd.DataFrame) -> tuple[Flip, ...]:
    """The photos whose outcome differs, those that B turned for the worse first."""
    changed = both[
        (both["outcome"] != both["outcome_b"]) & (both["outcome"] != "") & (both["outcome_b"] != "")
    ]
    step = {"real": 0, "review": 1, "synthetic": 2}
    flips = []
    for row in changed.to_dict("records"):
        rise = step[row["outcome_b"]] - step[row["outcome"]]
        flips.append(
            Flip(
                file_name=str(row["file_name"]),
                label=str(row["label"]),
                kind=str(row["kind"]),
                a_outcome=str(row["outcome"]),
                b_outcome=str(row["outcome_b"]),
                a_score=float(row["score"]),
                b_score=float(row["score_b"]),
                gain=(rise > 0) == (row["label"] == "synthetic"),
            )
        )
    return tuple(
        sorted(
            flips, key=lambda flip: (flip.gain, flip.kind != "damaged", flip.label, flip.file_name)
        )
    )


def _check_same(both: pd.DataFrame, names: tuple[str, str]) -> None:
    for row in both[(both["label"] != both["label_b"]) | (both["label"] == "")].to_dict("records"):
        raise RealDamageError(
            f"{row['file_name']}: {names[0]} has label {row['label']!r}, {names[1]} has {row['label_b']!r}. Both need "
            "the same one: evaluate both models on the same manifest."
        )
    digest, other = both["photo_sha256"], both["photo_sha256_b"]
    changed = both[
        (both["perturbation"] == "") & (digest != other) & (digest != "") & (other != "")
    ]
    if len(changed):
        raise RealDamageError(
            f"{changed['file_name'].iat[0]}: another photo of the same name (its digest differs between {names[0]} and "
            f"{names[1]}; {len(changed)} such photos). Evaluate both models on the same files."
        )


def _examples(table: pd.DataFrame) -> str:
    return f"{len(table)} rows, such as {table['file_name'].iat[0]!r}" if len(table) else "no rows"


def _records(figures: tuple[Difference, ...]) -> list[dict[str, Any]]:
    return [{**asdict(figure), "sentence": figure.sentence} for figure in figures]
