"""Splits that cannot leak.

Photos of one product, of one pair or of the same bytes stay together, and every kind and source is
spread over all splits in the same shares.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from realdamage.data.manifest import Manifest
from realdamage.data.vocabulary import SPLITS
from realdamage.errors import ManifestError, UsageError
from realdamage.files import write_atomically

_SPLIT_TABLE = ("file_name", "sha256", "group", "split")


def components(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """A number per row, int [n]: equal for photos that must not be separated.

    Photos are linked when they share a group, a pair or their `sha256`, or when one is the other's
    pair; and through others. Empty values link nothing. Numbered by the smallest file name, so the
    order of the rows does not matter.
    """
    keys = [
        "file:" + table["file_name"],
        "group:" + table["group"].where(table["group"] != ""),
        "file:" + table["pair"].where(table["pair"] != ""),
        "bytes:" + table["sha256"].where(table["sha256"] != ""),
    ]
    codes, uniques = pd.factorize(pd.concat(keys, ignore_index=True))
    rows = np.tile(np.arange(len(table)), len(keys))
    edges = np.stack([rows, codes + len(table)], axis=1)[codes >= 0]
    labels = linked(len(table) + len(uniques), edges)[: len(table)]
    first_name = table["file_name"].groupby(labels).transform("min")
    return np.asarray(first_name.rank(method="dense"), dtype=np.int64) - 1


def linked(n: int, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The connected component of each of n nodes, int [n], numbered by their first node.

    edges: int [m, 2].
    """
    graph = coo_matrix((np.ones(len(edges), np.int8), tuple(edges.T)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(pd.factorize(labels)[0], dtype=np.int64)


def assign_splits(
    table: pd.DataFrame,
    fractions: Mapping[str, float],
    seed: int,
    damaged: Mapping[str, float] | None = None,
) -> pd.Series:
    """A split for every row, as a series named `split` with the table's index.

    Components are dealt within each stratum (the kinds and sources they hold), the largest first,
    to the split that lacks most photos. Any remainder is carried over to the next stratum. The
    order of the rows does not matter.

    fractions: share of the photos per split, in 0..1, summing to 1.
    damaged: the same for groups with a really damaged photo; None: as `fractions`. False alarms
        are counted on these, and a guarantee needs many of them.
    Raises UsageError: a wrong fraction or split name. ManifestError: a split would stay empty.
    """
    damaged = fractions if damaged is None else damaged
    for given in (fractions, damaged):
        check_fractions(given)
    names = [split for split in SPLITS if fractions.get(split, 0) > 0 or damaged.get(split, 0) > 0]
    shares = np.array([fractions.get(split, 0.0) for split in names])
    damaged_shares = np.array([damaged.get(split, 0.0) for split in names])
    component = components(table)
    sizes = np.bincount(component)
    held = (table["kind"] + "\t" + table["source"]).groupby(component)
    stratum = held.agg(lambda values: "\n".join(sorted(set(values))))
    holds_damage = (table["kind"] == "damaged").groupby(component).any()
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(sizes), dtype=np.int64)
    lacking = np.zeros(len(names))
    for _, group in stratum.groupby(stratum, sort=True):
        members = np.asarray(group.index, dtype=np.int64)
        lacking += (damaged_shares if holds_damage[members[0]] else shares) * sizes[members].sum()
        shuffled = rng.permutation(members)
        for member in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            chosen[member] = np.argmax(lacking)
            lacking[chosen[member]] -= sizes[member]
    for position, split in enumerate(names):
        if not (chosen == position).any():
            raise ManifestError(
                f"The split {split!r} (share {fractions.get(split, 0.0):g}) would get no photo: the"
                f" {len(table)} photos form only {len(sizes)} groups that must not be separated. "
                "Add groups, or raise that share."
            )
    assigned = np.array(names, dtype=object)[chosen[component]]
    return pd.Series(assigned, index=table.index, name="split")


def split_command(manifest: Manifest, folder: Path) -> str:
    """The command that splits these photos, written into `folder`.

    Without `group` and `pair`, only looking at the photos shows which edit belongs to which
    original.
    """
    table = manifest.table
    linked = (table["pair"] != "").any() or (table["group"] != table["file_name"]).any()
    return f"realdamage split {folder}" + ("" if linked else " --near-duplicates")


def crossings(table: pd.DataFrame, component: npt.NDArray[np.int64]) -> pd.DataFrame:
    """The first photo of each split of each component that is in several splits, with a column
    `component`. Photos without a split are ignored."""
    used = table.assign(component=component)[table["split"] != ""]
    crossing = used[used.groupby("component")["split"].transform("nunique") > 1]
    return crossing.drop_duplicates(["component", "split"])


def check_splits(table: pd.DataFrame) -> None:
    """Raises ManifestError: linked photos (see `components`) are in different splits."""
    found = crossings(table, components(table))
    if len(found):
        together = found[found["component"] == found["component"].min()]
        a, b = (f"{n!r} is in split {s!r}" for n, s in together[["file_name", "split"]].values[:2])
        raise ManifestError(
            f"{a} and {b}, but they share a group, a pair or their bytes "
            f"({found['component'].nunique()} such groups). Give each group one split, or assign "
            "new ones: realdamage split FOLDER --overwrite."
        )


def write_split_table(path: str | Path, manifest: Manifest, table: pd.DataFrame) -> Path:
    """Writes file_name, sha256, group and split of each row of `table` as a CSV file.

    So splits can be kept and published where the photos cannot. Reads every photo's bytes.
    """
    rows = table.assign(sha256=[_digest(manifest, name) for name in table["file_name"]])
    text = rows[list(_SPLIT_TABLE)].to_csv(index=False, lineterminator="\n")
    write_atomically(path, text.encode())
    return Path(path)


def with_split_table(manifest: Manifest, path: str | Path) -> Manifest:
    """The manifest with groups and splits from a split table (see `write_split_table`).

    Rows are matched by file name. Raises ManifestError: no such table, a photo that is not in it,
    or one with other bytes: then the splits would not hold the photos that were set apart.
    """
    try:
        listed = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: the split table cannot be read ({error}).") from error
    if list(listed.columns) != list(_SPLIT_TABLE):
        raise ManifestError(
            f"{path}: not a split table; its columns are {', '.join(listed.columns)}, not "
            f"{', '.join(_SPLIT_TABLE)}. Write one with: realdamage split DIR --output FILE"
        )
    by_name = listed.set_index("file_name")
    table = manifest.table
    missing = table.loc[~table["file_name"].isin(by_name.index), "file_name"]
    if len(missing):
        raise ManifestError(
            f"{path}: {missing.iloc[0]!r} of {manifest.root} is not in the split table "
            f"({len(missing)} such photos). "
            "Write a new table: realdamage split DIR --output FILE --overwrite"
        )
    found = by_name.loc[table["file_name"]]
    for name, digest in zip(table["file_name"], found["sha256"], strict=True):
        if _digest(manifest, name) != digest:
            raise ManifestError(
                f"{manifest.path(name)}: its bytes differ from those of the photo in {path}."
            )
    columns = {column: found[column].to_numpy() for column in ("group", "split")}
    return replace(manifest, table=table.assign(**columns))


def _digest(manifest: Manifest, name: str) -> str:
    return hashlib.sha256(manifest.path(name).read_bytes()).hexdigest()


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises UsageError: an unknown split, a share out of range, or shares that do not sum to 1."""
    for split, share in fractions.items():
        if split not in SPLITS:
            raise UsageError(
                f"Unknown split {split!r} among the fractions; allowed: {', '.join(SPLITS)}."
            )
        if not 0 <= share <= 1:
            raise UsageError(f"The fraction of split {split!r} is {share}; it must be in 0..1.")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-6:
        shares = ", ".join(f"{split}={share:g}" for split, share in fractions.items())
        raise UsageError(f"The fractions of the splits sum to {total:g}, not to 1: {shares}.")
