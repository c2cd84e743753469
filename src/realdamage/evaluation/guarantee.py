"""Thresholds with a promise: how many honest buyers may be accused among photos that nobody has seen yet, not only
among those that the threshold was chosen on.

Fixed-sequence testing (learn then test: Angelopoulos et al. 2021). The threshold walks down from above all scores,
the null hypothesis at each stop being "more than a share alpha of the photos to come scores this high", and halts
before the first one that the binomial tail does not reject at level delta. The order of the walk is fixed before any
score is seen, and the true share only grows on the way, so one stop alone can go wrong: the first whose share exceeds
alpha, past which the walk gets with probability delta at most. No correction for the number of stops is due.

For n independent photos the p-value at a stop with k errors is P(Bin(n, alpha) <= k), which only grows with k. So the
walk may pass every real number, halts at scores of the calibration photos themselves, and ends just above the (k*+1)-th
largest, where k*, the largest k with P(Bin(n, alpha) <= k) <= delta, depends on n, alpha and delta alone
(`allowed_errors`). This is the exact one-sided tolerance bound of order statistics (Wilks 1941): the share above that
score is Beta(k*+1, n-k*) distributed when scores have no ties; ties only make it smaller, because thresholds act with
>= and this one lies above the score.
The upper bound of Clopper & Pearson (1934) at k* is at most alpha for the same reason.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binom

from realdamage.core.policy import Bound, Guarantee, Policy
from realdamage.data.bootstrap import share_interval
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import check_predictions, clean, group_ids

DELTA = 0.05
CLAIM_PHOTOS = 3
"""The size of claim that the statement counts for, beside the single photo that the promise is about."""


class Promise(NamedTuple):
    """What is asked for: shares in 0..1 (None: not asked), the risk `delta`, and the seed of the draw from groups."""

    alpha: float | None = None
    beta: float | None = None
    delta: float = DELTA
    seed: int = 0

    def check(self) -> None:
        """Raises UsageError: a share or delta is not above 0 and below 1, or nothing is asked for."""
        if self.alpha is None and self.beta is None:
            raise UsageError(
                "a promise needs alpha (really damaged photos called synthetic) or beta, or both"
            )
        for name, share in (("alpha", self.alpha), ("beta", self.beta), ("delta", self.delta)):
            if share is not None and not 0 < share < 1:
                raise UsageError(f"{name}={share} must be above 0 and below 1, such as 0.05 for 5%")


def allowed_errors(photos: int, share: float, delta: float) -> int | None:
    """The most errors among `photos` independent ones that still promise `share` with confidence 1 - delta: the
    largest k with P(Bin(photos, share) <= k) <= delta. None when even no error at all does not."""
    if photos < 1 or binom.cdf(0, photos, share) > delta:
        return None
    k = int(binom.ppf(delta, photos, share))
    return k if binom.cdf(k, photos, share) <= delta else k - 1


def photos_needed(share: float, delta: float) -> int:
    """How many independent photos without any error promise `share` with confidence 1 - delta."""
    needed = max(1, math.ceil(math.log(delta) / math.log1p(-share)) - 1)
    while (
        allowed_errors(needed, share, delta) is None
    ):  # once or twice: the logarithms may be off by a last digit
        needed += 1
    return needed


def smallest_share(photos: int, delta: float) -> float | None:
    """The smallest share that this many photos can promise, rounded up to 0.01%; None when there is none below 1."""
    if photos < 1:
        return None
    share = math.ceil((1 - delta ** (1 / photos)) * 10_000) / 10_000
    while share < 1 and allowed_errors(photos, share, delta) is None:
        share = round(share + 0.0001, 4)
    return share if share < 1 else None


def upper_bound(errors: int, photos: int, delta: float) -> float:
    """The one-sided upper confidence bound of a share, in 0..1 (Clopper & Pearson 1934)."""
    return 1.0 if errors >= photos else share_interval(errors, photos, 1 - 2 * delta)[1]


def threshold_allowing(scores: npt.NDArray[np.float64], errors: int) -> npt.NDArray[np.float64]:
    """The lowest threshold at and above which at most `errors` of the scores lie: just above the next largest.

    `scores` [..., n] finite, with n > errors >= 0; the threshold is of shape [...].
    """
    at = scores.shape[-1] - 1 - errors
    return np.asarray(np.nextafter(np.partition(scores, at, axis=-1)[..., at], np.inf))


def one_per_group(photos: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One photo of every group, drawn at random: photos of one product rise and fall together and would count as more
    evidence than they are. The same seed draws the same photos, whatever the order of the rows."""
    shuffled = photos.sort_values("file_name", kind="stable").sample(frac=1, random_state=seed)
    return shuffled[~group_ids(shuffled).duplicated()].sort_values("file_name", kind="stable")


def check_enough(promise: Promise, photos: pd.DataFrame, where: str) -> None:
    """Refuses a promise that these photos cannot keep, whatever their scores; asks before they are scored.

    `photos`: columns file_name, label, kind, group. Raises UsageError: see `Promise.check`; RealDamageError that says
    how many photos are needed and the smallest share that these can promise.
    """
    promise.check()
    for name, share, sort, chosen in _asked(promise, photos):
        groups = group_ids(photos[chosen]).nunique()
        if allowed_errors(groups, share, promise.delta) is None:
            raise RealDamageError(
                _too_few(name, share, promise.delta, sort, int(chosen.sum()), groups, where)
            )


