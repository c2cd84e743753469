"""Splits that cannot leak: photos of one product, of one pair or of the same bytes stay together, and every kind and
source is spread over all splits in the same shares.
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

    Photos hang together when they share a group, when one is the other's pair, when they share a pair, or when their
    `sha256` is equal; and so on along the chain. Empty values join nothing. Numbered by the smallest file name, so the
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
    linked = codes >= 0
    n_nodes = len(table) + len(uniques)
    edges = (np.ones(int(linked.sum()), dtype=np.int8), (rows[linked], codes[linked] + len(table)))
    _, labels = connected_components(coo_matrix(edges, shape=(n_nodes, n_nodes)), directed=False)
    first_name = table["file_name"].groupby(labels[: len(table)]).transform("min")
    return np.asarray(first_name.rank(method="dense"), dtype=np.int64) - 1


def assign_splits(
    table: pd.DataFrame,
    fractions: Mapping[str, float],
    seed: int,
    damaged: Mapping[str, float] | None = None,
) -> pd.Series:
    """A split for every row, as a series named `split` with the table's index; the column `split` is not looked at.

    Components (see `components`) are dealt within each stratum (the kinds and sources they hold), the largest first,
    to the split that lacks most photos; what one stratum leaves over, the next one settles. The same photos, fractions
    and seed give the same splits in every order of rows.

    `fractions`: share of the photos per split, in 0..1, summing to 1; `damaged`: the same for groups with a really
    damaged photo (None: as `fractions`), because false alarms are counted on these and a promise needs many of them.
    Raises UsageError: a fraction or a split name is wrong; ManifestError: a split would stay empty.
    """
    damaged = fractions if damaged is None else damaged
    for given in (fractions, damaged):
        _check_fractions(given)
    names = [
        split for split in SPLITS if fractions.get(split, 0.0) > 0 or damaged.get(split, 0.0) > 0
    ]
    shares, damaged_shares = (
        np.array([given.get(split, 0.0) for split in names]) for given in (fractions, damaged)
    )
    component = components(table)
    sizes = np.bincount(component)
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(sizes), dtype=np.int64)
    lacking = np.zeros(len(names))
    for members, holds_damage in _strata(table, component):
        lacking += (damaged_shares if holds_damage else shares) * sizes[members].sum()
        shuffled = rng.permutation(members)
        for member in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            chosen[member] = np.argmax(lacking)
            lacking[chosen[member]] -= sizes[member]
    for position, split in enumerate(names):
        if not (chosen == position).any():
            raise ManifestError(
                f"The split {split!r} (share {fractions.get(split, 0.0):g}) would get no photo: "
                f"the {len(table)} photos form only {len(sizes)} groups that may not be separated. "
                "Add groups, or raise that share."
            )
    return pd.Series(
        np.array(names, dtype=object)[chosen[component]], index=table.index, name="split"
    )


def split_command(manifest: Manifest, folder: Path) -> str:
    """The command that splits these photos, written into `folder`. Where neither `group` nor `pair` tells who belongs
    together, an edit and its original would land on different sides, unless the photos are looked at."""
    table = manifest.table
    told = (table["pair"] != "").any() or (table["group"] != table["file_name"]).any()
    return f"realdamage split {folder}" + ("" if told else " --near-duplicates")


def check_splits(table: pd.DataFrame) -> None:
    """Raises ManifestError: photos that hang together (see `components`) lie in different splits; names the first.

    Photos without a split are not looked at.
    """
    component = pd.Series(components(table), index=table.index)
    used = table["split"] != ""
    crossing = table["split"][used].groupby(component[used]).transform("nunique") > 1
    bad = table[used][crossing]
    if bad.empty:
        return
    first = component[used][crossing].min()
    together = bad[component[used][crossing] == first]
    a = together.iloc[0]
    b = together[together["split"] != a["split"]].iloc[0]
    n_groups = component[used][crossing].nunique()
    raise ManifestError(
        f"{a['file_name']!r} is in split {a['split']!r} and {b['file_name']!r} in {b['split']!r}, but they share a "
        f"group, a pair or their bytes ({n_groups} such groups, {len(bad)} photos). Give each group one split, "
        "or assign them anew: realdamage split FOLDER --overwrite."
    )


def write_split_table(path: str | Path, manifest: Manifest, table: pd.DataFrame) -> Path:
    """Writes who is in which split apart from the photos: file_name, sha256, group, split of each row of `table`, so
    that splits can be kept and published where the photos cannot. Reads every file for its digest."""
    digests = [
        hashlib.sha256(manifest.path(name).read_bytes()).hexdigest() for name in table["file_name"]
    ]
    rows = table[["file_name", "group", "split"]].assign(sha256=digests)
    write_atomically(
        path, rows[list(_SPLIT_TABLE)].to_csv(index=False, lineterminator="\n").encode()
    )
    return Path(path)


def with_split_table(manifest: Manifest, path: str | Path) -> Manifest:
    """The manifest with groups and splits as a split table says (see `write_split_table`); rows are found by name.

    Raises ManifestError: no such table, a photo that it does not list, or one whose bytes are not those it was written
    for: the splits would then hold other photos than the ones that were locked away.
    """
    try:
        listed = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: the split table cannot be read ({error}).") from error
    if list(listed.columns) != list(_SPLIT_TABLE):
        raise ManifestError(
            f"{path}: not a split table; its columns are {', '.join(listed.columns)}, not {', '.join(_SPLIT_TABLE)}. "
            "Write one with: realdamage split DIR --output FILE"
        )
    by_name = listed.set_index("file_name")
    table = manifest.table
    missing = table.loc[~table["file_name"].isin(by_name.index), "file_name"]
    if len(missing):
        raise ManifestError(
            f"{path}: {missing.iloc[0]!r} of {manifest.root} is not in the split table ({len(missing)} such photos). "
            "Write the table anew: realdamage split DIR --output FILE --overwrite"
        )
    found = by_name.loc[table["file_name"]]
    for name, digest in zip(table["file_name"], found["sha256"], strict=True):
        if hashlib.sha256(manifest.path(name).read_bytes()).hexdigest() != digest:
            raise ManifestError(
                f"{manifest.path(name)}: not the photo that {path} was written for; its bytes differ."
            )
    return replace(
        manifest,
        table=table.assign(group=found["group"].to_numpy(), split=found["split"].to_numpy()),
    )


def _check_fractions(fractions: Mapping[str, float]) -> None:
    for split, share in fractions.items():
        if split not in SPLITS:
            raise UsageError(
                f"Unknown split {split!r} among the fractions; allowed: {', '.join(SPLITS)}."
            )
        if not 0 <= share <= 1:
            raise UsageError(f"The fraction of split {split!r} is {share}; it must lie in 0..1.")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-6:
        shares = ", ".join(f"{split}={share:g}" for split, share in fractions.items())
        raise UsageError(f"The fractions of the splits sum to {total:g}, not to 1: {shares}.")


def _strata(
    table: pd.DataFrame, component: npt.NDArray[np.int64]
) -> list[tuple[npt.NDArray[np.int64], bool]]:
    """The component numbers of each stratum (those that hold the same kinds of the same sources), and whether it holds
    really damaged photos."""
    held = (table["kind"] + "\t" + table["source"]).groupby(component)
    signature = held.agg(lambda values: "\n".join(sorted(set(values))))
    strata = signature.groupby(signature, sort=True)
    return [
        (
            np.asarray(members.index, dtype=np.int64),
            any(line.startswith("damaged\t") for line in kinds.split("\n")),
        )
        for kinds, members in strata
    ]
