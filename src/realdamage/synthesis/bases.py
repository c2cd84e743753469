"""The real photos that a recipe starts from, and how many edits of which kind each one gets, so that visible damage
does not tell the classes apart."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from realdamage.data.readers import Reader, find_layout, read_dataset
from realdamage.data.splits import components, with_split_table
from realdamage.data.vocabulary import CONDITIONS, DAMAGES
from realdamage.errors import SynthesisError
from realdamage.synthesis.group import DERIVED, Base
from realdamage.synthesis.settings import Recipe

log = logging.getLogger(__name__)


def recipe_bases(recipe: Recipe) -> list[Base]:
    """The source photos, each with what is to be made of it."""
    bases = _studio_bases(recipe) if recipe.source.kind == "studio" else _manifest_bases(recipe)
    counts = Counter((base.split, base.condition) for base in bases)
    paint = {
        split: balanced_paint_share(
            recipe, {condition: counts[split, condition] for condition in CONDITIONS}
        )
        for split in {base.split for base in bases}
    }
    return [
        replace(
            base,
            shares={kind: recipe.share(base.condition, kind) for kind in DERIVED},
            # Painting more damage on what is damaged already would change nothing about the photo's class.
            paint_share=0.0 if base.condition == "damaged" else paint[base.split],
        )
        for base in bases
    ]


def balanced_paint_share(recipe: Recipe, counts: Mapping[str, int]) -> float:
    """The share of AI edits of undamaged products that must add damage, so that photos which show damage are as
    frequent among the synthetic ones as among the real ones; photos of unknown condition that show none are left out,
    as the audit leaves them out. `recipe.paint_share` where it is set. `counts`: real photos of each condition.
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
            "recipe.shares: no share of painted edits makes damage as frequent among synthetic photos as among real "
            "ones (%.0f%%); taking %.0f. Make fewer edits of damaged photos, or more annotated ones.",
            100 * shown,
            float(share > 1.0),
        )
    return min(max(share, 0.0), 1.0)


def _studio_bases(recipe: Recipe) -> list[Base]:
    rng = np.random.default_rng([recipe.seed, 2**31])
    damaged = rng.random(recipe.source.groups) < recipe.source.damaged_share
    damages = rng.choice(list(recipe.damages or DAMAGES), recipe.source.groups)
    return [
        Base(
            studio_seed=recipe.seed * 1_000_003 + index,
            damage=str(damage) if hit else "",
            condition="damaged" if hit else "intact",
        )
        for index, (hit, damage) in enumerate(zip(damaged, damages, strict=True))
    ]


def _manifest_bases(recipe: Recipe) -> list[Base]:
    bases = _bases_of(recipe, Path(str(recipe.source.root)))
    for root in map(Path, recipe.source.more):
        # Groups of two folders may have the same name, and are not the same; an included set is named alike.
        bases += [
            replace(base, group=f"{root.name}/{base.group}") for base in _bases_of(recipe, root)
        ]
    if any(base.split for base in bases) and not all(base.split for base in bases):
        raise SynthesisError(
            "recipe.source.root, more: some of these photos have a split and some have none, and would be in none. "
            "Split all folders (realdamage split), or name one table for all of them with recipe.source.splits."
        )
    return bases


def _bases_of(recipe: Recipe, root: Path) -> list[Base]:
    layout = find_layout(root, otherwise="real")
    manifest = read_dataset(root, Reader(layout))
    if layout == "real":
        log.info(
            "%s has no table: its %d photos are taken to be real, and each to show another product. If some show the "
            "same one, group them first: realdamage manifest %s --layout real, then realdamage split %s "
            "--near-duplicates",
            *(root, len(manifest), root, root),
        )
    if recipe.source.splits:
        manifest = with_split_table(manifest, recipe.source.splits)
    table = manifest.table
    rows = table[(table["label"] == "real") & table["kind"].isin(("original", "damaged"))]
    if root.resolve() in {Path(str(each.root)).resolve() for each in recipe.include}:
        # An original whose edits are included comes with them.
        rows = rows[~rows["file_name"].isin(table.loc[table["label"] == "synthetic", "pair"])]
    if rows.empty:
        raise SynthesisError(
            f"{manifest.root}: no real photo of kind original or damaged to start from"
        )
    if recipe.source.per_source is not None:
        rows = rows.sample(frac=1.0, random_state=recipe.seed)
        if recipe.source.damaged_first:
            rows = rows.sort_values("kind", kind="stable")  # "damaged" before "original"
        rows = rows.groupby("source").head(recipe.source.per_source).sort_index()
    # Copies and pairs among the source photos hang together also after their bytes have changed.
    group = rows["group"].groupby(components(table)[rows.index]).transform("first")
    records: list[dict[str, Any]] = rows.assign(group=group).to_dict("records")  # type: ignore[assignment]
    return [
        Base(
            path=str(manifest.path(row["file_name"])),
            damage=row["damage"],
            condition="damaged" if row["kind"] == "damaged" else row["condition"] or "unknown",
            source=row["source"],
            group=row["group"],
            split=row["split"],
            licence=row["licence"],
        )
        for row in records
    ]


def drawn_damages(recipe: Recipe, bases: Sequence[Base]) -> list[str]:
    """Types to draw from, repeated by how often: those of the really damaged photos, so that no type means synthetic,
    and of each other type a little, so that none is unheard of."""
    if recipe.damages is not None or recipe.source.kind == "studio":
        return list(recipe.damages or DAMAGES)
    found = [base.damage for base in bases if base.damage]
    rare = max(1, len(found) // 100)
    return [*found, *(damage for damage in DAMAGES for _ in range(rare))]
