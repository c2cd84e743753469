"""What a detector does on families (or sources) never trained on: folds, their mean and worst.

Each fold's model was trained without some values of one column, and scored on test photos that have
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from realdamage.data.bootstrap import Floats, rate_interval
from realdamage.data.manifest import Manifest
from realdamage.errors import ConfigError, RealDamageError
from realdamage.evaluation.figures import MIN_PHOTOS, Figure, Flags, ScoredPhotos, measure
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import group_ids
from realdamage.evaluation.robustness import ScoredSuite
from realdamage.evaluation.slices import RATE, columns, joined

ALL, AS_IT_IS, MEAN, WORST = "all", "none", "mean", "worst"
FIGURES = ("auroc", RATE, "edit_higher", "best_f1")
COLUMNS = (
    *("fold", "left_out", "perturbation", "n_real", "n_synthetic"),
    *(key + end for key in ("auroc", RATE) for end in ("", "_low", "_high")),
    *("n_pairs", "edit_higher", "edit_higher_low", "edit_higher_high"),
    *("n_localised", "best_f1", "best_f1_low", "best_f1_high", "baseline_f1"),
    *("note", "model_version", "graph_sha256"),
)
Drawn = dict[tuple[str, str, str], tuple[Floats, Flags]]
"""The draws of a figure and the photos that it counts, by fold, perturbation and key."""


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

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The rows of a fold, with the values that each of them holds."""
        return {ALL: self.left_out, **{value: (value,) for value in self.left_out}}


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


def localisation_rows(
    scored: ScoredSuite, manifest: Manifest, fold: Fold, *, seed: int = 0
) -> list[dict[str, Any]]:
    """How well the heat maps find region edits, for each part of a fold under each perturbation.

    Keys: left_out, perturbation, n_localised, best_f1 with its 95% interval, baseline_f1.
    """
    values = _values_of(scored.predictions, manifest, fold.column)
    photos = scored.predictions.assign(value=values)
    edits = photos[photos["kind"] == "ai_region"]
    rows: list[dict[str, Any]] = []
    for name in scored.suite.names:
        evidence = scored.localisation(name)
        for part, own in fold.parts.items():
            chosen = set(edits.loc[edits["value"].isin(own), "file_name"])
            of_part = [photo for photo in evidence if photo.file_name in chosen]
            found = localisation_metrics(of_part, photos, seed=seed)
            low, high = found["intervals"]["best_f1"] or (None, None)
            rows.append(
                {
                    "left_out": part,
                    "perturbation": name or AS_IT_IS,
                    "n_localised": found["n_photos"],
                    "best_f1": found["best_f1"],
                    "best_f1_low": low,
                    "best_f1_high": high,
                    "baseline_f1": found["baseline_f1"],
                }
            )
    return rows


