"""Thresholds with a guarantee: how many honest buyers may be accused among photos that nobody has
seen yet, not only among those that the threshold was chosen on.

Learn then test (Angelopoulos et al. 2021): the threshold walks down from above all scores, in an
order fixed beforehand, so no correction for the number of stops is needed. It ends just above the
(k+1)-th largest score, with k of `allowed_errors` (Wilks 1941).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binom

from realdamage.core.policy import Bound, Guarantee, Policy
from realdamage.data.bootstrap import share_interval
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import clean, group_ids

DELTA = 0.05
SEED = 0
"""Of the draw of one photo per group."""
CLAIM_PHOTOS = 3
"""The statement says what the guarantee means for a claim with this many photos."""


@dataclass(frozen=True)
class Targets:
    """What the thresholds must keep to.

    fpr: share of these honest photos called synthetic. miss: share of these synthetic photos called
    real. alpha, beta: the same shares guaranteed for future photos; each replaces its rate.
    delta: risk that a guarantee does not hold.
    kinds: the kinds of synthetic photo that miss or beta is about; empty: all.
    """

    fpr: float | None = None
    miss: float | None = None
    alpha: float | None = None
    beta: float | None = None
    delta: float = DELTA
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for rate, share in (("fpr", "alpha"), ("miss", "beta")):
            if getattr(self, rate) is not None and getattr(self, share) is not None:
                raise UsageError(
                    f"{rate} and {share} set the same threshold; give {rate} for a rate on these "
                    f"photos, or {share} for a guarantee about others",
                    code="rate_and_guarantee",
                )
        for name in ("fpr", "miss", "alpha", "beta", "delta"):
            share, least = getattr(self, name), "at least" if name in ("fpr", "miss") else "above"
            if share is not None and not (0 < share < 1 or (share == 0 and least == "at least")):
                raise UsageError(f"{name}={share} must be {least} 0 and below 1: 0.05 is 5%")

    @property
    def rates(self) -> tuple[float, float]:
        """(fpr, miss), 1% and 5% by default."""
        return 0.01 if self.fpr is None else self.fpr, 0.05 if self.miss is None else self.miss

    def missed(self, photos: pd.DataFrame) -> pd.Series:
        """Which photos miss or beta is about, bool [n]: the synthetic ones of these kinds."""
        synthetic = photos["label"] == "synthetic"
        return synthetic & photos["kind"].isin(self.kinds) if self.kinds else synthetic

    @property
    def guaranteed(self) -> bool:
        """Whether there is anything to guarantee."""
        return self.alpha is not None or self.beta is not None


def allowed_errors(photos: int, share: float, delta: float) -> int | None:
    """The most errors among `photos` independent ones that still guarantee `share` with confidence
    1 - delta: the largest k with P(Bin(photos, share) <= k) <= delta. None: not even zero."""
    if photos < 1 or binom.cdf(0, photos, share) > delta:
        return None
    k = int(binom.ppf(delta, photos, share))
    return k if binom.cdf(k, photos, share) <= delta else k - 1


def photos_needed(share: float, delta: float) -> int:
    """How many independent photos without an error guarantee `share` with confidence 1 - delta."""
    needed = max(1, math.ceil(math.log(delta) / math.log1p(-share)) - 1)
    while allowed_errors(needed, share, delta) is None:  # the logarithms may be off by a digit
        needed += 1
    return needed


def smallest_share(photos: int, delta: float) -> float | None:
    """The smallest share that this many photos can guarantee, rounded up to 0.01%; None: none."""
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
    """The lowest threshold that at most `errors` of the scores [..., n] reach: [...]."""
    at = scores.shape[-1] - 1 - errors
    return np.asarray(np.nextafter(np.partition(scores, at, axis=-1)[..., at], np.inf))


def one_per_group(photos: pd.DataFrame, seed: int = SEED) -> pd.DataFrame:
    """One random photo of every group: photos of one product are not independent. The same seed
    draws the same photos, whatever the order of the rows."""
    shuffled = photos.sort_values("file_name", kind="stable").sample(frac=1, random_state=seed)
    return shuffled[~group_ids(shuffled).duplicated()].sort_values("file_name", kind="stable")


def check_enough(targets: Targets, photos: pd.DataFrame, where: str) -> None:
    """Refuses a guarantee that these photos cannot give, before they are scored.

    photos: columns file_name, label, kind, group. where: what to call the photos.
    Raises RealDamageError that says how many photos are needed, and the smallest share they allow.
    """
    for name, share, sort, chosen in _guaranteed(targets, photos):
        groups = group_ids(photos[chosen]).nunique()
        if allowed_errors(groups, share, targets.delta) is not None:
            continue
        least = smallest_share(groups, targets.delta)
        possible = f" The smallest possible is {name}={least:g}." if least is not None else ""
        raise RealDamageError(
            f"{name}={share:g} at delta={targets.delta:g} cannot be guaranteed: {where} has "
            f"{groups} independent {sort}, one of each group ({chosen.sum()} photos), and it takes "
            f"{photos_needed(share, targets.delta)} even without a single error.{possible} Add "
            "photos. Nothing was changed.",
            code="too_few_photos",
        )


def with_guarantee(
    policy: Policy,
    predictions: pd.DataFrame,
    targets: Targets,
    *,
    split: str,
    manifest_sha256: str,
    least: float = -math.inf,
) -> Policy:
    """The policy with guaranteed thresholds in place of the empirical ones, for photos drawn as
    these were (a group at random, then one of its photos).

    split, manifest_sha256: which photos these are, for the record.
    least: the lowest `t_synthetic` allowed; a higher threshold keeps alpha.
    Raises RealDamageError: see `check_enough`.
    """
    photos = clean(predictions[predictions["score"].notna()])
    check_enough(targets, photos, split)
    bounds: dict[str, Bound] = {}
    for name, share, _, chosen in _guaranteed(targets, photos):
        scores = one_per_group(photos[chosen])["score"].to_numpy(dtype=np.float64)
        if name == "beta":
            scores = -scores  # a synthetic photo passes when its score is low
        allowed = allowed_errors(len(scores), share, targets.delta) or 0
        threshold = float(threshold_allowing(scores, allowed))
        if name == "alpha":
            threshold = max(threshold, least)
            policy = replace(policy, t_synthetic=threshold, fpr=share, negatives="damaged")
        else:
            policy = replace(policy, t_real=-threshold, miss=share)
        bounds[name] = Bound(
            share=share,
            photos=len(scores),
            drawn_from=int(chosen.sum()),
            errors=int((scores >= threshold).sum()),
            allowed=allowed,
            upper=min(share, upper_bound(allowed, len(scores), targets.delta)),
            kinds=targets.kinds if name == "beta" else (),
        )
    guarantee = Guarantee(
        delta=targets.delta,
        accused=bounds.get("alpha"),
        passed=bounds.get("beta"),
        split=split,
        seed=SEED,
        manifest_sha256=manifest_sha256,
        statement=_statement(targets.delta, bounds),
    )
    return replace(policy, guarantee=guarantee)


def allowed_share(policy: Policy) -> float:
    """The share of honest photos that may be called synthetic: the guaranteed one, or the rate."""
    alpha = policy.guarantee.alpha if policy.guarantee else None
    return policy.fpr if alpha is None else alpha


def percent(share: float) -> str:
    """A share as people write it: 0.03 is 3%."""
    return f"{100 * share:.4g}%"


def _statement(delta: float, bounds: dict[str, Bound]) -> str:
    """The guarantee in words: for a photo, for a claim, and what it rests on."""
    sure = percent(1 - delta)
    sentences = []
    for name, bound in bounds.items():
        sort, outcome = "photos with real damage", "synthetic"
        if name == "beta":
            sort, outcome = f"synthetic photos{_of_kinds(bound.kinds)}", "real"
        of_claims = percent(min(1.0, CLAIM_PHOTOS * bound.share))
        sentences.append(
            f"With {sure} confidence, at most {percent(bound.share)} of {sort} are called "
            f"{outcome}. This is per photo: in a claim with {CLAIM_PHOTOS} of them, up to "
            f"{of_claims} of claims have one that is. It rests on {bound.photos} photos, one of "
            f"each group, with {bound.errors} called {outcome} ({bound.allowed} allowed)."
        )
    if len(bounds) == 2:
        both = percent(max(0.0, 1 - 2 * delta))
        sentences.append(f"Each holds with {sure} on its own, both together with {both}.")
    sentences.append("It holds for photos drawn as these were and never trained on.")
    return " ".join(sentences)


def _of_kinds(kinds: tuple[str, ...]) -> str:
    return f" of kind {' or '.join(kinds)}" if kinds else ""


def _guaranteed(targets: Targets, photos: pd.DataFrame) -> list[tuple[str, float, str, pd.Series]]:
    """For each share to guarantee: its name, the share, what its photos are called, the rows."""
    damaged = (photos["label"] == "real") & (photos["kind"] == "damaged")
    synthetic = f"synthetic photos{_of_kinds(targets.kinds)}"
    rows = (
        ("alpha", targets.alpha, "really damaged photos (kind damaged)", damaged),
        ("beta", targets.beta, synthetic, targets.missed(photos)),
    )
    return [(name, share, sort, chosen) for name, share, sort, chosen in rows if share is not None]
