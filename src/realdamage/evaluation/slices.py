"""Where a model fails: the figures per generator, kind, damage, mask area, source, condition and perturbation, and
across two or three of them; a slice that holds too few photos says so instead of printing a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.intervals import DRAWS
from realdamage.data.vocabulary import CONDITIONS, DAMAGES, SPLITS
from realdamage.errors import UsageError
from realdamage.evaluation.metrics import MIN_PHOTOS, has_thresholds, labelled_and_scored
from realdamage.evaluation.predictions import group_ids
from realdamage.evaluation.resampling import (
    GroupDraws,
    Rows,
    percentile_interval,
    rate_interval,
    share_interval,
)

SLICE_KEYS = (
    "generator",
    "family",
    "kind",
    "damage",
    "mask_area",
    "source",
    "condition",
    "perturbation",
    "split",
)
# Real photos have no value of these, so all of them are the other side.
SYNTHETIC_KEYS = ("generator", "family", "mask_area")
STANDARD_SLICES = (
    *(
        ("kind",),
        ("generator",),
        ("family",),
        ("damage",),
        ("mask_area",),
        ("source",),
        ("condition",),
    ),
    *(
        ("perturbation",),
        ("kind", "damage"),
        ("generator", "perturbation"),
        ("damage", "perturbation"),
    ),
    *(("damage", "mask_area"), ("damage", "mask_area", "perturbation")),
)
FPR = 0.01
# As many negatives as a rate of 1% takes: `damage` falls back on all really damaged photos below.
MIN_NEGATIVES = math.ceil(1 / FPR)
CLEAN = "clean"

_AREA_EDGES = (0.0, 0.01, 0.05, 0.2, 0.5)
_AREA_NAMES = ("up to 1%", "1–5%", "5–20%", "20–50%", "over 50%")
_EMPTY = {"mask_area": "(no mask)", "damage": "(none)", "perturbation": CLEAN}
# `pasted` beside `ai_region`: the same edits without any network, so the difference is what the generator adds.
_ORDER: dict[str, Sequence[str]] = {
    "kind": ("original", "damaged", "annotated", "ai_region", "pasted", "ai_whole"),
    "damage": DAMAGES,
    "condition": CONDITIONS,
    "mask_area": _AREA_NAMES,
    "split": SPLITS,
}
_FIGURES = ("auroc", "tpr_at_fpr_1")


def slice_table(
    predictions: pd.DataFrame, by: Sequence[str], *, n_boot: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """One row per combination of the values of `by` (of `SLICE_KEYS`) that occurs among the scored photos.

    Columns: those of `by` as text; n photos of the slice, from n_groups; n_real and n_synthetic: the photos that auroc
    and tpr_at_fpr_1 compare, each with a 95% interval by bootstrap over groups (`_low`, `_high`);
    called_synthetic, with the interval of Clopper and Pearson, and called_real: shares of the slice's own photos that
    the shipped thresholds called so, over `called_of`: its real photos (false alarms) where it has any, else its
    synthetic ones; note: what was compared when it is not obvious, and why a figure is NaN.

    What a slice is compared with: its synthetic photos with the real ones of the same source, condition and
    perturbation, or with all real ones under the same perturbation where there are not even 5; generator, family and
    mask area say nothing about real photos. For `damage`, with the really damaged photos of that damage when there are
    at least 100, else with all really damaged ones. A slice of real photos alone is compared with all synthetic ones
    likewise.
    Without "perturbation" in `by`, only the photos as they are count (or the only perturbation of the table).
    A figure takes at least 5 photos of each class, tpr_at_fpr_1 100 real ones, an interval two groups of each class.

    Raises UsageError: an unknown key, or several perturbations without the photos as they are; RealDamageError: no
    predictions table, a photo without label.
    """
    return _Slices(predictions, n_boot, seed).table(by)


def standard_slices(
    predictions: pd.DataFrame, *, n_boot: int = DRAWS, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """`slice_table` by each of `STANDARD_SLICES`, named like "kind × damage"; those that the photos say nothing about
    are left out: a key that no photo has, a perturbation when there is one only. Raises as `slice_table`."""
    slices = _Slices(predictions, n_boot, seed)
    return {" × ".join(by): slices.table(by) for by in STANDARD_SLICES if slices.tells(by)}


def json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows for a JSON file: NaN becomes None."""
    rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
    return [{str(key): value for key, value in row.items()} for row in rows]


