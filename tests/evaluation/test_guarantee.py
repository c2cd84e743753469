"""A promise is kept with the confidence it states, or it is not given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from realdamage.core.policy import Guarantee, Policy
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.guarantee import (
    Promise,
    allowed_errors,
    check_enough,
    one_per_group,
    photos_needed,
    smallest_share,
    threshold_allowing,
    upper_bound,
    with_guarantee,
)
from realdamage.evaluation.predictions import PREDICTION_COLUMNS

POLICY = Policy(
    t_synthetic=0.5, t_real=-0.5, fpr=0.01, miss=0.05, negatives="real", photos={"real": 1}
)
shares = st.floats(0.005, 0.6)
deltas = st.sampled_from([0.01, 0.05, 0.1, 0.3])


def predictions_of(damaged: np.ndarray, synthetic: np.ndarray, per_group: int = 1) -> pd.DataFrame:
    """Damaged and synthetic photos, so many of one group, and 50 intact ones with scores far above all."""
    n = len(damaged) + len(synthetic) + 50
    table = pd.DataFrame(
        {**dict.fromkeys(PREDICTION_COLUMNS, ""), "file_name": [f"{i:04d}.jpg" for i in range(n)]}
    )
    return table.assign(
        label=["real"] * len(damaged) + ["synthetic"] * len(synthetic) + ["real"] * 50,
        kind=["damaged"] * len(damaged) + ["ai_region"] * len(synthetic) + ["original"] * 50,
        group=[f"g{i // per_group}" for i in range(n)],
        score=np.concatenate([damaged, synthetic, np.full(50, 1e6)]),
    )


def promised(table: pd.DataFrame, promise: Promise) -> tuple[Policy, Guarantee]:
    policy = with_guarantee(
        POLICY, table, promise, split="split 'policy'", manifest_sha256="ab" * 32
    )
    assert policy.guarantee is not None
    return policy, policy.guarantee


def test_the_fewest_photos_are_those_that_the_design_names() -> None:
    assert [photos_needed(share, 0.05) for share in (0.05, 0.03, 0.01)] == [59, 99, 299]
    for share, needed in ((0.05, 59), (0.03, 99), (0.01, 299)):
        assert allowed_errors(needed, share, 0.05) == 0
        assert allowed_errors(needed - 1, share, 0.05) is None
    # One error takes 93 photos for 5%, a known figure of acceptance sampling.
    assert [allowed_errors(n, 0.05, 0.05) for n in (92, 93, 123, 124)] == [0, 1, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), shares, deltas)
def test_allowed_errors_are_the_most_that_the_binomial_tail_rejects(
    n: int, share: float, delta: float
) -> None:
    allowed = allowed_errors(n, share, delta)
    fewest = 0 if allowed is None else allowed + 1
    assert binomtest(fewest, n, share, alternative="less").pvalue > delta
    if allowed is not None:
        assert binomtest(allowed, n, share, alternative="less").pvalue <= delta
        interval = binomtest(allowed, n, alternative="less").proportion_ci(
            1 - delta, method="exact"
        )
        assert upper_bound(allowed, n, delta) == pytest.approx(interval.high)
        assert interval.high <= share + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), deltas)
def test_the_share_that_is_offered_can_be_promised_and_little_less_cannot(
    n: int, delta: float
) -> None:
    share = smallest_share(n, delta)
    if share is None:
        assert delta ** (1 / n) < 1e-4
        return
    assert allowed_errors(n, share, delta) == 0
    assert allowed_errors(n, share - 0.00021, delta) is None
    assert photos_needed(share, delta) <= n


def test_no_photos_promise_nothing() -> None:
    assert allowed_errors(0, 0.5, 0.5) is None
    assert smallest_share(0, 0.05) is None
    assert upper_bound(0, 0, 0.05) == upper_bound(3, 3, 0.05) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-5, 5).map(lambda value: value / 3), min_size=20, max_size=90),
    shares,
    deltas,
)
def test_the_threshold_is_where_a_walk_over_all_scores_stops(
    values: list[float], share: float, delta: float
) -> None:
    scores = np.array(values)
    allowed = allowed_errors(len(scores), share, delta)
    # The walk itself: down from infinity, over every point where the count changes, until the test does not reject.
    stop = None
    for threshold in [np.inf, *(np.nextafter(score, np.inf) for score in np.unique(scores)[::-1])]:
        errors = int((scores >= threshold).sum())
        if binomtest(errors, len(scores), share, alternative="less").pvalue > delta:
            break
        stop = threshold
    assert (stop is None) == (allowed is None)
    if allowed is not None:
        assert threshold_allowing(scores, allowed) == stop


def test_thresholds_of_many_draws_at_once() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 30))
    found = threshold_allowing(scores, 2)
    assert found.shape == (4,)
    assert ((scores >= found[:, None]).sum(axis=1) == 2).all()


def test_a_known_set_gives_a_known_promise() -> None:
    table = predictions_of(np.arange(93.0), np.arange(50.0, 250.0))
    policy, guarantee = promised(table, Promise(alpha=0.05))
    # One error is allowed: 92 alone is accused.
    assert policy.t_synthetic == np.nextafter(91, np.inf)
    assert (policy.fpr, policy.negatives, policy.t_real, policy.miss) == (
        0.05,
        "damaged",
        -0.5,
        0.05,
    )
    assert guarantee.accused is not None
    assert guarantee.passed is None
    bound = guarantee.accused
    assert (bound.share, bound.photos, bound.drawn_from, bound.errors, bound.allowed) == (
        0.05,
        93,
        93,
        1,
        1,
    )
    assert bound.upper == pytest.approx(0.04999, abs=1e-5)
    assert (guarantee.delta, guarantee.split, guarantee.seed) == (0.05, "split 'policy'", 0)
    assert (guarantee.manifest_sha256, guarantee.drawn) == ("ab" * 32, "one photo a group")
    assert guarantee.statement == (
        "With 95% confidence, at most 5% of photos with real damage are called synthetic. This is per photo: in a "
        "claim with 3 of them, up to 15% of claims have one that is. It rests on 93 photos, one of each group, with "
        "1 called synthetic (1 allowed). It holds for photos drawn as these were and never trained on."
    )


def test_both_promises_hold_each_on_its_own() -> None:
    policy, guarantee = promised(
        predictions_of(np.arange(59.0), np.arange(40.0, 139.0)), Promise(0.05, 0.03)
    )
    assert (policy.t_synthetic, policy.t_real) == (
        np.nextafter(58, np.inf),
        np.nextafter(40, -np.inf),
    )
    assert (guarantee.alpha, guarantee.beta, policy.miss) == (0.05, 0.03, 0.03)
    assert "at most 3% of synthetic photos are called real" in guarantee.statement
    assert "Each holds with 95% on its own, both together with 90%." in guarantee.statement


def test_a_promise_for_synthetic_photos_alone_leaves_the_other_threshold() -> None:
    policy, guarantee = promised(
        predictions_of(np.zeros(3), np.arange(59.0)), Promise(beta=0.05, delta=0.05)
    )
    assert (policy.t_synthetic, policy.fpr, policy.negatives) == (0.5, 0.01, "real")
    assert (policy.t_real, guarantee.accused) == (np.nextafter(0, -np.inf), None)
    assert "Each holds" not in guarantee.statement


def test_ties_are_all_on_the_safe_side() -> None:
    policy, guarantee = promised(
        predictions_of(np.repeat([0.0, 1.0], [60, 40]), np.ones(9)), Promise(alpha=0.1)
    )
    # Four errors would be allowed, but forty photos share the highest score.
    assert guarantee.accused is not None
    assert (guarantee.accused.allowed, guarantee.accused.errors) == (4, 0)
    assert policy.outcome(1.0) == "review"
    # What is promised is the bound of the errors that were allowed, not of the fewer that ties left.
    assert guarantee.accused.upper == pytest.approx(upper_bound(4, 100, 0.05))


def test_one_photo_counts_of_every_group() -> None:
    table = predictions_of(np.arange(200.0), np.arange(200.0), per_group=2)
    _, guarantee = promised(table, Promise(alpha=0.05))
    assert guarantee.accused is not None
    assert (guarantee.accused.photos, guarantee.accused.drawn_from) == (100, 200)
    assert guarantee.accused.allowed == 1
    crowded = predictions_of(np.arange(200.0), np.arange(200.0), per_group=4)
    with pytest.raises(
        RealDamageError,
        match=r"has 50 independent really damaged photos .*one of each group \(200 ph",
    ):
        promised(crowded, Promise(alpha=0.05))


def test_the_draw_depends_on_the_seed_alone() -> None:
    table = predictions_of(np.arange(90.0), np.zeros(0), per_group=3)
    drawn = one_per_group(table, seed=3)
    assert sorted(drawn["group"]) == sorted(table["group"].unique())
    shuffled = one_per_group(table.sample(frac=1, random_state=0), seed=3)
    assert list(shuffled["file_name"]) == list(drawn["file_name"])
    assert list(one_per_group(table, seed=4)["file_name"]) != list(drawn["file_name"])
    counts = pd.concat(
        [one_per_group(table, seed)["file_name"] for seed in range(150)]
    ).value_counts()
    # Every photo of a group of three is drawn about every third time.
    assert counts.reindex(table["file_name"][:90]).between(22, 78).all()


def test_a_photo_without_a_group_stands_for_itself() -> None:
    table = predictions_of(np.arange(59.0), np.zeros(1)).assign(group="")
    assert len(one_per_group(table, 0)) == len(table)
    assert promised(table, Promise(alpha=0.05))[0].t_synthetic == np.nextafter(58, np.inf)


def test_unscored_and_perturbed_photos_do_not_count() -> None:
    table = predictions_of(np.arange(61.0), np.zeros(5))
    table.loc[60, "score"] = np.nan
    table.loc[59, "perturbation"] = "jpeg_50"
    policy, guarantee = promised(table, Promise(alpha=0.05))
    assert guarantee.accused is not None
    assert (policy.t_synthetic, guarantee.accused.photos) == (np.nextafter(58, np.inf), 59)
    table.loc[58, "score"] = np.nan
    with pytest.raises(RealDamageError, match="has 58 independent really damaged photos"):
        promised(table, Promise(alpha=0.05))


def test_too_few_photos_are_told_how_many_it_takes_and_what_they_can_promise() -> None:
    table = predictions_of(np.arange(110.0), np.arange(20.0))
    with pytest.raises(RealDamageError) as refusal:
        check_enough(Promise(alpha=0.01), table, "photos/: split 'policy'")
    assert str(refusal.value) == (
        "alpha=0.01 at delta=0.05 cannot be promised: photos/: split 'policy' has 110 independent really damaged "
        "photos (kind damaged), one of each group (110 photos), and it takes 299 even without a single error. The "
        "smallest that 110 can promise is 2.69%: ask for alpha=0.0269, or add photos. Nothing was changed."
    )
    assert refusal.value.exit_code == 3
    check_enough(Promise(alpha=0.0269), table, "photos")
    with pytest.raises(RealDamageError, match=r"beta=0.05 .* has 20 independent synthetic photos"):
        check_enough(Promise(alpha=0.05, beta=0.05), table, "photos")


def test_intact_photos_never_stand_in_for_damaged_ones() -> None:
    with pytest.raises(
        RealDamageError, match=r"has 0 independent really damaged photos .* Add photos. Nothing"
    ):
        check_enough(Promise(alpha=0.5), predictions_of(np.zeros(0), np.zeros(5)), "photos")


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        (Promise(alpha=0.0), "alpha=0.0 must be above 0 and below 1"),
        (Promise(alpha=5), "alpha=5 must be above 0 and below 1, such as 0.05 for 5%"),
        (Promise(beta=1.0), "beta=1.0 must be"),
        (Promise(alpha=0.1, delta=float("nan")), "delta=nan must be"),
        (Promise(alpha=0.1, delta=1.0), "delta=1.0 must be"),
        (Promise(), "a promise needs alpha"),
    ],
)
def test_shares_out_of_range_are_refused(promise: Promise, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        promised(predictions_of(np.arange(100.0), np.arange(100.0)), promise)
