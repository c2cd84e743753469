"""A guarantee holds with the confidence it states, or it is refused."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from realdamage.core.policy import Policy
from realdamage.errors import RealDamageError
from realdamage.evaluation.guarantee import (
    Targets,
    allowed_errors,
    check_enough,
    one_per_group,
    photos_needed,
    smallest_share,
    threshold_allowing,
    upper_bound,
    with_guarantee,
)
from realdamage.evaluation.predictions import predictions_table

POLICY = Policy(
    t_synthetic=0.5, t_real=-0.5, fpr=0.01, miss=0.05, negatives="real", photos={"real": 1}
)
shares = st.floats(0.005, 0.6)
deltas = st.sampled_from([0.01, 0.05, 0.1, 0.3])


def predictions_of(damaged, synthetic, per_group=1):
    """Damaged and synthetic photos, and 50 intact ones with scores far above all."""
    n = len(damaged) + len(synthetic) + 50
    sizes = [len(damaged), len(synthetic), 50]
    columns = {
        "file_name": [f"{i:04d}.jpg" for i in range(n)],
        "label": np.repeat(["real", "synthetic", "real"], sizes),
        "kind": np.repeat(["damaged", "ai_region", "original"], sizes),
        "group": [f"g{i // per_group}" for i in range(n)],
        "score": np.concatenate([damaged, synthetic, np.full(50, 1e6)]),
    }
    return predictions_table(pd.DataFrame(columns))


def guaranteed(table, targets):
    policy = with_guarantee(POLICY, table, targets, split="policy", manifest_sha256="ab" * 32)
    assert policy.guarantee is not None
    return policy, policy.guarantee


def test_the_fewest_photos_are_those_that_the_design_names():
    assert [photos_needed(share, 0.05) for share in (0.05, 0.03, 0.01)] == [59, 99, 299]
    for share, needed in ((0.05, 59), (0.03, 99), (0.01, 299)):
        assert allowed_errors(needed, share, 0.05) == 0
        assert allowed_errors(needed - 1, share, 0.05) is None
    # One error takes 93 photos for 5%, a known figure of acceptance sampling.
    assert [allowed_errors(n, 0.05, 0.05) for n in (92, 93, 123, 124)] == [0, 1, 1, 2]
    assert allowed_errors(0, 0.5, 0.5) is None
    assert smallest_share(0, 0.05) is None
    assert upper_bound(0, 0, 0.05) == upper_bound(3, 3, 0.05) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), shares, deltas)
def test_allowed_errors_are_the_most_that_the_binomial_tail_rejects(n, share, delta):
    allowed = allowed_errors(n, share, delta)
    fewest = 0 if allowed is None else allowed + 1
    assert binomtest(fewest, n, share, alternative="less").pvalue > delta
    if allowed is not None:
        assert binomtest(allowed, n, share, alternative="less").pvalue <= delta
        interval = binomtest(allowed, n, alternative="less").proportion_ci(1 - delta, "exact")
        assert upper_bound(allowed, n, delta) == pytest.approx(interval.high)
        assert interval.high <= share + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2000), deltas)
def test_the_smallest_share_can_be_guaranteed_and_little_less_cannot(n, delta):
    share = smallest_share(n, delta)
    if share is None:
        assert delta ** (1 / n) < 1e-4
        return
    assert allowed_errors(n, share, delta) == 0
    assert allowed_errors(n, share - 0.00021, delta) is None
    assert photos_needed(share, delta) <= n


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-5, 5).map(lambda value: value / 3), min_size=20, max_size=90),
    shares,
    deltas,
)
def test_the_threshold_is_where_a_walk_over_all_scores_stops(values, share, delta):
    scores = np.array(values)
    allowed = allowed_errors(len(scores), share, delta)
    stop = None
    for threshold in [np.inf, *(np.nextafter(score, np.inf) for score in np.unique(scores)[::-1])]:
        errors = int((scores >= threshold).sum())
        if binomtest(errors, len(scores), share, alternative="less").pvalue > delta:
            break
        stop = threshold
    assert (stop is None) == (allowed is None)
    if allowed is not None:
        assert threshold_allowing(scores, allowed) == stop


def test_a_known_set_gives_a_known_guarantee():
    table = predictions_of(np.arange(93.0), np.arange(50.0, 250.0))
    policy, guarantee = guaranteed(table, Targets(alpha=0.05))
    # One error is allowed: 92 alone is accused.
    assert policy.t_synthetic == np.nextafter(91, np.inf)
    assert (policy.fpr, policy.negatives, policy.t_real) == (0.05, "damaged", -0.5)
    bound = guarantee.accused
    assert bound is not None
    assert (bound.share, bound.photos, bound.drawn_from) == (0.05, 93, 93)
    assert (bound.errors, bound.allowed, guarantee.passed) == (1, 1, None)
    assert bound.upper == pytest.approx(0.04999, abs=1e-5)
    assert (guarantee.delta, guarantee.split, guarantee.seed) == (0.05, "policy", 0)
    assert "95% confidence, at most 5%" in guarantee.statement


def test_one_photo_counts_of_every_group():
    table = predictions_of(np.arange(200.0), np.arange(200.0), per_group=2)
    bound = guaranteed(table, Targets(alpha=0.05))[1].accused
    assert bound is not None
    assert (bound.photos, bound.drawn_from, bound.allowed) == (100, 200, 1)
    crowded = predictions_of(np.arange(200.0), np.arange(200.0), per_group=4)
    with pytest.raises(RealDamageError, match=r"50 independent .*200 photos"):
        guaranteed(crowded, Targets(alpha=0.05))
    alone = predictions_of(np.arange(59.0), np.zeros(1)).assign(group="")
    assert len(one_per_group(alone, 0)) == len(alone)


def test_the_draw_depends_on_the_seed_alone():
    table = predictions_of(np.arange(90.0), np.zeros(0), per_group=3)
    drawn = one_per_group(table, seed=3)
    assert sorted(drawn["group"]) == sorted(table["group"].unique())
    shuffled = one_per_group(table.sample(frac=1, random_state=0), seed=3)
    assert list(shuffled["file_name"]) == list(drawn["file_name"])
    draws = [one_per_group(table, seed)["file_name"] for seed in range(60)]
    # Every photo of a group of three is drawn about every third time.
    counts = pd.concat(draws).value_counts().reindex(table["file_name"][:90])
    assert counts.between(6, 36).all()


def test_a_refusal_says_how_many_photos_it_takes_and_what_these_allow():
    table = predictions_of(np.arange(110.0), np.arange(20.0))
    with pytest.raises(RealDamageError) as refusal:
        check_enough(Targets(alpha=0.01), table, "photos/: split 'policy'")
    for part in ("110 independent", "takes 299", "alpha=0.0269"):
        assert part in str(refusal.value)
    assert (refusal.value.code, refusal.value.exit_code) == ("too_few_photos", 3)
    check_enough(Targets(alpha=0.0269), table, "photos")
    with pytest.raises(RealDamageError, match="0 independent"):  # intact photos do not stand in
        check_enough(Targets(alpha=0.5), predictions_of(np.zeros(0), np.zeros(5)), "photos")


REPETITIONS, GROUPS = 3000, 93  # so many products allow one error
SIZES = np.resize(np.arange(8) + 1, GROUPS)
"""Photos of each product."""


def drawn(correlation):
    """Calibration photos, drawn again and again from a made-up population of normal scores:
    [repetitions, photos]. correlation: between two photos of one product."""
    rng = np.random.default_rng(1)
    product = rng.standard_normal((REPETITIONS, GROUPS))
    shot = rng.standard_normal((REPETITIONS, SIZES.sum()))
    of_product = np.repeat(np.arange(GROUPS), SIZES)
    return np.sqrt(correlation) * product[:, of_product] + np.sqrt(1 - correlation) * shot


def held(scores, errors):
    """The 95% interval of how often at most 5% of the photos to come are accused."""
    assert errors is not None
    times = int((norm.sf(threshold_allowing(scores, errors)) <= 0.05).sum())
    found = binomtest(times, REPETITIONS).proportion_ci(method="exact")
    return float(found.low), float(found.high)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_one_photo_of_each_product_holds_as_often_as_said_and_its_look_alikes_do_not(correlation):
    every = drawn(correlation)
    one = every[:, np.cumsum(SIZES) - SIZES]
    allowed = allowed_errors(GROUPS, 0.05, 0.05)
    low, high = held(one, allowed)
    assert low <= binom.sf(allowed, GROUPS, 0.05) <= high
    # The rate on the calibration photos guarantees nothing.
    assert held(one, math.floor(0.05 * GROUPS))[1] < 0.7
    # Photos of one product are not independent where they are alike.
    assert (held(every, allowed_errors(every.shape[1], 0.05, 0.05))[1] < 0.85) == (correlation > 0)
