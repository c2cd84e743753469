"""Where a model fails: figures per slice, per perturbation and per source. A slice is a named mask
over the scored photos; one with too few photos says so instead of giving a figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.policy import Policy, WorstSource
from realdamage.data.bootstrap import DRAWS, percentile_interval, share_interval
from realdamage.data.vocabulary import CONDITIONS, DAMAGES
from realdamage.evaluation.figures import MIN_PHOTOS, RATES, Figure, Flags, ScoredPhotos, measure
from realdamage.evaluation.guarantee import threshold_allowing

SLICE_KEYS = (
    *("generator", "family", "kind", "damage", "mask_area"),
    *("source", "condition", "perturbation"),
)
# Real photos have no value of these, so all of them are the other side.
SYNTHETIC_KEYS = ("generator", "family", "mask_area")
STANDARD_SLICES = (
    *(("kind",), ("generator",), ("family",), ("damage",), ("mask_area",), ("source",)),
    *(("condition",), ("perturbation",), ("kind", "damage"), ("generator", "perturbation")),
    *(("damage", "perturbation"), ("damage", "mask_area")),
    ("damage", "mask_area", "perturbation"),
)
RATE = "tpr_at_fpr_1"
MIN_NEGATIVES = math.ceil(1 / RATES[RATE])
"""As many negatives as a rate of 1% needs."""
CLEAN = "clean"
NOT_NAMED = "(not named)"
FEW = 20
"""Sources with fewer photos are counted together: a share of them would mean nothing."""
OTHERS = "(other sources)"

_AREA_EDGES = (0.0, 0.01, 0.05, 0.2, 0.5, math.inf)
_AREA_NAMES = ("up to 1%", "1–5%", "5–20%", "20–50%", "over 50%")
_EMPTY = {"mask_area": "(no mask)", "damage": "(none)", "perturbation": CLEAN}
# `pasted` next to `ai_region`: the same edits without any network.
_ORDER: Mapping[str, Sequence[str]] = {
    "kind": ("original", "damaged", "annotated", "ai_region", "pasted", "ai_whole"),
    "damage": DAMAGES,
    "condition": CONDITIONS,
    "mask_area": _AREA_NAMES,
}
_ENDS = ("", "_low", "_high")
_COLUMNS = (
    *("n", "n_real", "n_synthetic", "n_groups"),
    *(key + end for key in ("auroc", RATE, "called_synthetic") for end in _ENDS),
    *("called_real", "called_of", "note"),
)
ROBUSTNESS_COLUMNS = (
    *("perturbation", "n", "n_real", "n_damaged", "n_synthetic"),
    *(key + end for key in ("auroc", "auroc_drop", RATE) for end in _ENDS),
    *(key + end for key in ("false_alarms", "false_alarms_all_real") for end in _ENDS),
    *("called_synthetic", "called_real", "review", "note"),
)


def slice_table(
    predictions: pd.DataFrame, by: Sequence[str], *, n_boot: int = DRAWS
) -> pd.DataFrame:
    """One row per combination of values of `by` (of `SLICE_KEYS`) among the scored photos.

    n photos from n_groups are in the slice; n_real and n_synthetic ones are compared. called_…:
    outcomes of the slice's real photos where it has any, else of its synthetic ones (`called_of`).
    note: why a figure is NaN.

    The synthetic photos of a slice are compared with the real ones of the same source, condition
    and perturbation, or of any source or condition where there are fewer than 5. For `damage`: with
    the really damaged photos of that damage if there are at least 100, else with all really damaged
    ones. A slice of real photos only is compared with all synthetic ones. Without "perturbation" in
    `by`, only unperturbed photos count (or the only perturbation of the table).
    """
    return _slices(ScoredPhotos(predictions, n_boot=n_boot), by)


def standard_slices(predictions: pd.DataFrame, *, seed: int = 0) -> dict[str, pd.DataFrame]:
    """`slice_table` by each of `STANDARD_SLICES`, named like "kind × damage".

    Left out: slices by a key that no photo has, or by perturbation when there is only one.
    """
    table = ScoredPhotos(predictions, seed=seed)
    known = {key: set(_values(table.frame, key)) for key in SLICE_KEYS}
    useful = {key for key in SLICE_KEYS if known[key] - {_empty(key)}}
    if len(known["perturbation"]) < 2:
        useful.discard("perturbation")
    return {" × ".join(by): _slices(table, by) for by in STANDARD_SLICES if set(by) <= useful}


def json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows for a JSON file: NaN becomes None."""
    rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _slices(table: ScoredPhotos, by: Sequence[str]) -> pd.DataFrame:
    values = pd.DataFrame({key: _values(table.frame, key) for key in SLICE_KEYS}, dtype=object)
    perturbation = values["perturbation"]
    counted = np.ones(len(values), dtype=bool)
    if "perturbation" not in by and perturbation.nunique() > 1:
        counted = (perturbation == CLEAN).to_numpy()
    if set(by) & set(SYNTHETIC_KEYS):
        counted = counted & table.synthetic
    within = np.flatnonzero(counted)
    rows = []
    for key, positions in values.iloc[within].groupby(list(by), sort=False).indices.items():
        own = np.zeros(len(values), dtype=bool)
        own[within[positions]] = True
        named = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        rows.append({**named, **_slice(table, values, named, own)})
    # Perturbations in the order of the file, which is that of the suite; clean photos first.
    order = {**_ORDER, "perturbation": (CLEAN, *dict.fromkeys(perturbation))}

    def rank(key: str, value: str) -> tuple[int, str]:
        known = list(order.get(key, ()))
        last = len(known) + (value == _empty(key))
        return (known.index(value) if value in known else last), value

    rows.sort(key=lambda row: tuple(rank(key, row[key]) for key in by))
    return pd.DataFrame(rows, columns=[*by, *_COLUMNS])


