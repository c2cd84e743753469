"""Splits keep linked photos together, keep their shares, and depend on content and seed only."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realdamage.data.splits import assign_splits, check_splits, components
from realdamage.errors import ManifestError, UsageError

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def table_of(n, **columns):
    empty = dict.fromkeys(("group", "pair", "sha256", "split", "kind", "source"), "")
    return pd.DataFrame({"file_name": [f"{i:04}.jpg" for i in range(n)], **empty, **columns})


@st.composite
def linked_tables(draw):
    n = draw(st.integers(20, 40))
    some = st.lists(st.integers(0, n - 1), min_size=n, max_size=n)
    groups, pairs, kinds = draw(some), draw(some), draw(some)
    return table_of(
        n,
        group=[f"g{value}" if value % 2 else "" for value in groups],
        pair=[f"{v:04}.jpg" if v % 5 == 0 and v != i else "" for i, v in enumerate(pairs)],
        kind=[("original", "damaged", "ai_region")[value % 3] for value in kinds],
    )


@settings(max_examples=12, deadline=None)
@given(linked_tables(), st.integers(0, 3))
def test_no_group_and_no_pair_is_ever_separated(table, seed):
    try:
        split = assign_splits(table, SHARES, seed)
    except ManifestError:  # everything hangs together: refused, never torn apart
        assert len(np.unique(components(table))) < len(table) / 3
        return
    of_pair = table["pair"].map(dict(zip(table["file_name"], split, strict=True)))
    assert (of_pair.isna() | (of_pair == split)).all()
    assert (split.groupby(table["group"].where(table["group"] != "")).nunique() == 1).all()
    check_splits(table.assign(split=split))


def test_components_follow_the_chain_and_ignore_empty_values():
    table = table_of(
        6,
        group=["shoe", "shoe", "", "", "", ""],
        pair=["", "", "0001.jpg", "", "", ""],
        sha256=["", "", "d1", "d1", "", ""],
    )
    assert components(table).tolist() == [0, 0, 0, 0, 1, 2]


def test_every_kind_and_source_has_the_same_shares():
    rng = np.random.default_rng(0)
    kinds = rng.choice(["original", "damaged", "ai_region"], 1000, p=[0.7, 0.1, 0.2]).tolist()
    table = table_of(1000, kind=kinds, source=rng.choice(["a", "b"], 1000).tolist())
    split = assign_splits(table, SHARES, 0)
    counts = pd.crosstab(table["kind"] + table["source"], split)
    for name, share in SHARES.items():
        assert abs((split == name).mean() - share) <= 0.002
        # A stratum may owe the next one at most its last photos.
        assert (counts[name] - share * counts.sum(axis=1)).abs().max() <= 2


def test_the_seed_decides_and_the_order_of_the_rows_does_not():
    table = table_of(100, group=[f"g{i // 3}" for i in range(100)])
    first = assign_splits(table, SHARES, 0)
    shuffled = table.sample(frac=1, random_state=1)
    again = assign_splits(shuffled, SHARES, 0)
    assert again.index.equals(shuffled.index)
    pd.testing.assert_series_equal(first, again.sort_index())
    assert (assign_splits(table, SHARES, 1) != first).sum() > 20


@pytest.mark.parametrize(
    ("fractions", "named"),
    [
        ({"train": 0.8, "dev": 0.2}, "'dev'"),
        ({"train": 0.8, "val": 0.1}, r"0\.9.*train=0\.8, val=0\.1"),
        ({"train": 0.99, "val": 0.01}, "'val' .share 0.01.*5 photos.*5 groups"),
    ],
)
def test_fractions_that_cannot_be_met_are_refused(fractions, named):
    with pytest.raises((ManifestError, UsageError), match=named):
        assign_splits(table_of(5), fractions, 0)


def test_a_crossing_is_named_and_rows_without_a_split_are_not_looked_at():
    table = table_of(4, group=["shoe", "", "shoe", "shoe"], split=["train", "val", "test", ""])
    with pytest.raises(
        ManifestError, match=r"'0000.jpg' is in split 'train' and '0002.jpg' is in split 'test'"
    ):
        check_splits(table)
    check_splits(table.assign(split=["train", "val", "train", ""]))
