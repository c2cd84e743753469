"""What happened to the photos of a test: who made the synthetic ones, and what each sort was called
at the shipped thresholds. It is the table that a fraud analyst reads first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from realdamage.data.vocabulary import CODECS
from realdamage.evaluation.figures import NO_THRESHOLDS, ScoredPhotos, has_thresholds, measure
from realdamage.evaluation.slices import FEW
from realdamage.rendering.words import NOTHING, lines

SORTS = ("deployed", "not named", "codec", "control")
CALLED = ("real", "review", "synthetic")
COLUMNS = ("in truth", "photos", "called real", "sent to review", "called synthetic")
"""The titles of `outcome_cells`."""
_CODEC_NAMES = {name for names in CODECS.values() for name in names}
_KINDS = {
    "ai_region": "photos with an area edited by AI",
    "ai_whole": "photos generated or regenerated as a whole",
    "pasted": "damage pasted without any AI (control)",
    "": "other synthetic photos",
}
_BY_TRAINING = {
    True: "fakes by generators known from training",
    False: "fakes by generators never seen in training",
    None: "fakes by a generator that is not named",
}
_CODEC = "imitations through small image codecs"
_DAMAGED, _OTHER_REAL = "really damaged photos", "other real photos"


class GeneratorCount(NamedTuple):
    """One generator of the synthetic photos. sort: one of `SORTS`.

    trained_on: whether the model was trained on photos of it; None: not known.
    """

    name: str
    family: str
    sort: str
    photos: int
    trained_on: bool | None


class Outcomes(NamedTuple):
    """rows: photos (a title), label, n, and n of each of `CALLED`, really damaged ones first.
    sentences: found, accused and reviewed, in plain words. reason: why there are none."""

    rows: Sequence[Mapping[str, Any]]
    sentences: Sequence[str]
    reason: str


def generator_counts(
    photos: pd.DataFrame, training: Mapping[str, Any]
) -> tuple[GeneratorCount, ...]:
    """The generators of the synthetic photos, deployed ones first, then by number of photos.

    The sort is decided by a rule: kind `pasted` is a control; a family or name in
    `vocabulary.CODECS` is a codec; any other name is a deployed generator. training:
    `ModelMetadata.training`, or {}.
    """
    synthetic = photos[photos["label"] == "synthetic"]
    names: Sequence[str] | None = training.get("generators")
    columns = (synthetic["generator"], synthetic["family"], synthetic["kind"] == "pasted")
    rows = []
    for (name, family, control), n in Counter(zip(*columns, strict=True)).items():
        trained_on = None if names is None or not name else name in names
        codec = family in CODECS or (not family and name in _CODEC_NAMES)
        sort = "codec" if codec else "deployed" if name else "not named"
        sort = "control" if control else sort
        rows.append(GeneratorCount(name or "(not named)", family, sort, n, trained_on))
    return tuple(sorted(rows, key=lambda row: (SORTS.index(row.sort), -row.photos, row.name)))


def outcomes(photos: pd.DataFrame, generators: Sequence[GeneratorCount]) -> Outcomes:
    """What photos, as they are and with labels, were called at the shipped thresholds.

    generators: of these photos; where it is known which ones the model was trained on, the rows of
    synthetic photos are by that, otherwise by kind.
    """
    judged = photos[has_thresholds(photos) & (photos["outcome"] != "")].reset_index(drop=True)
    if judged.empty:
        return Outcomes((), (), f"Nothing was called anything: {NO_THRESHOLDS}.")
    titles = _titles(judged, generators)
    order = [_DAMAGED, _OTHER_REAL, *_BY_TRAINING.values(), _CODEC]
    order += [title for title in _KINDS.values() if title not in order]
    rows = []
    for title in order:
        own = judged[titles == title]
        if len(own) or title == _DAMAGED:
            called = {outcome: int((own["outcome"] == outcome).sum()) for outcome in CALLED}
            label = "real" if title in (_DAMAGED, _OTHER_REAL) else "synthetic"
            rows.append({"photos": title, "label": label, "n": len(own), **called})
    return Outcomes(rows, _sentences(judged, titles), "")


def _titles(judged: pd.DataFrame, generators: Sequence[GeneratorCount]) -> pd.Series:
    """The row of the table that each photo counts in."""
    known = {row.name: row for row in generators if row.trained_on is not None}
    titles = judged["kind"].map(_KINDS).fillna(_KINDS[""])
    if known:
        names = {name: _BY_TRAINING[row.trained_on] for name, row in known.items()}
        names |= {row.name: _CODEC for row in generators if row.sort == "codec"}
        trained = judged["generator"].map(names).fillna(_BY_TRAINING[None])
        titles = titles.mask(judged["kind"] != "pasted", trained)
    titles = titles.mask(judged["label"] == "real", _OTHER_REAL)
    damaged = (judged["label"] == "real") & (judged["kind"] == "damaged")
    return titles.mask(damaged, _DAMAGED)


def _sentences(judged: pd.DataFrame, titles: pd.Series) -> list[str]:
    synthetic = judged["label"] == "synthetic"
    fakes = titles.isin(list(_BY_TRAINING.values()))
    if not fakes.any():  # nothing is known of the training, or only imitations were tested
        fakes = synthetic & (judged["kind"] != "pasted")

    def called(outcome: str, own: pd.Series) -> tuple[int, int]:
        return int((judged.loc[own, "outcome"] == outcome).sum()), int(own.sum())

    table = ScoredPhotos(judged, n_boot=0)
    [accused] = measure(table, table.real, table.real, ("called_synthetic",))
    return lines(
        "outcomes.txt.j2",
        found=called("synthetic", fakes),
        unseen=called("synthetic", titles == _BY_TRAINING[False]),
        accused=called("synthetic", ~synthetic),
        ends=(accused.low, accused.high),
        damaged=called("synthetic", titles == _DAMAGED),
        review=called("review", judged["outcome"] != ""),
        review_real=called("review", ~synthetic),
        review_fake=called("review", fakes),
        few=FEW,
    )


def per_thousand(found: int, n: int) -> str:
    """A count among 1,000 photos; – of so few photos that it would mean nothing."""
    return NOTHING if n < FEW else f"{1000 * found / n:.0f}"


def outcome_cells(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of `Outcomes` as texts under `COLUMNS`: per 1,000 photos, and the count."""
    return [
        (
            row["photos"],
            f"{row['n']:,}",
            *(f"{per_thousand(row[each], row['n'])} ({row[each]:,})" for each in CALLED),
        )
        for row in rows
    ]
