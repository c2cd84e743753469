"""What a recipe says, checked before anything is made: which real photos it starts from and what
becomes of each one.

The dataclasses are also the shape of `recipe` in the YAML files: Hydra merges those into them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from realdamage.data.readers import Reader, find_layout, read_dataset
from realdamage.data.splits import check_fractions, components, with_split_table
from realdamage.data.vocabulary import CONDITIONS, DAMAGES
from realdamage.errors import ConfigError, SynthesisError
from realdamage.synthesis.engine import GeneratorSettings, engine_class

log = logging.getLogger(__name__)

DERIVED = ("annotated", "ai_region", "ai_whole", "pasted")
"""The kinds of photos that are made of a real one."""
REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass
class SourceSettings:
    """The real photos to start from.

    root: their folder, with or without a manifest; the repository is searched too, for data/sample.
    more: further folders, used like `root`.
    splits: a table of `realdamage split --output` for all of these photos.
    per_source: at most this many photos of each source, drawn at random; null takes all.
    damaged_first: with per_source, take the really damaged photos before the others.
    max_side: larger photos are resized to it, in pixels.
    crop: then a random square of this side is cut from larger photos, in pixels; null cuts none.
    """

    root: str | None = None
    more: list[str] = field(default_factory=list)
    splits: str | None = None
    per_source: int | None = None
    damaged_first: bool = False
    max_side: int = 2048
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 64:
            raise SynthesisError(f"recipe.source.crop={self.crop}: must be at least 64, or null")


@dataclass
class WriterSettings:
    """quality: range of JPEG qualities to draw from; null: the quantisation tables of the source
    photos."""

    quality: list[int] | None = field(default_factory=lambda: [90, 97])


@dataclass
class IncludeSettings:
    """A finished set that becomes a part of this one, such as images of deployed generators. Photos
    that the recipe edits are not included a second time.

    splits: a split table for it.
    fractions: its splits where neither the table nor the set gives them.
    exceptions: tests of the audit that it cannot pass, and why.
    """

    root: str | None = None
    splits: str | None = None
    fractions: dict[str, float] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2}
    )
    exceptions: dict[str, str] = field(default_factory=dict)


@dataclass
class Recipe:
    """What to make. Generators and included sets have names, so that a command line can change one,
    or leave it out with null.

    shares: how many photos of each derived kind a real photo gets on average, by the condition of
    the product ("default" for those not named).
    paint_share: of the AI edits that add damage, in 0..1; null: as many as keep damage equally
    frequent in both classes.
    overlay_share: of the edits that get honest annotations on top, in 0..1.
    damages: types to draw from; null: as often as on the real photos.
    workers: processes; null: one for each processor.
    """

    name: str = "custom"
    seed: int = 0
    source: SourceSettings = field(default_factory=SourceSettings)
    shares: dict[str, Any] = field(default_factory=dict)
    paint_share: float | None = None
    overlay_share: float = 0.1
    damages: list[str] | None = None
    generators: dict[str, GeneratorSettings | None] = field(default_factory=dict)
    include: dict[str, IncludeSettings | None] = field(default_factory=dict)
    writer: WriterSettings = field(default_factory=WriterSettings)
    fractions: dict[str, float] = field(
        default_factory=lambda: {"train": 0.6, "val": 0.2, "test": 0.2}
    )
    workers: int | None = None

    def share(self, condition: str, kind: str) -> float:
        """How many photos of a derived kind a real photo of that condition gets on average."""
        return float(self.shares.get(condition, self.shares.get("default", {})).get(kind, 0.0))

    def loadable(self) -> dict[str, GeneratorSettings]:
        """The generators that have weights."""
        return {name: each for name, each in self.generators.items() if each and each.weights}

    def included(self) -> dict[str, IncludeSettings]:
        """The included sets that were not left out with null."""
        return {name: each for name, each in self.include.items() if each}

    def digest(self, prompts: Mapping[str, Any]) -> str:
        """SHA-256 of all that decides what is made; prompts count only if a generator uses them."""
        asked = any(engine_class(each.engine).uses_prompts for each in self.loadable().values())
        content = {**asdict(self), "workers": None, "prompts": dict(prompts) if asked else None}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def check(self) -> None:
        """Raises SynthesisError for a value that is not allowed, naming its key, and ConfigError
        without a folder of photos."""
        if not self.source.root:
            raise ConfigError("recipe.source.root is empty: give the folder of the real photos")
        for condition, shares in self.shares.items():
            if condition not in (*CONDITIONS, "default"):
                allowed = f"{', '.join(CONDITIONS)}, default"
                raise SynthesisError(f"recipe.shares.{condition}: allowed are {allowed}")
            for kind, share in shares.items():
                if kind not in DERIVED or not 0.0 <= share <= 100.0:
                    key = f"recipe.shares.{condition}.{kind}"
                    raise SynthesisError(
                        f"{key}={share}: kinds are {', '.join(DERIVED)}, in 0..100"
                    )
        for name in ("paint_share", "overlay_share"):
            share = getattr(self, name)
            if share is not None and not 0.0 <= share <= 1.0:
                raise SynthesisError(f"recipe.{name}={share}: must be in 0..1")
        if self.damages is not None and (not self.damages or set(self.damages) - set(DAMAGES)):
            raise SynthesisError(f"recipe.damages={self.damages}: allowed are {', '.join(DAMAGES)}")
        check_fractions(self.fractions)
        for name, each in self.included().items():
            key = f"recipe.include.{name}"
            check_fractions(each.fractions)
            if name in ("photos", "masks") or not name.replace("_", "").isalnum():
                raise SynthesisError(
                    f"{key}: it becomes a folder; use letters, digits and _ (not photos or masks)"
                )
            if not each.root:
                raise SynthesisError(
                    f"{key}.root is empty: give its folder, or leave it out: {key}=null"
                )
        made = {
            kind for each in self.loadable().values() for kind in engine_class(each.engine).kinds
        }
        for kind in ("ai_region", "ai_whole"):
            if kind not in made and any(shares.get(kind) for shares in self.shares.values()):
                without = [name for name in self.generators if name not in self.loadable()]
                left_out = f"; left out without weights: {', '.join(without)}" if without else ""
                raise SynthesisError(
                    f"recipe.generators has none that makes {kind} photos{left_out}"
                )


def recipe_from_config(values: Mapping[str, Any]) -> Recipe:
    """A checked Recipe from the section `recipe` of a configuration, as plain values. Raises
    SynthesisError."""
    from omegaconf import OmegaConf

    merged = OmegaConf.merge(OmegaConf.structured(Recipe), values)
    recipe = cast(Recipe, OmegaConf.to_object(merged))
    recipe.check()
    return recipe


@dataclass(frozen=True)
class Base:
    """A real photo to start from, and what is made of it.

    damage, condition: of the product in the photo.
    shares: how many photos of each derived kind it gets on average.
    paint_share: of its AI edits that add damage, in 0..1; the others regenerate what is there.
    """

    path: str
    damage: str = ""
    condition: str = "unknown"
    source: str = ""
    group: str = ""
    split: str = ""
    licence: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    paint_share: float = 0.0


def recipe_bases(recipe: Recipe) -> list[Base]:
    """The source photos, each with what is to be made of it. Raises SynthesisError."""
    bases = _bases_of(recipe, located(str(recipe.source.root)))
    for root in map(Path, recipe.source.more):
        # Groups of two folders may have the same name without being the same.
        found = _bases_of(recipe, root)
        bases += [replace(base, group=f"{root.name}/{base.group}") for base in found]
    if any(base.split for base in bases) and not all(base.split for base in bases):
        raise SynthesisError(
            "recipe.source.root, more: some of these photos have no split. Split all folders "
            "(realdamage split), or name one table for all of them with recipe.source.splits.",
            code="no_split",
        )
    counts = Counter((base.split, base.condition) for base in bases)
    paint = {
        split: balanced_paint_share(recipe, {each: counts[split, each] for each in CONDITIONS})
        for split in {base.split for base in bases}
    }
    return [
        replace(
            base,
            shares={kind: recipe.share(base.condition, kind) for kind in DERIVED},
            # Painting more damage on what is damaged already would change nothing about the photo.
            paint_share=0.0 if base.condition == "damaged" else paint[base.split],
        )
        for base in bases
    ]


def located(folder: str) -> Path:
    """A folder relative to the working directory, or else to the repository."""
    path = Path(folder)
    return path if path.exists() or not (REPOSITORY / path).exists() else REPOSITORY / path


def balanced_paint_share(recipe: Recipe, counts: Mapping[str, int]) -> float:
    """The share of AI edits of undamaged products that must add damage, so that photos which show
    damage are as frequent among the synthetic ones as among the real ones. Photos of unknown
    condition that show none are left out, as the audit leaves them out. `recipe.paint_share` if it
    is set. counts: real photos of each condition.
    """
    if recipe.paint_share is not None:
        return recipe.paint_share
    n = {condition: float(counts.get(condition, 0)) for condition in CONDITIONS}
    kinds = {c: {kind: n[c] * recipe.share(c, kind) for kind in DERIVED} for c in CONDITIONS}
    edits = {c: kinds[c]["ai_region"] + kinds[c]["ai_whole"] for c in CONDITIONS}
    pasted = sum(kinds[c]["pasted"] for c in CONDITIONS)
    damaged = n["damaged"] + kinds["damaged"]["annotated"]
    intact = n["intact"] + kinds["intact"]["annotated"]
    if not damaged + intact:
        return 0.75  # nothing is known, so nothing can be balanced
    shown = damaged / (damaged + intact)
    # (always shown + p·(intact + unknown)) : ((1 − p)·intact) = shown : (1 − shown), solved for p.
    always = edits["damaged"] + pasted
    room = edits["intact"] + (1 - shown) * edits["unknown"]
    share = (shown * edits["intact"] - (1 - shown) * always) / room if room else 0.0
    if not 0.0 <= share <= 1.0:
        log.warning(
            "recipe.shares: no share of painted edits makes damage as frequent among synthetic "
            "photos as among real ones (%.0f%%); taking %.0f. Make fewer edits of damaged photos, "
            "or more annotated ones.",
            100 * shown,
            float(share > 1.0),
        )
    return min(max(share, 0.0), 1.0)


def _bases_of(recipe: Recipe, root: Path) -> list[Base]:
    layout = find_layout(root, otherwise="real")
    manifest = read_dataset(root, Reader(layout))
    if layout == "real":
        log.info(
            "%s has no table: its %d photos are taken as real, each of another product. If some "
            "show the same one, group them first: realdamage manifest %s --layout real, then "
            "realdamage split %s --near-duplicates",
            *(root, len(manifest), root, root),
        )
    if recipe.source.splits:
        manifest = with_split_table(manifest, recipe.source.splits)
    table = manifest.table
    rows = table[(table["label"] == "real") & table["kind"].isin(("original", "damaged"))]
    if root.resolve() in {Path(str(each.root)).resolve() for each in recipe.included().values()}:
        # An original whose edits are included comes with them.
        rows = rows[~rows["file_name"].isin(table.loc[table["label"] == "synthetic", "pair"])]
    if rows.empty:
        raise SynthesisError(f"{manifest.root}: no real photo of kind original or damaged")
    if recipe.source.per_source is not None:
        rows = rows.sample(frac=1.0, random_state=recipe.seed)
        if recipe.source.damaged_first:
            rows = rows.sort_values("kind", kind="stable")  # "damaged" before "original"
        rows = rows.groupby("source").head(recipe.source.per_source).sort_index()
    # Copies and pairs among the source photos stay together, although their bytes change.
    group = rows["group"].groupby(components(table)[rows.index]).transform("first")
    records: list[dict[str, Any]] = rows.assign(group=group).to_dict("records")  # type: ignore[assignment]
    same = ("damage", "source", "group", "split", "licence")
    return [
        Base(
            path=str(manifest.path(row["file_name"])),
            condition="damaged" if row["kind"] == "damaged" else row["condition"] or "unknown",
            **{name: row[name] for name in same},
        )
        for row in records
    ]


def drawn_damages(recipe: Recipe, bases: Sequence[Base]) -> list[str]:
    """Types to draw from, repeated by how often: those of the really damaged photos, so that no
    type means synthetic, and a little of each other type, so that a detector has seen it."""
    if recipe.damages is not None:
        return list(recipe.damages)
    found = [base.damage for base in bases if base.damage]
    rare = max(1, len(found) // 100)
    return [*found, *(damage for damage in DAMAGES for _ in range(rare))]
