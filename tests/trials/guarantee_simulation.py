"""Checks the guarantee where the truth is known: draws calibration sets again and again from
made-up populations, and counts how often the guaranteed share holds.

    python tests/trials/guarantee_simulation.py --csv data/results/guarantee.csv

Next to the thresholds as they are shipped (one photo a group) are two that guarantee nothing: all
photos of the same products counted as if they were independent, and the empirical rate.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binom, binomtest, norm

from realdamage.commit import git_commit
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.guarantee import allowed_errors, threshold_allowing
from realdamage.files import write_atomically

SIZES = np.arange(8) + 1
"""Photos in a group of the correlated populations: 1 to 8, equally many of each."""
CORRELATION = 0.9
"""Between the scores of two photos of one group: the product decides, hardly the shot."""
STEP = 0.5
"""Scores of the population "in steps" are rounded to it, so that most of them are tied."""
COLUMNS = (
    *("population", "method", "groups", "photos", "alpha", "delta", "allowed_errors"),
    *("repetitions", "held", "held_low", "held_high", "claimed", "verdict", "theory"),
    *("mean_share", "bad_share", "seed", "git_commit", "date"),
)
# (groups, alpha, delta): the fewest photos for 5%, 3%, 1%, then some with errors to spare.
CASES = (
    *((59, 0.05, 0.05), (99, 0.03, 0.05), (299, 0.01, 0.05)),
    *((93, 0.05, 0.05), (128, 0.05, 0.1), (400, 0.03, 0.05), (400, 0.03, 0.1)),
)


class Population(NamedTuple):
    """Scores of really damaged photos, each standard normal. correlated: in groups of `SIZES` with
    `CORRELATION`; else every photo is a group. step: scores are rounded to it, 0 for not at all."""

    name: str
    correlated: bool
    step: float

    def draw(
        self, groups: int, repetitions: int, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scores of all photos [repetitions, photos], and of one of each group."""
        sizes = np.resize(SIZES, groups) if self.correlated else np.ones(groups, dtype=np.int64)
        of_group = np.repeat(np.arange(groups), sizes)
        product = rng.standard_normal((repetitions, groups))
        shot = rng.standard_normal((repetitions, len(of_group)))
        weight = CORRELATION if self.correlated else 0.0
        scores = math.sqrt(weight) * product[:, of_group] + math.sqrt(1 - weight) * shot
        if self.step:
            scores = np.round(scores / self.step) * self.step
        first = np.cumsum(sizes) - sizes
        chosen = first + rng.integers(0, sizes, size=(repetitions, groups))
        return scores, np.take_along_axis(scores, chosen, axis=1)

    def share_above(self, threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The true share of future photos whose score reaches the threshold."""
        at = (np.ceil(threshold / self.step) - 0.5) * self.step if self.step else threshold
        return np.asarray(norm.sf(at))


POPULATIONS = (
    Population("independent", correlated=False, step=0.0),
    Population("independent, scores in steps", correlated=False, step=STEP),
    Population("groups of 1 to 8", correlated=True, step=0.0),
)


def simulate(
    population: Population,
    groups: int,
    alpha: float,
    delta: float,
    *,
    repetitions: int,
    seed: int = 0,
) -> Iterator[dict[str, object]]:
    """One row per method: how often its threshold keeps the share of accused photos within alpha.

    held: share of the repetitions in which it does, with its 95% interval (Clopper & Pearson 1934).
    claimed: 1 - delta. verdict: "broken" when the whole interval lies below it, else "holds".
    theory: what held must be for independent scores without ties, P(Bin(groups, alpha) > allowed).
    mean_share: mean of the true share; bad_share: what it exceeds in a share delta of the draws.
    Raises UsageError: so few groups cannot guarantee alpha.
    """
    allowed = allowed_errors(groups, alpha, delta)
    if allowed is None:
        raise UsageError(f"{groups} groups cannot guarantee alpha={alpha} at delta={delta}")
    every, one = population.draw(groups, repetitions, np.random.default_rng(seed))
    photos = every.shape[1]
    methods = [("one photo a group", one, allowed)]
    if photos > groups:
        methods.append(
            ("all photos as if independent", every, allowed_errors(photos, alpha, delta) or 0)
        )
    methods.append(("empirical rate, one photo a group", one, math.floor(alpha * groups + 1e-9)))
    for method, scores, errors in methods:
        share = population.share_above(threshold_allowing(scores, errors))
        held = int((share <= alpha).sum())
        interval = binomtest(held, repetitions).proportion_ci(method="exact")
        n = scores.shape[1]
        yield {
            "population": population.name,
            "method": method,
            "groups": groups,
            "photos": n,
            "alpha": alpha,
            "delta": delta,
            "allowed_errors": errors,
            "repetitions": repetitions,
            "held": held / repetitions,
            "held_low": float(interval.low),
            "held_high": float(interval.high),
            "claimed": 1 - delta,
            "verdict": "broken" if interval.high < 1 - delta else "holds",
            "theory": np.nan
            if n > groups or population.step
            else float(binom.sf(errors, n, alpha)),
            "mean_share": float(share.mean()),
            "bad_share": float(np.quantile(share, 1 - delta)),
            "seed": seed,
        }


def run(repetitions: int, seed: int = 0) -> pd.DataFrame:
    """`simulate` for every population and case, each with its own seed."""
    if repetitions < 1:
        raise UsageError(f"--repetitions {repetitions} must be at least 1")
    cases = [(population, *case) for population in POPULATIONS for case in CASES]
    rows = [
        row
        for number, (population, groups, alpha, delta) in enumerate(cases)
        for row in simulate(
            population, groups, alpha, delta, repetitions=repetitions, seed=seed + number
        )
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS[:-2]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="guarantee_simulation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--repetitions", type=int, default=5000, metavar="N", help="of every case (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--csv", type=Path, help="write the rows there too")
    options = parser.parse_args(argv)
    try:
        table = run(options.repetitions, options.seed)
        if options.csv:
            table["git_commit"], table["date"] = (
                git_commit(),
                datetime.datetime.now(datetime.UTC).date().isoformat(),
            )
            write_atomically(
                options.csv,
                table.to_csv(index=False, float_format="%.4f", lineterminator="\n").encode(),
            )
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    shown = ["population", "method", "groups", "photos", "alpha", "delta", "held", "verdict"]
    print(table[[*shown, "mean_share"]].to_string(index=False, float_format="%.3f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