def _slice(
    table: ScoredPhotos, values: pd.DataFrame, named: Mapping[str, str], own: Flags
) -> dict[str, Any]:
    """The row of a slice: the photos `own`, which share the values `named`."""
    mask, against = own & table.synthetic, own
    if mask.any():
        against = _others(table, values, named, own, table.real)
    else:
        mask = _others(table, values, named, own, table.synthetic)
    auroc, rate = measure(table, mask, against, ("auroc", RATE))
    notes = [auroc.reason or rate.reason]
    if auroc.value is not None and auroc.low is None:
        notes.append("one class comes from a single group, so there is no interval")
    real = own & table.real
    judged = real if real.any() else own
    called, passed = measure(table, judged, judged, ("called_synthetic", "called_real"))
    notes.append("the model has no thresholds" if called.reason else "")
    return {
        "n": int(own.sum()),
        "n_real": int(against.sum()),
        "n_synthetic": int(mask.sum()),
        "n_groups": len(set(table.groups[own])),
        **columns(auroc),
        **({} if auroc.reason else columns(rate)),
        **columns(called),
        "called_real": columns(passed)["called_real"],
        "called_of": "real" if real.any() else "synthetic",
        "note": joined(notes),
    }


def _others(
    table: ScoredPhotos, values: pd.DataFrame, named: Mapping[str, str], own: Flags, other: Flags
) -> Flags:
    """The photos of the other class that a slice is compared with; see `slice_table`."""
    perturbation = values["perturbation"].to_numpy()
    found: Flags = other & (perturbation == perturbation[own.argmax()])
    for key in ("source", "condition"):
        if key in named:
            found = _first_with(MIN_PHOTOS, found & _has(values, named, key), found)
    if named.get("damage", _empty("damage")) == _empty("damage"):
        return found
    same = _has(values, named, "damage")
    if other is table.synthetic:
        return _first_with(MIN_PHOTOS, found & same, found)
    damaged = _first_with(MIN_PHOTOS, found & table.damaged, found)
    return _first_with(MIN_NEGATIVES, found & table.damaged & same, damaged)


def _has(values: pd.DataFrame, named: Mapping[str, str], key: str) -> Flags:
    return (values[key] == named[key]).to_numpy(dtype=bool)


def _first_with(least: int, photos: Flags, otherwise: Flags) -> Flags:
    return photos if photos.sum() >= least else otherwise


def _empty(key: str) -> str:
    return _EMPTY.get(key, NOT_NAMED)


def _values(photos: pd.DataFrame, key: str) -> npt.NDArray[np.object_]:
    """What a table prints for each photo; a name in brackets where there is no value."""
    given = photos[key]
    if key == "mask_area":
        area = pd.to_numeric(given)
        bins = pd.cut(area, [*_AREA_EDGES], labels=_AREA_NAMES, include_lowest=True)
        given = bins.astype(object).where(bins.notna(), "")
    if key in SYNTHETIC_KEYS:
        given = given.where(photos["label"] == "synthetic", "")
    return np.asarray(given.where(given != "", _empty(key)), dtype=object)