class _Slices:
    """The scored photos as arrays, and the draws that all tables share."""

    def __init__(self, predictions: pd.DataFrame, n_boot: int, seed: int) -> None:
        self.photos = labelled_and_scored(predictions)
        self.values = {key: _values(self.photos, key) for key in SLICE_KEYS}
        # Perturbations stand in the order of the file, which is that of the suite.
        suite = [name for name in dict.fromkeys(self.values["perturbation"]) if name != CLEAN]
        self.order = {
            key: {name: rank for rank, name in enumerate(names)} for key, names in _ORDER.items()
        }
        self.order["perturbation"] = {name: rank for rank, name in enumerate([CLEAN, *suite])}
        self.parts = (
            pd.Series(self.values["perturbation"]).groupby(self.values["perturbation"]).indices
        )
        self.outcome = self.photos["outcome"].to_numpy(dtype=object)
        self.judged = has_thresholds(self.photos)
        self.scores = self.photos["score"].to_numpy(dtype=np.float64)
        self.synthetic = (self.photos["label"] == "synthetic").to_numpy()
        self.damaged = ~self.synthetic & (self.photos["kind"] == "damaged").to_numpy()
        self.draws = GroupDraws(group_ids(self.photos).to_numpy(), n_boot=n_boot, seed=seed)

    def tells(self, by: Sequence[str]) -> bool:
        return bool(len(self.photos)) and all(
            len(self.order[key]) > 1
            if key == "perturbation"
            else bool((self.values[key] != _empty(key)).any())
            for key in by
        )

    def table(self, by: Sequence[str]) -> pd.DataFrame:
        unknown = [key for key in by if key not in SLICE_KEYS]
        if unknown or not by or len(set(by)) < len(by):
            raise UsageError(
                f"by={list(by)}: name one or more of {', '.join(SLICE_KEYS)}, each once"
            )
        counted = np.ones(len(self.photos), dtype=bool)
        if "perturbation" not in by and len(set(self.values["perturbation"])) > 1:
            counted &= self.values["perturbation"] == CLEAN
            if not counted.any():
                raise UsageError(
                    f"by={list(by)}: the photos are there under several perturbations and never as they are; name "
                    '"perturbation" too, or score the photos as they are'
                )
        if any(key in SYNTHETIC_KEYS for key in by):
            counted &= self.synthetic
        rows = []
        within = np.flatnonzero(counted)
        keys = pd.DataFrame({key: self.values[key][within] for key in by})
        for key, own in keys.groupby(list(by), sort=False).indices.items():
            values = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
            rows.append({**values, **self._row(values, within[own])})
        rows.sort(key=lambda row: tuple(self._rank(key, row[key]) for key in by))
        return pd.DataFrame(rows, columns=[*by, *_COLUMNS])

    def _rank(self, key: str, value: str) -> tuple[int, str]:
        order = self.order.get(key, {})
        return order.get(value, len(order) + (value == _empty(key))), value

    def _row(self, values: dict[str, str], own: Rows) -> dict[str, Any]:
        notes: list[str] = []
        if self.synthetic[own].any():
            positives, negatives = own[self.synthetic[own]], self._others(values, own, False, notes)
        else:
            positives, negatives = self._others(values, own, True, notes), own
        row = {"n": len(own), "n_real": len(negatives), "n_synthetic": len(positives)}
        row["n_groups"] = self.draws.n_groups(own)
        figures = self._figures(positives, negatives, notes)
        called = self._called(own, notes)
        return {**row, **figures, **called, "note": "; ".join(notes)}

    def _others(self, values: dict[str, str], own: Rows, synthetic: bool, notes: list[str]) -> Rows:
        """The photos of the other class that a slice is compared with."""
        name = "synthetic" if synthetic else "real"
        within = self.parts[self.values["perturbation"][own[0]]]
        found: Rows = within[self.synthetic[within] == synthetic]
        for key, value in values.items():
            if key in (*SYNTHETIC_KEYS, "kind", "perturbation", "damage"):
                continue
            alike: Rows = found[self.values[key][found] == value]
            if len(alike) < MIN_PHOTOS:
                notes.append(
                    f"{len(alike) or 'no'} {name} {_photos(alike)} of this {key}: compared with all"
                )
            found = alike if len(alike) >= MIN_PHOTOS else found
        damage = values.get("damage", _EMPTY["damage"])
        if damage == _EMPTY["damage"]:
            return found
        alike = found[self.values["damage"][found] == damage]
        if synthetic:
            if len(alike) < MIN_PHOTOS:
                notes.append(
                    f"{len(alike) or 'no'} synthetic {_photos(alike)} of this damage: compared with all"
                )
            return alike if len(alike) >= MIN_PHOTOS else found
        return self._really_damaged(found, alike, notes)

    def _really_damaged(self, found: Rows, alike: Rows, notes: list[str]) -> Rows:
        damaged: Rows = found[self.damaged[found]]
        alike = alike[self.damaged[alike]]
        if len(alike) >= MIN_NEGATIVES:
            notes.append(f"compared with the {len(alike)} really damaged photos of this damage")
            return alike
        if len(damaged) >= MIN_PHOTOS:
            notes.append(
                f"compared with all {len(damaged)} really damaged photos ({len(alike)} of this damage)"
            )
            return damaged
        notes.append(
            f"{len(damaged) or 'no'} really damaged {_photos(damaged)}: compared with all real ones"
        )
        return found

    def _figures(self, positives: Rows, negatives: Rows, notes: list[str]) -> dict[str, float]:
        row = dict.fromkeys(
            [key + end for key in _FIGURES for end in ("", "_low", "_high")], math.nan
        )
        if min(len(positives), len(negatives)) < MIN_PHOTOS:
            notes.append(
                f"{len(positives)} synthetic and {len(negatives)} real photos, too few for a figure "
                f"(at least {MIN_PHOTOS} of each)"
            )
            return row
        draws = self.draws.roc(self.scores, positives, negatives, (FPR,))
        measured: tuple[str, ...] = _FIGURES
        if len(negatives) < MIN_NEGATIVES:
            notes.append(
                f"{len(negatives)} real photos, too few for a rate of 1% (at least {MIN_NEGATIVES})"
            )
            measured = ("auroc",)
        for key, figure in zip(measured, draws, strict=False):
            row[key] = float(figure[0])
        n_groups = self.draws.n_groups(positives)
        if min(n_groups, self.draws.n_groups(negatives)) < 2:
            notes.append("one class comes from a single group, so there is no interval")
            return row
        row["auroc_low"], row["auroc_high"] = percentile_interval(draws[0, 1:])
        if len(measured) > 1:
            row["tpr_at_fpr_1_low"], row["tpr_at_fpr_1_high"] = rate_interval(draws[1], n_groups)
        return row

    def _called(self, own: Rows, notes: list[str]) -> dict[str, Any]:
        real = own[~self.synthetic[own]]
        photos = real if len(real) else own
        row: dict[str, Any] = {"called_of": "real" if len(real) else "synthetic"}
        if not self.judged[photos].any():
            notes.append("the model has no thresholds")
            return row
        outcome = self.outcome[photos]
        called = int((outcome == "synthetic").sum())
        low, high = share_interval(called, len(photos))
        row |= {
            "called_synthetic": called / len(photos),
            "called_synthetic_low": low,
            "called_synthetic_high": high,
        }
        return {**row, "called_real": float((outcome == "real").mean())}


_COLUMNS = (
    *("n", "n_real", "n_synthetic", "n_groups"),
    *(key + end for key in (*_FIGURES, "called_synthetic") for end in ("", "_low", "_high")),
    *("called_real", "called_of", "note"),
)


def _values(photos: pd.DataFrame, key: str) -> npt.NDArray[np.object_]:
    """What a table prints for each photo; a name in brackets where there is no value, so also for real photos where
    only synthetic ones can have one."""
    if key not in photos.columns:  # a table made before the column was
        return np.full(len(photos), _empty(key), dtype=object)
    given = photos[key]
    if key == "mask_area":
        bins = pd.cut(
            pd.to_numeric(given), [*_AREA_EDGES, math.inf], labels=_AREA_NAMES, include_lowest=True
        )
        given = bins.astype(object).where(bins.notna(), "")
    if key in SYNTHETIC_KEYS:
        given = given.where(photos["label"] == "synthetic", "")
    return np.asarray(given.where(given != "", _empty(key)), dtype=object)


def _photos(rows: Rows) -> str:
    return "photo" if len(rows) < 2 else "photos"


def _empty(key: str) -> str:
    return _EMPTY.get(key, "(not named)")
