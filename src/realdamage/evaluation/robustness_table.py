"""What every perturbation costs: the same photos as they are and after it, with the same draws for both, so that the
drop has an interval of its own, far narrower than the two curves suggest."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from realdamage.data.intervals import DRAWS
from realdamage.errors import RealDamageError
from realdamage.evaluation.metrics import MIN_PHOTOS, has_thresholds, labelled_and_scored
from realdamage.evaluation.predictions import group_ids
from realdamage.evaluation.resampling import (
    Floats,
    GroupDraws,
    Rows,
    percentile_interval,
    rate_interval,
    share_interval,
)
from realdamage.evaluation.slices import CLEAN, FPR, MIN_NEGATIVES

_ENDS = ("", "_low", "_high")
COLUMNS = (
    *("perturbation", "n", "n_real", "n_damaged", "n_synthetic"),
    *(key + end for key in ("auroc", "auroc_drop", "tpr_at_fpr_1") for end in _ENDS),
    *(key + end for key in ("false_alarms", "false_alarms_all_real") for end in _ENDS),
    *("called_synthetic", "called_real", "review", "note"),
)


def robustness_table(
    predictions: pd.DataFrame, *, n_boot: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """One row per perturbation, in the order of the table, the photos as they are ("clean") first; `COLUMNS`.

    auroc, and auroc_drop: AUROC of the same photos as they are minus that after the perturbation, above 0 when it
    hurts; tpr_at_fpr_1 over the really damaged photos, or over all real ones when some perturbation has fewer than 100
    damaged ones (`note` says so). All with 95% intervals (`_low`, `_high`) by bootstrap over groups.
    At the shipped thresholds: false_alarms, the share of the n_damaged really damaged photos called synthetic, with the
    interval of Clopper and Pearson; false_alarms_all_real, the same of all n_real real photos, beside it because a
    handful of damaged ones can be spared where many others are not; its interval is by bootstrap over groups, for
    photos of one product or camera are accused together (where none or all are, Clopper and Pearson over groups).
    called_synthetic and called_real, shares of the synthetic photos; review, share of all photos.
    NaN where undefined; `note` says why.

    Raises RealDamageError: no predictions table, a photo without label, or no photo with a score.
    """
    photos = labelled_and_scored(predictions)
    if not len(photos):
        raise RealDamageError(
            "The predictions hold no photo at all with a score, so no perturbation can be measured."
        )
    return _Robustness(photos, n_boot, seed).table()


def counted_on_damaged(n_damaged: Iterable[int]) -> bool:
    """Whether the false alarms of tpr_at_fpr_1 are counted on the really damaged photos, of which the perturbations
    have so many, or else on all real ones: one sort for all rows, or the curve would jump where it changes."""
    return min(n_damaged) >= MIN_NEGATIVES


class _Robustness:
    def __init__(self, photos: pd.DataFrame, n_boot: int, seed: int) -> None:
        self.photos = photos
        self.scores = photos["score"].to_numpy(dtype=np.float64)
        self.synthetic = (photos["label"] == "synthetic").to_numpy()
        self.damaged = ~self.synthetic & (photos["kind"] == "damaged").to_numpy()
        self.outcome = photos["outcome"].to_numpy(dtype=object)
        self.judged = has_thresholds(photos)
        self.draws = GroupDraws(group_ids(photos).to_numpy(), n_boot=n_boot, seed=seed)
        parts = photos.groupby("perturbation", sort=False).indices
        self.parts = {str(name): np.asarray(rows, dtype=np.int64) for name, rows in parts.items()}
        self._measured = functools.lru_cache(maxsize=8)(self._measure)
        self.over_damaged = counted_on_damaged(
            int(self.damaged[rows].sum()) for rows in self.parts.values()
        )

    def table(self) -> pd.DataFrame:
        names = sorted(
            self.parts, key=lambda name: name != ""
        )  # stable: clean first, then as in the file
        return pd.DataFrame(
            [self._row(name, self.parts[name]) for name in names], columns=list(COLUMNS)
        )

    def _row(self, name: str, rows: Rows) -> dict[str, Any]:
        synthetic, real = rows[self.synthetic[rows]], rows[~self.synthetic[rows]]
        row: dict[str, Any] = {"perturbation": name or CLEAN, "n": len(rows)}
        row |= {
            "n_real": len(real),
            "n_damaged": int(self.damaged[rows].sum()),
            "n_synthetic": len(synthetic),
        }
        notes: list[str] = []
        if min(len(synthetic), len(real)) < MIN_PHOTOS:
            notes.append(
                f"{len(synthetic)} synthetic and {len(real)} real photos, too few for a figure "
                f"(at least {MIN_PHOTOS} of each)"
            )
        else:
            row |= _with_interval("auroc", self._draws_of(rows)[0])
            row |= self._drop(name, rows, notes)
            row |= self._rate(rows, notes)
        return {**row, **self._outcomes(rows, notes), "note": "; ".join(notes)}

    def _measure(self, selected: bytes, damaged_only: bool) -> Floats:
        rows = np.frombuffer(selected, dtype=np.int64)
        positives = rows[self.synthetic[rows]]
        negatives = rows[self.damaged[rows] if damaged_only else ~self.synthetic[rows]]
        return self.draws.roc(self.scores, positives, negatives, (FPR,))

    def _draws_of(self, rows: Rows, damaged_only: bool = False) -> Floats:
        """[2, 1 + n_boot]: AUROC and true positive rate at `FPR`. The photos as they are come up again and again."""
        return self._measured(rows.tobytes(), damaged_only)

    def _drop(self, name: str, rows: Rows, notes: list[str]) -> dict[str, float]:
        if not name:
            return {}
        names = self.photos["file_name"]
        before = self.parts.get("", np.zeros(0, dtype=np.int64))
        before = before[names.iloc[before].isin(names.iloc[rows]).to_numpy()]
        after = rows[names.iloc[rows].isin(names.iloc[before]).to_numpy()]
        if min(self.synthetic[after].sum(), (~self.synthetic[after]).sum()) < MIN_PHOTOS:
            notes.append("too few of these photos were scored as they are to tell the drop")
            return {}
        if len(after) < len(rows):
            notes.append(
                f"the drop is over the {len(after)} photos that were also scored as they are"
            )
        return _with_interval("auroc_drop", self._draws_of(before)[0] - self._draws_of(after)[0])

    def _rate(self, rows: Rows, notes: list[str]) -> dict[str, float]:
        n_real = int((~self.synthetic[rows]).sum())
        n_groups = self.draws.n_groups(rows[self.synthetic[rows]])
        if self.over_damaged:
            return _with_interval(
                "tpr_at_fpr_1", self._draws_of(rows, damaged_only=True)[1], n_groups
            )
        if n_real < MIN_NEGATIVES:
            notes.append(
                f"{n_real} real photos, too few for a rate of 1% (at least {MIN_NEGATIVES})"
            )
            return {}
        notes.append(f"TPR over all real photos, for fewer than {MIN_NEGATIVES} are really damaged")
        return _with_interval("tpr_at_fpr_1", self._draws_of(rows)[1], n_groups)

    def _outcomes(self, rows: Rows, notes: list[str]) -> dict[str, float]:
        if not self.judged[rows].any():
            notes.append("the model has no thresholds")
            return {}
        outcome = self.outcome
        row = {"review": float((outcome[rows] == "review").mean())}
        damaged, synthetic = rows[self.damaged[rows]], rows[self.synthetic[rows]]
        real = rows[~self.synthetic[rows]]
        if len(real):
            row |= self._accused_of_all(real)
        if len(damaged):
            accused = int((outcome[damaged] == "synthetic").sum())
            row["false_alarms"] = accused / len(damaged)
            row["false_alarms_low"], row["false_alarms_high"] = share_interval(
                accused, len(damaged)
            )
        else:
            notes.append("no really damaged photo, so no false alarms on real damage are told")
        if len(synthetic):
            row["called_synthetic"] = float((outcome[synthetic] == "synthetic").mean())
            row["called_real"] = float((outcome[synthetic] == "real").mean())
        return row

    def _accused_of_all(self, real: Rows) -> dict[str, float]:
        draws = self.draws.share(self.outcome[real] == "synthetic", real)
        return _with_interval("false_alarms_all_real", draws, self.draws.n_groups(real))


def _with_interval(key: str, draws: Floats, n_groups: int | None = None) -> dict[str, float]:
    """The first draw is the figure itself; with `n_groups` it is a share, see `rate_interval`."""
    low, high = (
        percentile_interval(draws[1:]) if n_groups is None else rate_interval(draws, n_groups)
    )
    return (
        {key: float(draws[0]), f"{key}_low": low, f"{key}_high": high}
        if not math.isnan(draws[0])
        else {}
    )
