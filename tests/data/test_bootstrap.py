"""The bootstrap covers what it should, draws whole groups, and stays within its memory."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest

from realdamage.data import bootstrap
from realdamage.data.bootstrap import GroupDraws, percentile_interval, rate_interval, share_interval


def interval_of_mean(values, groups, n_boot=500):
    draws = GroupDraws(groups, n_boot=n_boot).share(values, np.arange(len(values)))
    return percentile_interval(draws[1:])


def test_the_interval_of_a_mean_agrees_with_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval_of_mean(values, np.arange(400), n_boot=2000)
    error = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert low == pytest.approx(values.mean() - error, abs=0.01)
    assert high == pytest.approx(values.mean() + error, abs=0.01)


def test_photos_of_one_group_do_not_count_as_independent():
    values = np.random.default_rng(0).normal(size=40)
    single = interval_of_mean(values, np.arange(40))
    repeated = interval_of_mean(np.repeat(values, 25), np.repeat(np.arange(40), 25))
    assert repeated[1] - repeated[0] == pytest.approx(single[1] - single[0])


def test_undefined_draws_are_left_out_and_a_mostly_undefined_figure_is_nan():
    defined = np.arange(500) % 4 > 0
    draws = np.stack([np.where(defined, 1.0, np.nan), np.where(defined, np.nan, 1.0)])
    for end in percentile_interval(draws):
        np.testing.assert_array_equal(end, [1.0, np.nan])


@pytest.mark.parametrize("size", [1, 999])
def test_figures_do_not_depend_on_the_size_of_a_chunk(size, monkeypatch):
    scores = np.random.default_rng(0).normal(size=60)
    negatives, positives = np.arange(25), np.arange(25, 60)
    draws = GroupDraws(np.arange(60) // 2, n_boot=50)

    def figures():
        roc = draws.roc(scores, positives, negatives, (0.1,))
        return roc, draws.share(scores[positives] > 0, positives)

    roc, share = figures()
    monkeypatch.setattr(bootstrap, "_CHUNK", size)
    for found, expected in zip(figures(), (roc, share), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert roc.shape == (2, 51)
    assert share[0] == pytest.approx((scores[25:] > 0).mean())


@pytest.mark.parametrize(("count", "n"), [(0, 8), (3, 40), (8, 8)])
def test_an_exact_interval_is_that_of_scipy(count, n):
    exact = binomtest(count, n).proportion_ci(method="exact")
    assert share_interval(count, n) == pytest.approx((exact.low, exact.high))
    if count in (0, n):  # every draw agrees, which is no certainty
        assert rate_interval(np.full(20, count / n), n) == pytest.approx((exact.low, exact.high))


def test_memory_does_not_grow_with_the_number_of_draws():
    """The weights of all draws at once would be 40 MiB, several times over."""
    rows = np.arange(10_000)
    scores = np.random.default_rng(0).normal(size=10_000) + rows % 2
    tracemalloc.start()
    try:
        curve = GroupDraws(rows).roc(scores, rows[1::2], rows[::2], (0.01,))
        # Fewer draws where the number of figures is what would fill the memory.
        rates = np.geomspace(0.001, 1, 61).tolist()
        many = GroupDraws(rows, n_boot=50).roc(scores, rows[1::2], rows[::2], rates)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (curve.shape, many.shape) == ((2, 501), (62, 51))
    assert curve[0, 0] == pytest.approx(many[0, 0])
    assert peak < 40 * 2**20