def columns(figure: Figure, key: str = "") -> dict[str, float]:
    """A figure as table columns: key, key_low, key_high; NaN where there is none."""
    values = (figure.value, figure.low, figure.high)
    return {
        (key or figure.key) + end: math.nan if value is None else value
        for end, value in zip(_ENDS, values, strict=True)
    }


def joined(notes: Iterable[str]) -> str:
    """Notes as one cell, each once."""
    return "; ".join(filter(None, dict.fromkeys(notes)))


def robustness_table(
    predictions: pd.DataFrame, *, n_boot: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """What every perturbation costs: one row each, clean photos first; `ROBUSTNESS_COLUMNS`.

    auroc_drop: AUROC of the same photos unperturbed minus that after the perturbation, with the
    same draws. tpr_at_fpr_1: over the really damaged photos, or over all real ones when some
    perturbation has fewer than 100 damaged ones. false_alarms: of the really damaged photos.
    called_synthetic, called_real: of the synthetic photos. NaN where undefined; `note` says why.
    """
    table = ScoredPhotos(predictions, n_boot=n_boot, seed=seed)
    perturbation = table.frame["perturbation"].to_numpy()
    names = sorted(dict.fromkeys(perturbation), key=lambda name: name != "")
    # The same for all rows, or the curve would jump where it changes.
    n_damaged = [int((table.damaged & (perturbation == name)).sum()) for name in names]
    over_damaged = min(n_damaged) >= MIN_NEGATIVES
    rows = [_robustness_row(table, name, over_damaged) for name in names]
    return pd.DataFrame(rows, columns=list(ROBUSTNESS_COLUMNS))


def _robustness_row(table: ScoredPhotos, name: str, over_damaged: bool) -> dict[str, Any]:
    under = (table.frame["perturbation"] == name).to_numpy()
    synthetic, real, damaged = (under & own for own in (table.synthetic, table.real, table.damaged))
    notes: list[str] = []
    row: dict[str, Any] = {
        "perturbation": name or CLEAN,
        "n": int(under.sum()),
        "n_real": int(real.sum()),
        "n_damaged": int(damaged.sum()),
        "n_synthetic": int(synthetic.sum()),
    }
    [auroc] = measure(table, synthetic, real, ("auroc",))
    notes.append(auroc.reason)
    if auroc.value is not None:
        [rate] = measure(table, synthetic, damaged if over_damaged else real, (RATE,))
        row |= columns(auroc) | _drop(table, under, name) | columns(rate)
        notes.append(rate.reason)
        if not rate.reason and not over_damaged:
            few = f"fewer than {MIN_NEGATIVES} are really damaged"
            notes.append(f"TPR over all real photos, because {few}")
    if not table.judged[under].any():
        return row | {"note": joined([*notes, "the model has no thresholds"])}
    [alarms], [all_real] = (
        measure(table, own, own, ("called_synthetic",)) for own in (damaged, real)
    )
    outcomes = measure(table, synthetic, synthetic, ("called_synthetic", "called_real"))
    outcomes += measure(table, under, under, ("review",))
    if alarms.reason:
        notes.append("no really damaged photo, so there are no false alarms on real damage")
    row |= columns(alarms, "false_alarms") | columns(all_real, "false_alarms_all_real")
    row |= {figure.key: columns(figure)[figure.key] for figure in outcomes}
    return row | {"note": joined(notes)}


def _drop(table: ScoredPhotos, under: Flags, name: str) -> dict[str, float]:
    """Over the photos that were scored both ways; {} for too few."""
    names = table.frame["file_name"]
    clean = (table.frame["perturbation"] == "").to_numpy()
    before = clean & names.isin(names[under]).to_numpy()
    after = under & names.isin(names[clean]).to_numpy()
    if not name or min((after & own).sum() for own in (table.synthetic, table.real)) < MIN_PHOTOS:
        return {}
    as_is, changed = (
        table.draw("auroc", own & table.synthetic, own & table.real) for own in (before, after)
    )
    drop = as_is - changed
    low, high = (float(end) for end in percentile_interval(drop[1:]))
    return {"auroc_drop": float(drop[0]), "auroc_drop_low": low, "auroc_drop_high": high}


def part_rows(
    photos: pd.DataFrame, parts: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], ...]:
    """One row per part of the synthetic photos, in the columns of `slice_table`.

    AUROC against all real photos, and the rate found at 1% false alarms on really damaged ones;
    without the `pasted` control. parts: the name of a part → its generators.
    """
    table = ScoredPhotos(photos)
    rows = []
    for title, generators in parts.items():
        of_part = table.frame["generator"].isin(list(generators)).to_numpy()
        own = of_part & table.synthetic & (table.frame["kind"] != "pasted").to_numpy()
        [auroc] = measure(table, own, table.real, ("auroc",))
        [rate] = measure(table, own, table.damaged, (RATE,))
        figures = columns(auroc) | columns(rate)
        note = joined((auroc.reason, rate.reason))
        rows.append({"synthetic photos by": title, "n": int(own.sum()), **figures, "note": note})
    return tuple(json_records(pd.DataFrame(rows)))


