"""Makes data/sample: about 150 real product photos of four free sources, twelve of them with edits.

    python tests/trials/make_sample.py ../shared

Photos keep their size, are chosen by the hash of their bytes, one for each product, and stay in the
split that data/splits.csv gives them, so the packaged model was never trained on the sample's test
photos. All of them leave through the recipe's own writer, because nothing about the files may tell
an edit from a photo.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from realdamage.data.manifest import write_manifest
from realdamage.data.writer import TablePool
from realdamage.synthesis.codec import Codec
from realdamage.synthesis.engine import GeneratorSettings
from realdamage.synthesis.recipe import Base, Recipe
from realdamage.synthesis.runner import GroupMaker

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample"
QUALITY = (85, 92)
COUNTS = {
    "train": {"damaged": 20, "intact": 15, "clothing": 24, "grocery": 18},
    "val": {"damaged": 5, "intact": 4, "clothing": 5, "grocery": 4},
    "test": {"damaged": 9, "intact": 6, "clothing": 10, "grocery": 8},
    "policy": {"damaged": 7, "intact": 5, "clothing": 6, "grocery": 5},
}
"""Photos of each split; `damaged` and `intact` are those of trashnet that were labelled with
confidence."""
CAMERAS = ("50db46a1b3", "87f1e27464", "6f80fd2d0a", "f5914c584d")
"""Cuts of camera photos that show things one can buy; the other 88 show landscapes, houses or
people."""
PAPERS = (
    "paper168.jpg",
    "paper272.jpg",
    "paper337.jpg",
    "paper449.jpg",
    "paper497.jpg",
    "paper525.jpg",
    "paper528.jpg",
    "paper576.jpg",
)
"""Of trashnet's paper these show neither faces nor addresses."""
LEFT_OUT = (
    *("metal385", "metal207", "cardboard84", "plastic439", "Arla-Natural", "Arla-Mild"),
    *("2ac96388", "6f12f05e", "c3aff407", "49859c1d", "70ebbf0b"),
    *("plastic452", "plastic454", "metal270", "metal144", "7e200cc9"),
)
"""Printed faces, the mark of somebody's phone, or the same thing as in another split."""
EDITED: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("metal223", 0, ("ai_region",)),
    ("Tropicana-Apple-Juice_021", 9, ("annotated", "ai_region", "ai_whole")),
    ("metal288", 0, ("ai_region",)),
    ("metal246", 0, ("annotated", "ai_region", "ai_whole")),
    ("76b4dcdf", 4, ("ai_region", "ai_whole", "pasted")),
    ("cardboard176", 0, ("ai_region",)),
    ("da73c56d", 4, ("ai_region", "ai_whole")),
    ("metal330", 0, ("ai_region", "ai_whole")),
    ("Tropicana-Juice-Smooth_001", 9, ("ai_region",)),
    ("glass152", 4, ("annotated", "pasted")),
    ("plastic237", 0, ("ai_region",)),
    ("plastic359", 0, ("ai_region", "ai_whole")),
)
"""The first photos of the sample: the start of the name, the seed (chosen by eye), and what is made
of each."""
PAINTED = ("torn", "stained", "crushed", "creased", "dented", "broken")
"""The damage types of the real photos, so that no type means synthetic."""
SOURCES = {
    "cameras": "free use, contributors of github.com/drewnoakes/metadata-extractor-images",
    "clothing": "CC0-1.0, Alexey Grigorev and others (github.com/alexeygrigorev/clothing-dataset)",
    "grocery": "MIT, © 2019 Marcus Klasson (github.com/marcusklasson/GroceryStoreDataset)",
    "trashnet": "MIT, © 2017 Gary Thung (github.com/garythung/trashnet)",
}