def with_guarantee(
    policy: Policy,
    predictions: pd.DataFrame,
    promise: Promise,
    *,
    split: str,
    manifest_sha256: str,
    least: float = -math.inf,
) -> Policy:
    """The policy with the promised thresholds in place of the empirical ones, and the promise beside them.

    alpha sets `t_synthetic` so that, with confidence 1 - delta over the draw of the calibration photos, at most a share
    alpha of photos with real damage scores as high; it counts kind `damaged` only, however few they are. beta sets
    `t_real` likewise for synthetic photos. A threshold that nothing was promised for stays. The promise is about
    photos drawn as these were (a group at random, then one of its photos) and never trained on.
    `least`: the lowest `t_synthetic` allowed. Where it is above the end of the walk, alpha still holds, however `least`
    was found: the walk and its stop do not depend on it, and above that stop fewer photos with real damage score as
    high. The bound then counts the errors that are left.
    Rows without a score and perturbed photos do not count. `split`: what the photos are called; with the digest of
    their manifest it goes into the record. Raises UsageError, RealDamageError: see `check_enough`.
    """
    check_predictions(predictions)
    photos = clean(predictions[predictions["score"].notna()])
    check_enough(promise, photos, split)
    found: dict[str, tuple[float, Bound]] = {}
    for name, share, _, chosen in _asked(promise, photos):
        sign = 1 if name == "alpha" else -1
        drawn = one_per_group(photos[chosen], promise.seed)["score"].to_numpy(dtype=np.float64)
        lowest = least if name == "alpha" else -math.inf
        found[name] = _bounded(sign * drawn, share, promise.delta, int(chosen.sum()), lowest)
    if "alpha" in found:
        policy = replace(
            policy, t_synthetic=found["alpha"][0], fpr=found["alpha"][1].share, negatives="damaged"
        )
    if "beta" in found:
        policy = replace(policy, t_real=-found["beta"][0], miss=found["beta"][1].share)
    accused, passed = (found[name][1] if name in found else None for name in ("alpha", "beta"))
    guarantee = Guarantee(
        delta=promise.delta,
        accused=accused,
        passed=passed,
        split=split,
        seed=promise.seed,
        manifest_sha256=manifest_sha256,
        statement=statement(promise.delta, accused, passed),
    )
    return replace(policy, guarantee=guarantee)


def statement(delta: float, accused: Bound | None, passed: Bound | None) -> str:
    """The promise in words: per photo, for a claim of several photos, and what it rests on."""
    told = []
    sorts = (
        (accused, "photos with real damage", "synthetic"),
        (passed, "synthetic photos", "real"),
    )
    for bound, sort, outcome in sorts:
        if bound is not None:
            told.append(
                f"With {percent(1 - delta)} confidence, at most {percent(bound.share)} of {sort} are called {outcome}. "
                f"This is per photo: in a claim with {CLAIM_PHOTOS} of them, up to "
                f"{percent(min(1.0, CLAIM_PHOTOS * bound.share))} of claims have one that is. It rests on "
                f"{bound.photos} photos, one of each group, with {bound.errors} called {outcome} "
                f"({bound.allowed} allowed)."
            )
    if len(told) == 2:
        told.append(
            f"Each holds with {percent(1 - delta)} on its own, both together with {percent(max(0.0, 1 - 2 * delta))}."
        )
    told.append("It holds for photos drawn as these were and never trained on.")
    return " ".join(told)


def percent(share: float) -> str:
    """A share as people write it: 0.03 is 3%."""
    return f"{100 * share:.4g}%"


def _asked(promise: Promise, photos: pd.DataFrame) -> list[tuple[str, float, str, pd.Series]]:
    """For each share that is asked for: its name, the share, the sort of photos it is about, and which these are."""
    damaged = (photos["label"] == "real") & (photos["kind"] == "damaged")
    rows = (
        ("alpha", promise.alpha, "really damaged photos (kind damaged)", damaged),
        ("beta", promise.beta, "synthetic photos", photos["label"] == "synthetic"),
    )
    return [(name, share, sort, chosen) for name, share, sort, chosen in rows if share is not None]


def _bounded(
    scores: npt.NDArray[np.float64], share: float, delta: float, drawn_from: int, least: float
) -> tuple[float, Bound]:
    """The threshold on `scores` [n], one per group, at least `least`, and what it promises."""
    n = len(scores)
    allowed = allowed_errors(n, share, delta)
    if allowed is None:
        raise ValueError(f"{n} photos cannot promise {share}; check_enough comes first")
    threshold = max(float(threshold_allowing(scores, allowed)), least)
    return threshold, Bound(
        share=share,
        photos=n,
        drawn_from=drawn_from,
        errors=int((scores >= threshold).sum()),
        allowed=allowed,
        upper=min(share, upper_bound(allowed, n, delta)),
    )


def _too_few(
    name: str, share: float, delta: float, sort: str, photos: int, groups: int, where: str
) -> str:
    smallest = smallest_share(groups, delta)
    offer = (
        f"The smallest that {groups} can promise is {percent(smallest)}: ask for {name}={smallest:g}, or add photos"
        if smallest is not None
        else "Add photos"
    )
    return (
        f"{name}={share:g} at delta={delta:g} cannot be promised: {where} has {groups} independent {sort}, one of each "
        f"group ({photos} photos), and it takes {photos_needed(share, delta)} even without a single error. {offer}. "
        "Nothing was changed."
    )
