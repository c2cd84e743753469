"""What a model has seen of deployed generators, in training and in its tests: the sentence that has to be read before
any figure, because a figure on generators that nobody uses says nothing about those that fraudsters do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.errors import ManifestError, RealDamageError
from realdamage.rendering.card_markdown import Markdown, table
from realdamage.rendering.report_words import GeneratorCount, Sort, generator_counts

# The control of our recipes: painted damage that went through no network.
_CONTROLS = {"paint"}


@dataclass(frozen=True)
class Seen:
    """The generators of one set of photos. counted: whether `photos` of each is known. showing_damage: photos by
    deployed generators that show damage; None where that is not known."""

    generators: tuple[GeneratorCount, ...]
    counted: bool
    showing_damage: int | None

    @property
    def deployed(self) -> list[GeneratorCount]:
        return [row for row in self.generators if row.sort == "deployed"]

    @property
    def photos(self) -> int:
        """By deployed generators."""
        return sum(row.photos for row in self.deployed)


def training_photos(manifest: Manifest, training: Mapping[str, Any]) -> pd.DataFrame | None:
    """The rows that a model with `ModelMetadata.training` was trained on: those of the train split less what
    `data.exclude` left out; None when it was trained on another manifest."""
    rows = manifest.table
    left_out = pd.Series(False, rows.index)
    for column, values in (training.get("excluded") or {}).items():
        if column in rows.columns:
            left_out |= rows[column].isin(values)
    kept = manifest.subset(~(left_out & rows["split"].isin(("train", "val"))))
    if kept.digest() != training.get("manifest_sha256"):
        return None
    return kept.table[kept.table["split"] == "train"].reset_index(drop=True)


def find_training_photos(
    training: Mapping[str, Any], given: Path | None, runs: Sequence[Mapping[str, Any]]
) -> tuple[pd.DataFrame | None, str]:
    """The rows that the model was trained on, and a note when they are not at hand. `given`: the folder of its training
    set; without it, where an evaluation (`runs`: "run" of metrics.json) says that the very same set lies.

    Raises RealDamageError: the set `given` cannot be read, or is another one.
    """
    if given is not None:
        rows = training_photos(read_dataset(given), training)
        if rows is None:
            told = str(training.get("manifest_sha256") or "none told")[:12]
            raise ManifestError(
                f"{given}: not the set that this model was trained on (manifest {told} by the model's file). Name that "
                "one with --manifest, or leave the option away."
            )
        return rows, ""
    for place in dict.fromkeys(str(run.get("data_root") or "") for run in runs):
        try:
            rows = training_photos(read_dataset(place), training) if place else None
        except RealDamageError:
            continue
        if rows is not None:
            return rows, ""
    return (
        None,
        "The training set is not at hand, so its photos cannot be counted; name its folder with --manifest.",
    )


def seen_in_training(
    training: Mapping[str, Any], rows: pd.DataFrame | None, families: Mapping[str, str]
) -> Seen | None:
    """What the training photos tell, or the names in the model's file; None when it has none. `families`: generator →
    family, of as many as are known."""
    if rows is not None:
        return seen(rows, {}, families)
    if "generators" not in training:
        return None
    names = [str(name) for name in training["generators"]]
    table = pd.DataFrame(
        {
            "label": "synthetic",
            "generator": names,
            "family": [families.get(name, "") for name in names],
            "kind": ["pasted" if name in _CONTROLS else "" for name in names],
        }
    )
    return Seen(generator_counts(table, {}, families), counted=False, showing_damage=None)


def seen(rows: pd.DataFrame, training: Mapping[str, Any], families: Mapping[str, str]) -> Seen:
    """The generators of photos that are at hand; `training`, `families`: see `generator_counts`."""
    generators = generator_counts(rows, training, families)
    names = {row.name for row in generators if row.sort == "deployed"}
    own = rows[
        rows["generator"].isin(names) & (rows["label"] == "synthetic") & (rows["kind"] != "pasted")
    ]
    return Seen(generators, counted=True, showing_damage=int((own["damage"] != "").sum()))


def by_family(generators: Sequence[GeneratorCount]) -> dict[str, int]:
    """Photos by family, the most first; by name where a generator has no family."""
    photos: Counter[str] = Counter()
    for row in generators:
        photos[row.family or row.name] += row.photos
    return dict(sorted(photos.items(), key=lambda item: (-item[1], item[0])))


def first_line(training: Seen | None, tests: Mapping[str, Seen]) -> str:
    """Which deployed generators the model has seen and was tested on, how many photos, and whether any of them shows
    AI-painted damage. `tests`: by the evaluation's name."""
    sentences = [_trained_on(training), *(_tested_on(name, found) for name, found in tests.items())]
    return f"{'; '.join(sentences)}. {_damage(training, tests)}"