def source_names(photos: pd.DataFrame) -> pd.Series:
    """The source that each photo counts under: `OTHERS` for those of fewer than `FEW` photos."""
    named = photos["source"].where(photos["source"] != "", NOT_NAMED)
    return named.where(named.map(named.value_counts()) >= FEW, OTHERS)


def strictest_source(real: pd.DataFrame, share: float) -> tuple[float, str] | None:
    """The lowest t_synthetic that at most `share` of the real photos of every source reach, and the
    source that allows no lower one; None with one source only.

    Sources with too few photos for this share (1% takes 100) count together; fewer than `FEW` do
    not count.
    """
    if real["source"].nunique() < 2:
        return None
    names = source_names(real)
    large = names.groupby(names).transform("size") >= max(FEW, 1 / share if share else 0)
    strictest = (
        (threshold_at(own["score"].to_numpy(np.float64), share), str(name))
        for name, own in real.groupby(names.where(large, OTHERS))
        if len(own) >= FEW
    )
    return max(strictest, default=None)


def threshold_at(scores: npt.NDArray[np.float64], fpr: float) -> float:
    """The lowest threshold that at most a share `fpr`, in 0..1, of these scores reach."""
    # The tolerance forgives the last digit of the product: 0.29 * 100 is 28.999….
    allowed = int(np.floor(fpr * len(scores) + 1e-9))
    return float(threshold_allowing(scores, allowed)) if allowed < len(scores) else -np.inf


def outcomes_by_source(photos: pd.DataFrame) -> pd.DataFrame:
    """How many photos of each source (the index) were called what: columns n, synthetic, review.

    The source with the largest share called synthetic comes first; of equal ones, that with more to
    review.
    """
    counts = pd.crosstab(source_names(photos), photos["outcome"])
    counts = counts.reindex(columns=["synthetic", "review", "real"]).fillna(0).astype(int)
    n = counts.sum(axis=1)
    shares = counts.div(n, axis=0)
    order = shares.sort_values(["synthetic", "review"], ascending=False, kind="stable").index
    return counts.assign(n=n).loc[order, ["n", "synthetic", "review"]]


def worst_source(real: pd.DataFrame, policy: Policy, pooled: float, strictest: str) -> WorstSource:
    """What this policy does to the source that it accuses most.

    real: scored real photos with the policy's outcomes. pooled: t_synthetic before sources were
    looked at. strictest: the source that it was raised for, where it was.
    """
    counts = outcomes_by_source(real)
    counts = counts[counts["n"] >= FEW]
    source = str(counts.index[0])
    n, called, review = (int(count) for count in counts.iloc[0])
    raised = policy.t_synthetic > pooled
    low, high = share_interval(called, n)
    statement = (
        f"{source} is the worst of {len(counts)} sources with at least {FEW} real photos: {called} "
        f"of {n} called synthetic ({called / n:.1%}, 95% interval {low:.1%} to {high:.1%}), "
        f"{review} sent to review."
    )
    if raised:
        statement += f" {strictest} raised t_synthetic from {pooled:+.3f}."
    return WorstSource(
        source=source,
        photos=n,
        called_synthetic=called,
        to_review=review,
        statement=f"{statement} Nothing is guaranteed for a single source.",
        raised_by=strictest if raised else None,
        raised_from=pooled if raised else None,
    )
