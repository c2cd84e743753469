"""Figures of folds, each trained without some families (or sources): on what was left out, value by value, and mean and
worst over the folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.manifest import Manifest
from realdamage.errors import ConfigError, RealDamageError
from realdamage.evaluation.left_out_mean import DRAWN, MeanOverFolds
from realdamage.evaluation.localisation import localisation_metrics
from realdamage.evaluation.metrics import MIN_PHOTOS, labelled_and_scored
from realdamage.evaluation.pairs import pair_differences, pair_figures
from realdamage.evaluation.predictions import check_against_manifest, group_ids
from realdamage.evaluation.resampling import (
    GroupDraws,
    Rows,
    percentile_interval,
    rate_interval,
    share_interval,
)
from realdamage.evaluation.robustness import ScoredSuite
from realdamage.evaluation.slices import FPR, MIN_NEGATIVES

ALL, OTHERS, AS_IT_IS, MEAN, WORST = "all", "others", "none", "mean", "worst"
FIGURES = ("auroc", "tpr_at_fpr_1", "edit_higher", "best_f1")
COLUMNS = (
    *("fold", "left_out", "perturbation", "n_real", "n_synthetic"),
    *(key + end for key in ("auroc", "tpr_at_fpr_1") for end in ("", "_low", "_high")),
    *("n_pairs", "edit_higher", "edit_higher_low", "edit_higher_high"),
    *("n_localised", "best_f1", "best_f1_low", "best_f1_high", "baseline_f1"),
    *("note", "model_version", "graph_sha256"),
)


@dataclass(frozen=True, eq=False)
class Fold:
    """A finished fold: `left_out`, values of the manifest's `column` that its model was not trained on; `localisation`:
    what `localisation_rows` wrote down when it was scored, empty for folds that were scored otherwise."""

    name: str
    column: str
    left_out: tuple[str, ...]
    predictions: pd.DataFrame
    localisation: Sequence[Mapping[str, Any]]
    model_version: str
    graph_sha256: str


def photos_of_fold(manifest: Manifest, column: str, values: Sequence[str]) -> Manifest:
    """The test photos that a fold is scored on: those with the left-out values and, where no real photo of the set has
    a value in `column` (families are no matter of real photos), all real ones. Raises ConfigError: no such column."""
    table = manifest.table
    chosen = _values(manifest, column).isin(values)
    if not _real_have(manifest, column):
        chosen |= table["label"] == "real"
    return manifest.subset(chosen & (table["split"] == "test"))


def localisation_rows(
    scored: ScoredSuite, manifest: Manifest, column: str, values: Sequence[str], *, seed: int = 0
) -> list[dict[str, Any]]:
    """How well the heat maps find region edits, for each part of a fold (`left_out`) under each perturbation: n_photos,
    best_f1 with the ends of its 95% interval (low, high) and baseline_f1; see `localisation_metrics`."""
    photos = scored.predictions.assign(value=_values_of(scored.predictions, manifest, column))
    edits = photos[photos["kind"] == "ai_region"]
    without_kinds = photos.assign(kind="")  # there is only one, which would be measured twice
    rows: list[dict[str, Any]] = []
    for name in scored.suite.names:
        evidence = scored.localisation(name)
        for part, own in _parts(photos, values).items():
            chosen = set(edits.loc[edits["value"].isin(own), "file_name"])
            painted = [photo for photo in evidence if photo.file_name in chosen]
            found = localisation_metrics(painted, without_kinds, seed=seed)
            low, high = found["intervals"]["best_f1"] or (None, None)
            figures = {key: found[key] for key in ("n_photos", "best_f1", "baseline_f1")}
            rows.append(
                {
                    "left_out": part,
                    "perturbation": name or AS_IT_IS,
                    **figures,
                    "low": low,
                    "high": high,
                }
            )
    return rows


def left_out_table(folds: Sequence[Fold], manifest: Manifest, *, seed: int = 0) -> pd.DataFrame:
    """One row per fold, left-out value and perturbation ("none": photos as they are), then per perturbation the mean
    and the worst over the folds; `COLUMNS`.

    left_out: "all" that the fold leaves out; one value; "others", the values with fewer than 5 scored synthetic photos,
    together. Their synthetic photos are compared with the fold's real ones (with those of the same value where real
    photos have values, unless they are fewer than 5). auroc; tpr_at_fpr_1 over really damaged photos, at least 100;
    edit_higher: share of the n_pairs, at least 5, in which the edit scores higher than its original; best_f1 over the
    n_localised region edits, and baseline_f1 of a map that calls every patch painted. All with 95% intervals over
    groups (`_low`, `_high`): of a mean by draws that all folds share (`MeanOverFolds`; best_f1 has none), of a worst
    those of its fold. NaN where undefined; `note` says why, and in the rows "worst" which fold it was.

    Raises RealDamageError: a photo that the manifest lacks or labels otherwise, no synthetic photo with a left-out
    value; ConfigError: no such column.
    """
    rows: list[dict[str, Any]] = []
    counted_photos: dict[str, pd.DataFrame] = {}
    for fold in folds:
        check_against_manifest(fold.predictions, manifest)
        photos = labelled_and_scored(fold.predictions)
        photos = photos.assign(value=_values_of(photos, manifest, fold.column))
        by_value = _real_have(manifest, fold.column)
        counted = photos["value"].isin(fold.left_out) | (
            (photos["label"] == "real") & (not by_value)
        )
        photos = photos[counted].reset_index(drop=True)
        if not (photos["label"] == "synthetic").any():
            raise RealDamageError(
                f"fold {fold.name}: none of its scored photos is synthetic with {fold.column} "
                f"{' or '.join(fold.left_out)}. Score its test photos, which have them."
            )
        rows += _Figures(fold, photos, by_value, seed).rows()
        counted_photos[fold.name] = photos
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return pd.concat(
        [table, pd.DataFrame(_over_folds(table, counted_photos, seed), columns=table.columns)],
        ignore_index=True,
    )


class _Figures:
    """The scored photos of one fold as arrays, and the draws that all its figures share."""

    def __init__(self, fold: Fold, photos: pd.DataFrame, by_value: bool, seed: int) -> None:
        self.fold, self.photos, self.by_value, self.seed = fold, photos, by_value, seed
        self.scores = photos["score"].to_numpy(dtype=np.float64)
        self.synthetic = (photos["label"] == "synthetic").to_numpy()
        self.damaged = ~self.synthetic & (photos["kind"] == "damaged").to_numpy()
        self.draws = GroupDraws(group_ids(photos).to_numpy(), seed=seed)
        self.localised = {(row["left_out"], row["perturbation"]): row for row in fold.localisation}

    def rows(self) -> list[dict[str, Any]]:
        under = self.photos["perturbation"].to_numpy()
        names = sorted(
            dict.fromkeys(under), key=lambda name: name != ""
        )  # stable: then as in the file
        parts = _parts(self.photos, self.fold.left_out)
        return [
            self._row(part, own, name, under == name)
            for part, own in parts.items()
            for name in names
        ]

    def _row(
        self, part: str, own: Sequence[str], name: str, under: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        of_value = self.photos["value"].isin(own).to_numpy()
        notes: list[str] = []
        real = under & ~self.synthetic
        if self.by_value and part != ALL:
            alike = real & of_value
            if alike.sum() < MIN_PHOTOS:
                notes.append(f"{alike.sum()} real photos of it: compared with all of the fold")
            real = alike if alike.sum() >= MIN_PHOTOS else real
        synthetic = under & self.synthetic & of_value
        row: dict[str, Any] = {
            "fold": self.fold.name,
            "left_out": part,
            "perturbation": name or AS_IT_IS,
        }
        row |= {"n_real": int(real.sum()), "n_synthetic": int(synthetic.sum())}
        row |= self._rates(synthetic, real, notes)
        row |= self._pairs(under & (~self.synthetic | of_value), notes)
        found = self.localised.get((part, name or AS_IT_IS))
        if not found or not found["n_photos"]:
            notes.append(
                "no region edits" if found else "no heat maps were measured when it was scored"
            )
        if found:
            row |= {
                "n_localised": found["n_photos"],
                "best_f1": found["best_f1"],
                "baseline_f1": found["baseline_f1"],
            }
            row |= {"best_f1_low": found["low"], "best_f1_high": found["high"]}
        about = {"model_version": self.fold.model_version, "graph_sha256": self.fold.graph_sha256}
        return {**row, "note": "; ".join(notes), **about}

    def _rates(
        self, synthetic: npt.NDArray[np.bool_], real: npt.NDArray[np.bool_], notes: list[str]
    ) -> dict[str, float]:
        positives, negatives = np.flatnonzero(synthetic), np.flatnonzero(real)
        damaged = np.flatnonzero(real & self.damaged)
        if min(len(positives), len(negatives)) < MIN_PHOTOS:
            notes.append(f"too few photos for a figure (at least {MIN_PHOTOS} of each label)")
            return {}
        row = _with_interval("auroc", *self._against(positives, negatives, 0), None)
        if len(damaged) < MIN_NEGATIVES:
            notes.append(
                f"{len(damaged)} really damaged photos, too few for a rate of 1% (at least {MIN_NEGATIVES})"
            )
            return row
        return row | _with_interval(
            "tpr_at_fpr_1", *self._against(positives, damaged, 1), self.draws.n_groups(positives)
        )

    def _pairs(self, chosen: npt.NDArray[np.bool_], notes: list[str]) -> dict[str, Any]:
        photos = self.photos[chosen]
        found = pair_figures(photos, seed=self.seed)
        if found["n"] < MIN_PHOTOS:
            notes.append(
                f"{found['n'] or 'no'} edits with a scored original, too few for a share (at least {MIN_PHOTOS})"
            )
            return {"n_pairs": found["n"]}
        share, low, high = found["edit_higher"], found["low"], found["high"]
        if share in (0.0, 1.0):
            # Every draw says the same, which is no certainty.
            n_groups = pair_differences(photos)["group"].nunique()
            low, high = share_interval(n_groups if share else 0, n_groups)
        return {
            "n_pairs": found["n"],
            "edit_higher": share,
            "edit_higher_low": low,
            "edit_higher_high": high,
        }

    def _against(
        self, positives: Rows, negatives: Rows, figure: int
    ) -> tuple[npt.NDArray[np.float64], bool]:
        """AUROC (0) or the true positive rate at `FPR` (1) in all draws, and whether both classes have groups to draw
        from."""
        draws = self.draws.roc(self.scores, positives, negatives, (FPR,))[figure]
        return draws, min(self.draws.n_groups(positives), self.draws.n_groups(negatives)) > 1


def _with_interval(
    key: str, draws: npt.NDArray[np.float64], drawn: bool, n_groups: int | None
) -> dict[str, float]:
    """The first draw is the figure itself; with `n_groups` it is a share, see `rate_interval`."""
    if not drawn:
        return {key: float(draws[0])}
    low, high = (
        percentile_interval(draws[1:]) if n_groups is None else rate_interval(draws, n_groups)
    )
    return {key: float(draws[0]), f"{key}_low": low, f"{key}_high": high}


def _parts(photos: pd.DataFrame, left_out: Sequence[str]) -> dict[str, list[str]]:
    """The rows of a fold: the values that each of them holds."""
    own = photos[
        (photos["label"] == "synthetic") & (photos["perturbation"] == "") & photos["score"].notna()
    ]
    counts = own["value"].value_counts()
    large = [value for value in left_out if counts.get(value, 0) >= MIN_PHOTOS]
    small = [value for value in left_out if 0 < counts.get(value, 0) < MIN_PHOTOS]
    return {
        ALL: list(left_out),
        **{value: [value] for value in large},
        **({OTHERS: small} if small else {}),
    }


def _over_folds(
    table: pd.DataFrame, photos: Mapping[str, pd.DataFrame], seed: int
) -> list[dict[str, Any]]:
    """Mean and worst of the rows "all" of the folds, per perturbation; `photos`: of each fold, those that count."""
    rows: list[dict[str, Any]] = []
    over = MeanOverFolds(photos, seed=seed)
    whole = table[table["left_out"] == ALL]
    for name, own in whole.groupby("perturbation", sort=False):
        mean: dict[str, Any] = {"fold": MEAN, "left_out": ALL, "perturbation": name}
        worst: dict[str, Any] = {**mean, "fold": WORST}
        few: list[str] = []
        which: list[str] = []
        for key in FIGURES:
            told = own[own[key].notna()].astype({key: float})
            if not len(told):
                continue
            lowest = told.iloc[int(told[key].to_numpy().argmin())]
            mean[key], worst[key] = float(told[key].mean()), float(lowest[key])
            worst[f"{key}_low"], worst[f"{key}_high"] = lowest[f"{key}_low"], lowest[f"{key}_high"]
            if key in DRAWN and told[f"{key}_low"].notna().all():
                ends = over.interval(
                    key, told["fold"].tolist(), "" if name == AS_IT_IS else str(name)
                )
                mean[f"{key}_low"], mean[f"{key}_high"] = ends
            which.append(f"{key}: {lowest['fold']}")
            if key == "best_f1":
                mean["baseline_f1"] = float(told["baseline_f1"].astype(float).mean())
                worst["baseline_f1"] = float(lowest["baseline_f1"])
            if len(told) < whole["fold"].nunique():
                few.append(f"{key} over {len(told)} of {whole['fold'].nunique()} folds")
        rows += [{**mean, "note": "; ".join(few)}, {**worst, "note": "; ".join(which)}]
    return rows


def _values(manifest: Manifest, column: str) -> pd.Series:
    """Raises ConfigError: the manifest has no such column."""
    table = manifest.table
    if column not in table.columns:
        columns = ", ".join(name for name in table.columns if (table[name] != "").any())
        raise ConfigError(f"column={column}: {manifest.root} has no such column; it has {columns}")
    return table[column]


def _values_of(predictions: pd.DataFrame, manifest: Manifest, column: str) -> pd.Series:
    """The manifest's value of each row; its columns are more than those that a predictions file has."""
    values = dict(zip(manifest.table["file_name"], _values(manifest, column), strict=True))
    return predictions["file_name"].map(values)


def _real_have(manifest: Manifest, column: str) -> bool:
    real = manifest.table["label"] == "real"
    return bool((_values(manifest, column)[real] != "").any())
