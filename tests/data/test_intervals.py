"""The bootstrap covers what it should and resamples whole groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from realdamage.data.intervals import ResampledRoc, bootstrap_interval


def mean_of(values: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda weights: (weights * values).sum() / weights.sum()


def test_the_interval_of_a_mean_agrees_with_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(mean_of(values), np.arange(400), n_boot=2000)
    error = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert low == pytest.approx(values.mean() - error, abs=0.01)
    assert high == pytest.approx(values.mean() + error, abs=0.01)


def test_photos_of_one_group_do_not_count_as_independent() -> None:
    values = np.random.default_rng(0).normal(size=40)
    single = bootstrap_interval(mean_of(values), np.arange(40))
    repeated = bootstrap_interval(mean_of(np.repeat(values, 25)), np.repeat(np.arange(40), 25))
    assert repeated[1] - repeated[0] == pytest.approx(single[1] - single[0])


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=40)
    ends = [bootstrap_interval(mean_of(values), np.arange(40), seed=seed)[0] for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_undefined_draws_are_left_out_and_a_mostly_undefined_figure_is_nan() -> None:
    draws = iter(range(500))

    def statistic(weights: np.ndarray) -> list[float]:
        draw = next(draws)
        return [1.0 if draw % 4 else np.nan, np.nan if draw % 4 else 1.0]

    low, high = bootstrap_interval(statistic, np.arange(5))
    np.testing.assert_array_equal(low, [1.0, np.nan])
    np.testing.assert_array_equal(high, [1.0, np.nan])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-4, 4), st.booleans(), st.integers(0, 3)), min_size=1, max_size=60
    )
)
def test_the_resampled_curve_is_that_of_scikit_learn(rows: list[tuple[int, bool, int]]) -> None:
    scores, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = ResampledRoc(scores, positive).figures(weights, (0.0, 0.01, 0.3, 1.0))
    if not weights[positive].any() or not weights[~positive].any():
        assert np.isnan(found).all()
        return
    drawn = weights > 0
    expected = roc_auc_score(positive[drawn], scores[drawn], sample_weight=weights[drawn])
    false, true, _ = roc_curve(positive, scores, sample_weight=weights, drop_intermediate=False)
    at = [true[false <= fpr + 1e-9].max() for fpr in (0.0, 0.01, 0.3, 1.0)]
    assert found == pytest.approx([expected, *at])