def left_out_table(folds: Sequence[Fold], manifest: Manifest, *, seed: int = 0) -> pd.DataFrame:
    """One row per fold, left-out value and perturbation, then mean and worst; `COLUMNS`.

    left_out: "all" that the fold leaves out, or one value. Their synthetic photos are compared with
    the fold's real ones (of the same value, where real photos have values and there are at least
    5).
    edit_higher: over the n_pairs. best_f1: over the n_localised region edits; baseline_f1: of a map
    that calls every patch painted. All folds share the same draws of groups, because they share
    real photos and their errors go up and down together. The interval of a mean is over other
    photos with the same values left out; that of a worst is its fold's.

    Raises RealDamageError: no synthetic photo with a left-out value (code nothing_left_out).
    """
    table = ScoredPhotos(pd.concat([_photos_of(fold, manifest) for fold in folds]), seed=seed)
    frame = table.frame
    real_have = _real_have(manifest, folds[0].column)
    drawn: Drawn = {}
    rows = []
    for fold in folds:
        localised = {(row["left_out"], row["perturbation"]): row for row in fold.localisation}
        of_fold = (frame["fold"] == fold.name).to_numpy()
        names = sorted(dict.fromkeys(frame["perturbation"][of_fold]), key=lambda name: name != "")
        for part, values in fold.parts.items():
            for name in names:
                own = of_fold & (frame["perturbation"] == name).to_numpy()
                of_value = own & frame["value"].isin(values).to_numpy()
                real = own & table.real
                if real_have and part != ALL and (real & of_value).sum() >= MIN_PHOTOS:
                    real = real & of_value
                keep: Drawn = drawn if part == ALL else {}
                under = name or AS_IT_IS
                row = _row(table, of_value & table.synthetic, real, keep, (fold.name, under))
                found = localised.get((part, under), {})
                note = "" if found.get("n_localised", 1) else "no region edits"
                rows.append(
                    {"fold": fold.name, "left_out": part, "perturbation": under}
                    | row
                    | dict(found)
                    | {"note": joined([row["note"], note])}
                    | {"model_version": fold.model_version, "graph_sha256": fold.graph_sha256}
                )
    for name in dict.fromkeys(str(row["perturbation"]) for row in rows):
        of_all = [row for row in rows if row["perturbation"] == name and row["left_out"] == ALL]
        rows += _over_folds(table, drawn, name, of_all)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _photos_of(fold: Fold, manifest: Manifest) -> pd.DataFrame:
    """The rows of a fold that count, under names that no other fold has."""
    photos = fold.predictions
    value = _values_of(photos, manifest, fold.column)
    counted = value.isin(fold.left_out)
    if not (counted & (photos["label"] == "synthetic") & photos["score"].notna()).any():
        raise RealDamageError(
            f"fold {fold.name}: none of its scored photos is synthetic with {fold.column} "
            f"{' or '.join(fold.left_out)}. Score its test photos, which have them.",
            code="nothing_left_out",
        )
    if not _real_have(manifest, fold.column):
        counted |= photos["label"] == "real"
    pair = photos["pair"].where(photos["pair"] == "", fold.name + "/" + photos["pair"])
    named = photos.assign(
        fold=fold.name,
        value=value,
        group=group_ids(photos),
        file_name=fold.name + "/" + photos["file_name"],
        pair=pair,
    )
    return named[counted]


def _row(
    table: ScoredPhotos, synthetic: Flags, real: Flags, drawn: Drawn, about: tuple[str, str]
) -> dict[str, Any]:
    """Counts and figures of the synthetic photos against the real ones; keeps their draws."""
    figures: dict[str, Figure] = {}
    for key, against in (("auroc", real), (RATE, real & table.damaged), ("edit_higher", real)):
        [figures[key]] = measure(table, synthetic, against, (key,))
        if figures[key].low is not None:
            draws = table.draw(key, synthetic, against)
            drawn[*about, key] = draws, table.counted(key, synthetic, against)
    auroc, rate, pairs = figures.values()
    return {
        "n_real": int(real.sum()),
        "n_synthetic": int(synthetic.sum()),
        **columns(auroc),
        **({} if auroc.reason else columns(rate)),
        "n_pairs": pairs.n,
        **columns(pairs),
        "note": joined([auroc.reason or rate.reason, pairs.reason]),
    }


def _over_folds(
    table: ScoredPhotos, drawn: Drawn, name: str, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Mean and worst of the rows "all" of the folds under one perturbation."""
    mean: dict[str, Any] = {"fold": MEAN, "left_out": ALL, "perturbation": name}
    worst: dict[str, Any] = {**mean, "fold": WORST}
    few, which = [], []
    for key in FIGURES:
        known = [row for row in rows if not pd.isna(row.get(key, np.nan))]
        if not known:
            continue
        if len(known) < len(rows):
            few.append(f"{key} over {len(known)} of {len(rows)} folds")
        lowest = min(known, key=lambda row: float(row[key]))
        which.append(f"{key}: {lowest['fold']}")
        copied = (key, f"{key}_low", f"{key}_high", *["baseline_f1"] * (key == "best_f1"))
        worst |= {column: lowest.get(column) for column in copied}
        mean[key] = float(np.mean([row[key] for row in known]))
        if key == "best_f1":  # heat maps are not kept, so there are no draws of it
            mean["baseline_f1"] = float(np.mean([row["baseline_f1"] for row in known]))
            continue
        of_folds = [drawn.get((str(row["fold"]), name, key)) for row in known]
        if all(of_folds):
            draws, counted = zip(*filter(None, of_folds), strict=True)
            n_groups = table.draws.n_groups(np.flatnonzero(np.logical_or.reduce(counted)))
            ends = rate_interval(np.mean(draws, axis=0), n_groups)
            mean |= dict(zip((f"{key}_low", f"{key}_high"), ends, strict=True))
    return [{**mean, "note": joined(few)}, {**worst, "note": joined(which)}]
