"""Where the truth is known, the guarantee holds as often as it says, and its look-alikes do not:
calibration photos are drawn again and again from a made-up population of normal scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, norm

from realdamage.evaluation.guarantee import allowed_errors, threshold_allowing

REPETITIONS = 3000
ALPHA = DELTA = 0.05
GROUPS = 93
"""Enough for one error."""
SIZES = np.resize(np.arange(8) + 1, GROUPS)
"""Photos of each product."""
CORRELATION = 0.9
"""Between two photos of a product: the product decides, hardly the shot."""


def drawn(correlation: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of all photos [repetitions, photos], and of one of each product."""
    rng = np.random.default_rng(1)
    product = rng.standard_normal((REPETITIONS, GROUPS))
    shot = rng.standard_normal((REPETITIONS, SIZES.sum()))
    of_product = np.repeat(np.arange(GROUPS), SIZES)
    scores = math.sqrt(correlation) * product[:, of_product] + math.sqrt(1 - correlation) * shot
    return scores, scores[:, np.cumsum(SIZES) - SIZES]


def held(scores: NDArray[np.float64], errors: int, step: float = 0.0) -> tuple[float, float]:
    """The 95% interval of how often at most ALPHA of the photos to come are accused. step: scores
    are rounded to it."""
    if step:
        scores = np.round(scores / step) * step
    threshold = threshold_allowing(scores, errors)
    at = (np.ceil(threshold / step) - 0.5) * step if step else threshold
    times = int((norm.sf(at) <= ALPHA).sum())
    found = binomtest(times, REPETITIONS).proportion_ci(method="exact")
    return float(found.low), float(found.high)


@pytest.mark.parametrize("correlation", [0.0, CORRELATION])
def test_one_photo_of_each_product_holds_as_often_as_said(correlation: float) -> None:
    _, one = drawn(correlation)
    allowed = allowed_errors(GROUPS, ALPHA, DELTA)
    assert allowed == 1
    low, high = held(one, allowed)
    theory = binom.sf(allowed, GROUPS, ALPHA)
    assert low <= theory <= high
    assert theory >= 1 - DELTA
    assert held(one, allowed, step=0.5)[0] > high, "ties only make it safer"


def test_the_rate_on_the_calibration_photos_guarantees_nothing() -> None:
    _, one = drawn(0.0)
    assert held(one, math.floor(ALPHA * GROUPS))[1] < 0.7


def test_photos_of_one_product_do_not_count_as_independent() -> None:
    every, _ = drawn(CORRELATION)
    allowed = allowed_errors(every.shape[1], ALPHA, DELTA)
    assert allowed is not None
    assert held(every, allowed)[1] < 0.85