def candidates(shared: Path) -> pd.DataFrame:
    """All photos that may be taken: file_name, source, condition, damage, licence, group, split,
    path, sha256."""
    splits = pd.read_csv(ROOT / "data" / "splits.csv", dtype=str).set_index("sha256")
    found = []
    for folder in ("photos", "wild"):
        table = pd.read_csv(shared / folder / "metadata.csv", dtype=str).fillna("")
        table["path"] = [str(shared / folder / name) for name in table["file_name"]]
        found.append(table)
    table = pd.concat(found).fillna("").reset_index(drop=True)
    name = table["file_name"].str.split("/").str[-1]
    unsure = (table["source"] == "trashnet") & (table["condition_confidence"] != "high")
    cameras = (table["source"] == "cameras") & name.str.removesuffix(".jpg").isin(CAMERAS)
    wanted = table["source"].isin(("trashnet", "grocery", "clothing")) | cameras
    printed = name.str.startswith("paper") & ~name.isin(PAPERS)
    table = table[wanted & ~unsure & ~printed & ~name.str.startswith(LEFT_OUT)].copy()
    table["sha256"] = [
        hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table["path"]
    ]
    return table.drop(columns=["group", "split"], errors="ignore").join(
        splits[["group", "split"]], on="sha256"
    )


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """The photos of the sample, those to be edited first; of each product one, of groceries one of
    each in turn."""
    stem = table["file_name"].str.split("/").str[-1]
    edited = [table.index[stem.str.startswith(start)][0] for start, _, _ in EDITED]
    sort = table["condition"].where(table["source"] == "trashnet", table["source"])
    table = table.assign(sort=sort).sort_values("sha256")
    first = table.index.isin(edited)
    table = pd.concat([table[first], table[~first]])
    # A group is one product; of the groceries, whose groups are large, several are taken in turn.
    once = table[(table["source"] == "grocery") | ~table["group"].duplicated()]
    what = once["damage"].where(once["damage"] != "", once["category"])
    turn = once.groupby(["split", "sort", what]).cumcount()
    ranked = once.assign(turn=turn.mask(once.index.isin(edited), -1)).sort_values(
        "turn", kind="stable"
    )
    parts = [ranked[ranked["sort"] == "cameras"]]
    for split, counts in COUNTS.items():
        for kind, count in counts.items():
            pool = ranked[(ranked["split"] == split) & (ranked["sort"] == kind)]
            if len(pool) < count:
                raise SystemExit(f"{split}, {kind}: {len(pool)} photos, {count} wanted")
            parts.append(pool.head(count))
    taken = pd.concat(parts)
    rest = taken.drop(index=edited).sort_values("sha256")
    return pd.concat([taken.loc[edited], rest])


def make(shared: Path, out: Path) -> pd.DataFrame:
    """Writes photos, masks, metadata.csv and NOTICE.md; returns the manifest."""
    photos = chosen(candidates(shared))
    house = GeneratorSettings("house", "house")
    recipe = Recipe(generators={"house": house}, damages=list(PAINTED), overlay_share=0.0)
    pool = TablePool.of_qualities(*QUALITY)
    maker = GroupMaker(recipe, {"house": Codec("house", house, {})}, pool, [])
    shutil.rmtree(out, ignore_errors=True)
    rows = []
    for index, row in enumerate(photos.to_dict("records")):
        _, seed, kinds = EDITED[index] if index < len(EDITED) else ("", 0, ())
        base = Base(
            path=row["path"],
            damage=row["damage"],
            condition=row["condition"],
            source=row["source"],
            group=row["group"],
            split=row["split"],
            licence=row["licence"],
            shares=dict.fromkeys(kinds, 1.0),
            # Damage must not mean synthetic: of the things known to be intact, edits show none.
            paint_share=float(row["condition"] == "unknown"),
        )
        made = maker.group(base, index, out, np.random.default_rng([seed, index]))
        rows += [each | {"origin": row["file_name"]} for each in made]
    table = pd.DataFrame(rows)
    write_manifest(out, table)
    counts = Counter(photos["source"])
    lines = "\n".join(f"| {name} | {counts[name]} | {SOURCES[name]} |" for name in SOURCES)
    notice = Path(__file__).with_name("sample_notice.md").read_text()
    (out / "NOTICE.md").write_text(notice.replace("{rows}", lines))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder that holds photos/ and wild/")
    parser.add_argument("--out", type=Path, default=SAMPLE, help="default: data/sample")
    options = parser.parse_args()
    table = make(options.shared, options.out)
    print(table.value_counts(["split", "kind"], sort=False).unstack(fill_value=0))
