"""False alarms source by source: which source a threshold is too low for, and, as a command, what a part of the
training set costs the honest photos of other sources, at one rate of false alarms.

    python -m realdamage.evaluation.false_alarms A=out/a/test/predictions.csv B=out/b/test/predictions.csv \
        --trained-on shop1,shop2 --fpr 0.05 --csv data/results/false_alarms.csv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from realdamage.core.policy import Policy, WorstSource
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.guarantee import percent
from realdamage.evaluation.predictions import read_predictions
from realdamage.evaluation.resampling import share_interval
from realdamage.files import write_atomically
from realdamage.rendering.report_words import NOT_NAMED

FEW = 20
"""Sources with fewer photos of a label are counted together: a share of them would say nothing."""
OTHERS = "(other sources)"


class Strictest(NamedTuple):
    """The lowest t_synthetic that every source allows, and the source that allows no lower one."""

    threshold: float
    source: str


def source_names(photos: pd.DataFrame) -> pd.Series:
    """The source that each photo counts under: `OTHERS` for sources of fewer than `FEW` of these photos."""
    named = photos["source"].where(photos["source"] != "", NOT_NAMED)
    return named.where(named.map(named.value_counts()) >= FEW, OTHERS)


def strictest_source(real: pd.DataFrame, share: float) -> Strictest | None:
    """What t_synthetic must be so that at most `share`, in 0..1, of these real photos scores as high in every source.

    Sources are those of `source_names`; one with fewer than `FEW` photos, as `OTHERS` may be, has no say. None where
    no source has, or where all photos are of one source.
    """
    if real["source"].nunique() < 2:
        return None
    sources = [
        (name, own["score"].tolist())
        for name, own in real.groupby(source_names(real))
        if len(own) >= FEW
    ]
    return max(
        (Strictest(threshold_at(scores, share), str(name)) for name, scores in sources),
        default=None,
    )


def outcomes_by_source(photos: pd.DataFrame) -> pd.DataFrame:
    """How many photos of each source (`source_names`, the index) were called what: columns n, synthetic, review. The
    source with the largest share called synthetic is first; of equal ones, that with more to review."""
    counts = pd.crosstab(source_names(photos), photos["outcome"]).reindex(
        columns=["synthetic", "review", "real"]
    )
    counts = counts.fillna(0).astype(int)
    n = counts.sum(axis=1)
    shares = counts.div(n, axis=0).sort_values(
        ["synthetic", "review"], ascending=False, kind="stable"
    )
    return counts.assign(n=n).loc[shares.index, ["n", "synthetic", "review"]]


def worst_source(real: pd.DataFrame, policy: Policy, pooled: float, strictest: str) -> WorstSource:
    """What this policy does to the source that it accuses most. real: scored real photos with its outcomes; pooled:
    t_synthetic before any source was looked at; strictest: the source that it was raised for where it is higher now."""
    counts = outcomes_by_source(real)
    counts = counts[counts["n"] >= FEW]
    source = str(counts.index[0])
    n, called, review = (int(count) for count in counts.iloc[0])
    raised = policy.t_synthetic > pooled
    change = (
        f"t_synthetic was raised from {pooled:+.3f} to {policy.t_synthetic:+.3f}, so that at most "
        f"{percent(policy.fpr)} of the real photos of {strictest} score as high."
        if raised
        else "No source raised t_synthetic."
    )
    return WorstSource(
        source=source,
        photos=n,
        called_synthetic=called,
        to_review=review,
        statement=f"{source} is the worst of {len(counts)} sources with at least {FEW} real photos: "
        f"{_share(called, n)} called synthetic, {_share(review, n)} sent to review. {change} "
        "This was counted on the calibration photos; nothing is promised for a single source.",
        raised_by=strictest if raised else None,
        raised_from=pooled if raised else None,
    )


def _share(count: int, n: int) -> str:
    low, high = share_interval(count, n)
    return f"{count} of {n} ({count / n:.1%}, 95% interval {low:.1%} to {high:.1%})"


def threshold_at(scores: Sequence[float], fpr: float) -> float:
    """The lowest threshold at which at most a share `fpr`, in 0..1, of these real photos' scores is called synthetic
    (score ≥ threshold). Raises UsageError: there is no score."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    if not len(ordered):
        raise UsageError(
            "--trained-on: no real photo of these sources is among the predictions; name others"
        )
    allowed = int(np.floor(fpr * len(ordered) + 1e-9))
    return float(np.nextafter(ordered[allowed], np.inf)) if allowed < len(ordered) else -np.inf


def called_synthetic(predictions: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """One row for each label and source: `n` photos, `called` synthetic, their share and its 95% interval (Clopper &
    Pearson 1934). `predictions` as `read_predictions` gives them; photos without a score are left out."""
    scored = predictions[predictions["score"].notna()]
    counts = scored.groupby(["label", "source"])["score"].transform("size")
    named = scored.assign(
        source=scored["source"].where(counts >= FEW, OTHERS), hit=scored["score"] >= threshold
    )
    rows = []
    for (label, source), photos in named.groupby(["label", "source"], sort=True):
        called, n = int(photos["hit"].sum()), len(photos)
        interval = binomtest(called, n).proportion_ci(method="exact")
        rows.append(
            {
                "label": label,
                "source": source,
                "n": n,
                "called": called,
                "share": called / n,
                "low": float(interval.low),
                "high": float(interval.high),
            }
        )
    return pd.DataFrame(rows)


def compare(
    files: Sequence[tuple[str, Path]], trained_on: Sequence[str], fpr: float
) -> pd.DataFrame:
    """The rows of `called_synthetic` for each model and file. `files`: (model, predictions file); a model may have
    several, and its first one must hold real photos of the sources `trained_on`, which set its threshold.

    Raises UsageError: a source is not there. RealDamageError: a file cannot be read.
    """
    tables: list[pd.DataFrame] = []
    thresholds: dict[str, float] = {}
    for model, path in files:
        predictions = read_predictions(path)
        if model not in thresholds:
            known = predictions[
                (predictions["label"] == "real") & predictions["source"].isin(trained_on)
            ]
            thresholds[model] = threshold_at(known["score"].dropna().tolist(), fpr)
        found = called_synthetic(predictions, thresholds[model])
        found.insert(0, "file", path.parent.name)
        found.insert(0, "model", model)
        tables.append(found.assign(threshold=thresholds[model], fpr=fpr))
    return pd.concat(tables, ignore_index=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="false_alarms", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="MODEL=FILE",
        help="predictions of a model; a model may be repeated",
    )
    parser.add_argument(
        "--trained-on",
        required=True,
        help="sources, with commas, whose real photos set the threshold",
    )
    parser.add_argument(
        "--fpr", type=float, default=0.05, help="false alarms on them, in 0..1 (%(default)s)"
    )
    parser.add_argument("--csv", type=Path, help="write the rows there too")
    options = parser.parse_args(argv)
    try:
        pairs = [tuple(text.split("=", 1)) for text in options.files]
        if any(len(pair) != 2 for pair in pairs):
            raise UsageError("write each file as MODEL=FILE")
        if not 0 < options.fpr < 1:
            raise UsageError(f"--fpr {options.fpr}: must lie between 0 and 1")
        table = compare(
            [(model, Path(path)) for model, path in pairs],
            options.trained_on.split(","),
            options.fpr,
        )
        if options.csv:
            text = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
            write_atomically(options.csv, text.encode())
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table.drop(columns=["threshold", "fpr"]).to_string(index=False, float_format="%.3f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
