"""What a detector does on families (or sources) never trained on: folds, their mean and worst.

Each fold's model was trained without some values of one column, and scored on test photos that have
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from realdamage.data.bootstrap import Floats, rate_interval
from realdamage.data.manifest import Manifest
from realdamage.errors import ConfigError, RealDamageError
from realdamage.evaluation.figures import MIN_PHOTOS, Figure, Flags, ScoredPhotos, measure
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import check_against_manifest, group_ids
from realdamage.evaluation.robustness import ScoredSuite
from realdamage.evaluation.slices import RATE, columns, joined

ALL, OTHERS, AS_IT_IS, MEAN, WORST = "all", "others", "none", "mean", "worst"
FIGURES = ("auroc", RATE, "edit_higher", "best_f1")
COLUMNS = (
    *("fold", "left_out", "perturbation", "n_real", "n_synthetic"),
    *(key + end for key in ("auroc", RATE) for end in ("", "_low", "_high")),
    *("n_pairs", "edit_higher", "edit_higher_low", "edit_higher_high"),
    *("n_localised", "best_f1", "best_f1_low", "best_f1_high", "baseline_f1"),
    *("note", "model_version", "graph_sha256"),
)


@dataclass(frozen=True, eq=False)
class Fold:
    """A finished fold.

    left_out: values of the manifest's `column` that its model was not trained on.
    localisation: its `localisation_rows`.
    """

    name: str
    column: str
    left_out: tuple[str, ...]
    predictions: pd.DataFrame
    localisation: Sequence[Mapping[str, Any]]
    model_version: str
    graph_sha256: str


def photos_of_fold(manifest: Manifest, column: str, values: Sequence[str]) -> Manifest:
    """The test photos that a fold is scored on: those with the left-out values, and all real ones.

    Where real photos have values in `column` themselves (sources, but not families), only those
    with the left-out values. Raises ConfigError: no such column (code no_column).
    """
    table = manifest.table
    chosen = column_of(manifest, column).isin(values)
    if not _real_have(manifest, column):
        chosen |= table["label"] == "real"
    return manifest.subset(chosen & (table["split"] == "test"))


def column_of(manifest: Manifest, column: str) -> pd.Series:
    """Raises ConfigError: the manifest has no such column (code no_column)."""
    table = manifest.table
    if column not in table.columns:
        known = ", ".join(name for name in table.columns if (table[name] != "").any())
        raise ConfigError(
            f"column={column}: {manifest.root} has no such column; it has {known}", code="no_column"
        )
    return table[column]


def _values_of(predictions: pd.DataFrame, manifest: Manifest, column: str) -> pd.Series:
    """The manifest's value of each row; a predictions file lacks the user's own columns."""
    names = manifest.table["file_name"]
    values = dict(zip(names, column_of(manifest, column), strict=True))
    return predictions["file_name"].map(values)


def _real_have(manifest: Manifest, column: str) -> bool:
    real = manifest.table["label"] == "real"
    return bool((column_of(manifest, column)[real] != "").any())


def _parts(photos: pd.DataFrame, left_out: Sequence[str]) -> dict[str, list[str]]:
    """The rows of a fold, with the values that each of them holds."""
    clean = (photos["perturbation"] == "") & photos["score"].notna()
    counts = photos.loc[(photos["label"] == "synthetic") & clean, "value"].value_counts()
    large = [value for value in left_out if counts.get(value, 0) >= MIN_PHOTOS]
    small = [value for value in left_out if 0 < counts.get(value, 0) < MIN_PHOTOS]
    others = {OTHERS: small} if small else {}
    return {ALL: list(left_out), **{value: [value] for value in large}, **others}


def localisation_rows(
    scored: ScoredSuite, manifest: Manifest, column: str, values: Sequence[str], *, seed: int = 0
) -> list[dict[str, Any]]:
    """How well the heat maps find region edits, for each part of a fold under each perturbation.

    Keys: left_out, perturbation, n_photos, best_f1 with its 95% interval (low, high), baseline_f1.
    """
    photos = scored.predictions.assign(value=_values_of(scored.predictions, manifest, column))
    edits = photos[photos["kind"] == "ai_region"]
    without_kinds = photos.assign(kind="")  # there is only one, which would be measured twice
    rows: list[dict[str, Any]] = []
    for name in scored.suite.names:
        evidence = scored.localisation(name)
        for part, own in _parts(photos, values).items():
            chosen = set(edits.loc[edits["value"].isin(own), "file_name"])
            of_part = [photo for photo in evidence if photo.file_name in chosen]
            found = localisation_metrics(of_part, without_kinds, seed=seed)
            low, high = found["intervals"]["best_f1"] or (None, None)
            row = {"left_out": part, "perturbation": name or AS_IT_IS, "low": low, "high": high}
            rows.append(row | {key: found[key] for key in ("n_photos", "best_f1", "baseline_f1")})
    return rows


def left_out_table(folds: Sequence[Fold], manifest: Manifest, *, seed: int = 0) -> pd.DataFrame:
    """One row per fold, left-out value and perturbation, then mean and worst; `COLUMNS`.

    left_out: "all" that the fold leaves out; one value; or "others", the values with fewer than 5
    scored synthetic photos, together. Their synthetic photos are compared with the fold's real ones
    (of the same value, where real photos have values and there are at least 5).
    edit_higher: over the n_pairs. best_f1: over the n_localised region edits; baseline_f1: of a map
    that calls every patch painted. All folds share the same draws of groups, because they share
    real photos and their errors go up and down together. The interval of a mean is over other
    photos with the same values left out; that of a worst is its fold's.

    Raises RealDamageError: a photo that the manifest lacks or labels otherwise, or no synthetic
    photo with a left-out value (code nothing_left_out).
    """
    photos = pd.concat([_photos_of(fold, manifest) for fold in folds], ignore_index=True)
    measured = _Measured(ScoredPhotos(photos, seed=seed), _real_have(manifest, folds[0].column))
    rows = [row for fold in folds for row in measured.rows(fold)]
    for name in dict.fromkeys(row["perturbation"] for row in rows):
        of_all = [row for row in rows if row["perturbation"] == name and row["left_out"] == ALL]
        rows += measured.over_folds(str(name), of_all)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _photos_of(fold: Fold, manifest: Manifest) -> pd.DataFrame:
    """The rows of a fold that count, under names that no other fold has."""
    check_against_manifest(fold.predictions, manifest)
    photos = fold.predictions
    value = _values_of(photos, manifest, fold.column)
    real = (photos["label"] == "real") & (not _real_have(manifest, fold.column))
    counted = value.isin(fold.left_out) | real
    if not (counted & (photos["label"] == "synthetic") & photos["score"].notna()).any():
        raise RealDamageError(
            f"fold {fold.name}: none of its scored photos is synthetic with {fold.column} "
            f"{' or '.join(fold.left_out)}. Score its test photos, which have them.",
            code="nothing_left_out",
        )
    pair = photos["pair"].where(photos["pair"] == "", fold.name + "/" + photos["pair"])
    named = photos.assign(
        fold=fold.name,
        value=value,
        group=group_ids(photos),
        file_name=fold.name + "/" + photos["file_name"],
        pair=pair,
    )
    return named[counted]


class _Measured:
    """The photos of all folds, and the draws behind each fold's figures."""

    def __init__(self, table: ScoredPhotos, real_have_values: bool) -> None:
        self.table, self.real_have_values = table, real_have_values
        self.drawn: dict[tuple[str, str, str], tuple[Floats, Flags]] = {}

    def rows(self, fold: Fold) -> Iterator[dict[str, Any]]:
        frame = self.table.frame
        own = frame[frame["fold"] == fold.name]
        names = sorted(dict.fromkeys(own["perturbation"]), key=lambda name: name != "")
        localised = {(row["left_out"], row["perturbation"]): row for row in fold.localisation}
        for part, values in _parts(own, fold.left_out).items():
            for name in names:
                found = localised.get((part, name or AS_IT_IS))
                yield self._row(fold, part, values, name, found)

    def _row(
        self,
        fold: Fold,
        part: str,
        values: Sequence[str],
        name: str,
        found: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        table, frame, notes = self.table, self.table.frame, []
        under = ((frame["fold"] == fold.name) & (frame["perturbation"] == name)).to_numpy()
        of_value = frame["value"].isin(values).to_numpy()
        synthetic, real = under & table.synthetic & of_value, under & table.real
        if self.real_have_values and part != ALL:
            alike = int((real & of_value).sum())
            if alike >= MIN_PHOTOS:
                real = real & of_value
            else:
                notes.append(f"{alike} real photos of it: compared with all of the fold")
        figures: dict[str, Figure] = {}
        for key, against in (("auroc", real), (RATE, real & table.damaged), ("edit_higher", real)):
            [figures[key]] = measure(table, synthetic, against, (key,))
            if part == ALL and figures[key].low is not None:
                draws = table.draw(key, synthetic, against)
                self.drawn[fold.name, name, key] = draws, table.counted(key, synthetic, against)
        auroc, rate, pairs = figures.values()
        notes += [auroc.reason or rate.reason, pairs.reason]
        row: dict[str, Any] = {
            "fold": fold.name,
            "left_out": part,
            "perturbation": name or AS_IT_IS,
            "n_real": int(real.sum()),
            "n_synthetic": int(synthetic.sum()),
            **columns(auroc),
            **({} if auroc.reason else columns(rate)),
            "n_pairs": pairs.n,
            **columns(pairs),
        }
        if found is not None:
            notes.append("" if found["n_photos"] else "no region edits")
            names = {"n_photos": "n_localised", "low": "best_f1_low", "high": "best_f1_high"}
            row |= {names.get(key, key): value for key, value in found.items()}
        about = {"model_version": fold.model_version, "graph_sha256": fold.graph_sha256}
        return {**row, "note": joined(notes), **about}

    def over_folds(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Mean and worst of the rows "all" of the folds under one perturbation."""
        mean: dict[str, Any] = {"fold": MEAN, "left_out": ALL, "perturbation": name}
        worst: dict[str, Any] = {**mean, "fold": WORST}
        few, which = [], []
        for key in FIGURES:
            known = [row for row in rows if not pd.isna(row.get(key, np.nan))]
            if not known:
                continue
            lowest = min(known, key=lambda row: float(row[key]))
            copied = [key, f"{key}_low", f"{key}_high"]
            copied += ["baseline_f1"] if key == "best_f1" else []
            worst |= {column: lowest.get(column) for column in copied}
            mean[key] = float(np.mean([row[key] for row in known]))
            if key == "best_f1":  # heat maps are not kept, so there are no draws of it
                mean["baseline_f1"] = float(np.mean([row["baseline_f1"] for row in known]))
            else:
                mean |= self._interval(key, [str(row["fold"]) for row in known], name)
            which.append(f"{key}: {lowest['fold']}")
            if len(known) < len(rows):
                few.append(f"{key} over {len(known)} of {len(rows)} folds")
        return [{**mean, "note": joined(few)}, {**worst, "note": joined(which)}]

    def _interval(self, key: str, folds: Sequence[str], name: str) -> dict[str, float]:
        """Of a mean over folds: from the mean of their draws; {} where a fold has none."""
        under = "" if name == AS_IT_IS else name
        drawn = [self.drawn.get((fold, under, key)) for fold in folds]
        known = [each for each in drawn if each is not None]
        if len(known) < len(folds):
            return {}
        counted = np.logical_or.reduce([of for _, of in known])
        n_groups = self.table.draws.n_groups(np.flatnonzero(counted))
        low, high = rate_interval(np.mean([draws for draws, _ in known], axis=0), n_groups)
        return {f"{key}_low": low, f"{key}_high": high}