def photos_table(training: Mapping[str, Any], rows: pd.DataFrame | None) -> Markdown:
    """Photos by label and kind, or as the file tells them."""
    if rows is None:
        counts: Mapping[str, int] = training.get("photos") or {}
        return table(
            ("label", "photos trained on"), [(label, f"{n:,}") for label, n in counts.items()]
        )
    sizes = rows.groupby(["label", "kind"]).size()
    cells = [(label, kind, f"{n:,}") for (label, kind), n in zip(sizes.index, sizes, strict=True)]
    return table(("label", "kind", "photos trained on"), cells)


def generators_table(trained: Seen | None) -> Markdown:
    """By family: what sort it is, photos where they are counted, and the generators' names."""
    if trained is None:
        return Markdown("")
    families: dict[tuple[str, str], list[GeneratorCount]] = {}
    for row in trained.generators:
        families.setdefault((row.sort, row.family or "(not told)"), []).append(row)
    counted = trained.counted
    titles = ("sort", "family", *(["photos trained on"] if counted else []), "generators")
    cells = [
        (
            sort,
            family,
            *([f"{sum(row.photos for row in own):,}"] if counted else []),
            ", ".join(row.name for row in own),
        )
        for (sort, family), own in sorted(
            families.items(), key=lambda each: _order(each[0], each[1], counted)
        )
    ]
    return table(titles, cells)


def _order(
    key: tuple[str, str], own: Sequence[GeneratorCount], counted: bool
) -> tuple[int, int, str]:
    sorts: tuple[str, ...] = get_args(Sort)
    return sorts.index(key[0]), -sum(row.photos for row in own) if counted else 0, key[1]


def excluded(training: Mapping[str, Any]) -> list[str]:
    """What was left out of training on purpose, column by column."""
    found = (training.get("excluded") or {}).items()
    return [f"{column}: {', '.join(map(str, values))}" for column, values in found if values]


def licences(rows: pd.DataFrame | None) -> str:
    """Of the photos, as their manifest names them, with how many have each."""
    named = (
        pd.Series(dtype=str)
        if rows is None
        else rows["licence"][rows["licence"] != ""].value_counts()
    )
    return ", ".join(f"{name} {count:,}" for name, count in named.items())


def _trained_on(training: Seen | None) -> str:
    if training is None:
        return "Which generators this model was trained on is not known, for its file does not tell"
    names = by_family(training.deployed)
    if not names:
        return "This model was trained on no photo by a deployed generator (one whose product people use)"
    if training.counted:
        return f"This model was trained on {_photos(training.photos)} by deployed generators ({_listed(names)})"
    count = len(training.deployed)
    return (
        f"This model was trained on photos by {count:,} deployed generator{'' if count == 1 else 's'} "
        f"({', '.join(names)}; how many of each, its file does not tell)"
    )


def _tested_on(name: str, found: Seen) -> str:
    if not found.deployed:
        return f"tested on no such photo in “{name}”"
    told = f"tested on {found.photos:,} in “{name}” ({_listed(by_family(found.deployed))})"
    if all(row.trained_on is None for row in found.deployed):
        return told
    new = sum(row.photos for row in found.deployed if row.trained_on is False)
    if not new:
        return f"{told}, none by a generator that it was never trained on"
    return f"{told}, {'all' if new == found.photos else f'{new:,}'} by generators that it was never trained on"


def _damage(training: Seen | None, tests: Mapping[str, Seen]) -> str:
    tested = sum(found.showing_damage or 0 for found in tests.values())
    trained = None if training is None else training.showing_damage
    if not any(found.deployed for found in tests.values()):
        return "So how well it finds damage painted by a generator that a fraudster would use is not known."
    if tested:
        own = {
            None: "; how many it was trained on, its file does not tell",
            0: "; it was trained on none",
        }
        known = own.get(trained, f"; it was trained on {trained:,} such")
        return f"Of those tested, {_photos(tested)} {'shows' if tested == 1 else 'show'} AI-painted damage{known}."
    if trained:
        shows = "shows" if trained == 1 else "show"
        return f"Of those trained on, {_photos(trained)} {shows} AI-painted damage, and none of those tested."
    unknown = "" if trained == 0 else " (of those trained on, the file does not tell)"
    return f"None of them shows AI-painted damage{unknown}: how well it finds that, no figure below says."


def _listed(names: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {photos:,}" for name, photos in names.items())


def _photos(count: int) -> str:
    return f"{count:,} photo{'' if count == 1 else 's'}"
