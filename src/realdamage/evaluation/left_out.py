"""What a detector does on generators and sources never trained on: folds, their mean and worst.

Each fold's model was trained without some values of one or more columns, and is scored on photos
that have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from realdamage.data.bootstrap import Floats, rate_interval
from realdamage.data.manifest import Manifest
from realdamage.data.vocabulary import CODECS
from realdamage.errors import ConfigError, RealDamageError
from realdamage.evaluation.calibration import choose_policy
from realdamage.evaluation.figures import MIN_PHOTOS, Figure, Flags, ScoredPhotos, measure
from realdamage.evaluation.guarantee import Targets
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import group_ids, outcomes_by
from realdamage.evaluation.robustness import Suite
from realdamage.evaluation.slices import RATE, columns, joined

ALL, AS_IT_IS, MEAN, WORST = "all", "none", "mean", "worst"
FIGURES = ("auroc", "auroc_known", RATE, "edit_higher", "best_f1")
COLUMNS = (
    *("fold", "column", "left_out", "perturbation", "n_real", "n_synthetic"),
    *("honest_synthetic", "honest_review", "n_fakes", "fakes_found"),
    *("own_honest_synthetic", "own_honest_review", "own_fakes_found"),
    *(key + end for key in ("auroc", "auroc_known", RATE) for end in ("", "_low", "_high")),
    *("n_pairs", "edit_higher", "edit_higher_low", "edit_higher_high"),
    *("n_localised", "best_f1", "best_f1_low", "best_f1_high", "baseline_f1"),
    *("note", "model_version", "graph_sha256"),
)
_LEFT_OUT = "left_out_"  # before a column's name: the manifest's values of it
Drawn = dict[tuple[str, str, str], tuple[Floats, Flags]]
"""The draws of a figure and the photos that it counts, by fold, perturbation and key."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A finished fold.

    left_out: by column of the manifest, the values that its model was not trained on.
    localisation: its `localisation_rows`.
    """

    name: str
    left_out: Mapping[str, Sequence[str]]
    predictions: pd.DataFrame
    localisation: Sequence[Mapping[str, Any]]
    model_version: str
    graph_sha256: str

    def parts(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        """Column, name and values of each row: all values of the first column, then every value."""
        first = next(iter(self.left_out))
        yield first, ALL, self.left_out[first]
        for column, values in self.left_out.items():
            yield from ((column, value, (value,)) for value in values)


def unseen(manifest: Manifest, left_out: Mapping[str, Sequence[str]]) -> pd.Series:
    """Which photos have a left-out value. Raises ConfigError: no such column (code no_column)."""
    found = pd.Series(False, manifest.table.index)
    for column, values in left_out.items():
        found |= column_of(manifest, column).isin(values)
    return found


def photos_of_fold(manifest: Manifest, left_out: Mapping[str, Sequence[str]]) -> Manifest:
    """The photos that a fold is scored on.

    Of a left-out source (a column that real photos have values in), all photos, as no split of it
    was used. Of left-out generators, the test photos, and all real test photos.
    Raises ConfigError: no such column (code no_column).
    """
    table = manifest.table
    sources = {name: own for name, own in left_out.items() if real_have(manifest, name)}
    others = {name: own for name, own in left_out.items() if name not in sources}
    of_test = unseen(manifest, others)
    if others:
        of_test |= table["label"] == "real"
    return manifest.subset(unseen(manifest, sources) | (of_test & (table["split"] == "test")))


def column_of(manifest: Manifest, column: str) -> pd.Series:
    """Raises ConfigError: the manifest has no such column (code no_column)."""
    table = manifest.table
    if column not in table.columns:
        known = ", ".join(name for name in table.columns if (table[name] != "").any())
        raise ConfigError(
            f"column={column}: {manifest.root} has no such column; it has {known}", code="no_column"
        )
    return table[column]


def real_have(manifest: Manifest, column: str) -> bool:
    """Whether real photos have values in a column, as a source has, and a generator has not."""
    real = manifest.table["label"] == "real"
    return bool((column_of(manifest, column)[real] != "").any())


def _with_columns(photos: pd.DataFrame, manifest: Manifest, columns: Sequence[str]) -> pd.DataFrame:
    """Predictions with the manifest's columns, which may be of the user's own."""
    known = manifest.table.set_index("file_name")
    return photos.assign(
        **{_LEFT_OUT + name: photos["file_name"].map(known[name]) for name in columns}
    )


def localisation_rows(
    scored: Suite, manifest: Manifest, fold: Fold, *, seed: int = 0
) -> list[dict[str, Any]]:
    """How well the heat maps find region edits, for each part of a fold under each perturbation.

    Keys: left_out, perturbation, n_localised, best_f1 with its 95% interval, baseline_f1.
    """
    photos = _with_columns(scored.predictions, manifest, list(fold.left_out))
    edits = photos[photos["kind"] == "ai_region"]
    rows: list[dict[str, Any]] = []
    for name in scored.names:
        evidence = scored.localisation(name)
        for column, part, own in fold.parts():
            chosen = set(edits.loc[edits[_LEFT_OUT + column].isin(own), "file_name"])
            of_part = [photo for photo in evidence if photo.file_name in chosen]
            found = localisation_metrics(of_part, photos, seed=seed)
            low, high = found["intervals"]["best_f1"] or (None, None)
            rows.append(
                {
                    "column": column,
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


def left_out_table(
    folds: Sequence[Fold], manifest: Manifest, *, targets: Targets | None = None, seed: int = 0
) -> pd.DataFrame:
    """One row per fold, left-out value and perturbation, then mean and worst; `COLUMNS`.

    left_out: "all" values of the fold's first column, or one value of any. A source's synthetic
    photos are compared with its own real ones (with all of the fold, where it has fewer than 5);
    a generator's with the real ones of the sources that the fold leaves out, or of all sources.
    honest_synthetic, honest_review: of the n_real real photos, how many the fold's own thresholds
    called synthetic or left to a person; NaN without thresholds. own_…: with thresholds at the
    rates of `targets` on photos of this source alone, see `_with_own_thresholds`.
    auroc_known: of a generator, against the real photos of sources that were trained on.
    tpr_at_fpr_1: at 1% false alarms on the really damaged of these photos, or of the fold's test
    photos where these have none.
    edit_higher: over the n_pairs. best_f1: over the n_localised region edits; baseline_f1: of a map
    that calls every patch painted. All folds share the same draws of groups, because they share
    real photos and their errors go up and down together. The interval of a mean is over other
    photos with the same values left out; that of a worst is its fold's.

    Raises RealDamageError: no synthetic photo with a left-out value (code nothing_left_out).
    """
    table = ScoredPhotos(pd.concat([_photos_of(fold, manifest) for fold in folds]), seed=seed)
    frame = table.frame
    drawn: Drawn = {}
    rows = []
    for fold in folds:
        localised = {
            (row["column"], row["left_out"], row["perturbation"]): row for row in fold.localisation
        }
        of_fold = (frame["fold"] == fold.name).to_numpy()
        names = sorted(dict.fromkeys(frame["perturbation"][of_fold]), key=lambda name: name != "")
        has = {
            (column, part): frame[_LEFT_OUT + column].isin(values).to_numpy()
            for column, part, values in fold.parts()
        }
        sources = [column for column in fold.left_out if real_have(manifest, column)]
        of_sources, by_unseen = (
            np.logical_or.reduce(
                [~table.everything]
                + [of for (column, _), of in has.items() if (column in sources) == is_source]
            )
            for is_source in (True, False)
        )
        if not sources:
            of_sources = table.everything
        for column, part, _ in fold.parts():
            for name in names:
                own = of_fold & (frame["perturbation"] == name).to_numpy()
                real, all_real = own & table.real & of_sources, own & table.real
                of_value = has[column, part]
                if column in sources and (real & of_value).sum() >= MIN_PHOTOS:
                    real = real & of_value
                keep: Drawn = drawn if part == ALL else {}
                under = name or AS_IT_IS
                synthetic = own & of_value & table.synthetic
                known = all_real & ~of_sources if sources else real
                against = real, all_real, known & (column not in sources)
                row = _row(table, synthetic, against, keep, (fold.name, under))
                if targets and part != ALL and not name and column in sources:
                    photos = own & of_value, own & by_unseen
                    row |= _with_own_thresholds(frame, *photos, targets, seed)
                found = localised.get((column, part, under), {})
                note = "" if found.get("n_localised", 1) else "no region edits"
                rows.append(
                    {"fold": fold.name, "column": column, "left_out": part, "perturbation": under}
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
    wanted = photos_of_fold(manifest, fold.left_out).table["file_name"]
    photos = fold.predictions[fold.predictions["file_name"].isin(wanted)]
    photos = _with_columns(photos, manifest, list(fold.left_out))
    column, values = next(iter(fold.left_out.items()))
    counted = photos[_LEFT_OUT + column].isin(values) & (photos["label"] == "synthetic")
    if not (counted & photos["score"].notna()).any():
        raise RealDamageError(
            f"fold {fold.name}: none of its scored photos is synthetic with {column} "
            f"{' or '.join(values)}. Score its test photos, which have them.",
            code="nothing_left_out",
        )
    pair = photos["pair"].where(photos["pair"] == "", fold.name + "/" + photos["pair"])
    return photos.assign(
        fold=fold.name,
        group=group_ids(photos),
        file_name=fold.name + "/" + photos["file_name"],
        pair=pair,
    )


def _row(
    table: ScoredPhotos,
    synthetic: Flags,
    real: tuple[Flags, Flags, Flags],
    drawn: Drawn,
    about: tuple[str, str],
) -> dict[str, Any]:
    """Counts and figures of the synthetic photos against the real ones; keeps their draws.

    real: those to compare with, all of the fold, and those of known sources.
    """
    own, of_fold, known = real
    damaged = own & table.damaged if (own & table.damaged).any() else of_fold & table.damaged
    figures: dict[str, Figure] = {}
    # The last figure is of heat maps.
    for name, against in zip(FIGURES[:-1], (own, known, damaged, of_fold), strict=True):
        key = name.removesuffix("_known")
        [figures[name]] = measure(table, synthetic, against, (key,))
        if figures[name].low is not None:
            draws = table.draw(key, synthetic, against)
            drawn[*about, name] = draws, table.counted(key, synthetic, against)
    auroc, against_known, rate, pairs = figures.values()
    judged = table.judged[own].all()
    honest = {
        f"honest_{name}": int((table.outcome[own] == name).sum()) if judged else np.nan
        for name in ("synthetic", "review")
    }
    return {
        "n_real": int(own.sum()),
        "n_synthetic": int(synthetic.sum()),
        **honest,
        **columns(auroc),
        **columns(against_known, "auroc_known"),
        **({} if auroc.reason else columns(rate)),
        "n_pairs": pairs.n,
        **columns(pairs),
        "note": joined([auroc.reason or rate.reason, pairs.reason]),
    }


def _with_own_thresholds(
    frame: pd.DataFrame, source: Flags, unseen: Flags, targets: Targets, seed: int
) -> dict[str, float]:
    """What thresholds from a source's own photos do: its groups are dealt into two halves, and each
    half is judged by thresholds that were chosen on the other, with edits by known generators.

    source: the photos of the source. unseen: the photos by left-out generators; those by generators
    that are no codec are the fakes, which have other sources and are judged by both thresholds.
    Returns counts of the real photos, n_fakes, and shares of the fakes called synthetic, also by
    the fold's own thresholds; {} where a half has too few photos.
    """
    groups = np.random.default_rng(seed).permutation(frame["group"][source].unique())
    first = source & frame["group"].isin(groups[::2]).to_numpy()
    real = (frame["label"] == "real").to_numpy()
    fakes = frame[unseen & ~(frame["family"].isin(CODECS) | (frame["kind"] == "pasted"))]
    counts = dict.fromkeys(("synthetic", "review"), 0)
    found = []
    for half, other in ((first, source & ~first), (source & ~first, first)):
        chosen = frame[half & ~unseen]
        if (chosen["label"] == "real").sum() < MIN_PHOTOS or not targets.missed(chosen).any():
            return {}
        policy = choose_policy(chosen, targets)
        outcomes = outcomes_by(policy, frame[other & real])
        counts = {name: count + int((outcomes == name).sum()) for name, count in counts.items()}
        found.append(float((outcomes_by(policy, fakes) == "synthetic").mean()))
    return {
        **{f"own_honest_{name}": count for name, count in counts.items()},
        "n_fakes": len(fakes),
        "fakes_found": float((fakes["outcome"] == "synthetic").mean()),
        "own_fakes_found": float(np.mean(found)),
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
