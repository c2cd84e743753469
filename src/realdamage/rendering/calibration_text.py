"""Puts a calibration into words, for the command line: which photos, which thresholds, and what is promised of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from realdamage.core.policy import Calibration
from realdamage.evaluation.calibration import CalibrationSummary
from realdamage.evaluation.guarantee import percent
from realdamage.rendering.report_words import demo_note

WIDTH = 110


def summary_text(summary: CalibrationSummary) -> str:
    """Several lines, without a newline at the end."""
    return "\n".join(_lines(summary))


def _lines(summary: CalibrationSummary) -> Iterator[str]:
    policy, guarantee = summary.policy, summary.policy.guarantee
    yield from demo_note(summary.demo)
    photos = ", ".join(f"{count} {sort}" for sort, count in policy.photos.items())
    yield f"{summary.output}: calibrated on {summary.split} ({photos})"
    yield f"probability   {_curve(summary.calibration)}, prior {summary.calibration.prior:.3f}"
    if summary.brier:
        scores = ", ".join(f"{method} {brier:.4f}" for method, brier in summary.brier.items())
        yield f"              Brier score on held-out groups: {scores}; took {summary.calibration.method}"
    accused, passed = (
        f"promised at most {percent(bound.share)} of all" if bound else f"allowed {rate:.1%}"
        for bound, rate in (
            (guarantee and guarantee.accused, policy.fpr),
            (guarantee and guarantee.passed, policy.miss),
        )
    )
    yield (
        f"synthetic     score >= {policy.t_synthetic:+.3f}: {summary.called_synthetic:.1%} of these {policy.negatives} "
        f"photos ({accused}), {summary.caught:.1%} of the synthetic ones"
    )
    yield (
        f"real          score <= {policy.t_real:+.3f}: {summary.called_real:.1%} of these synthetic photos ({passed})"
    )
    rule = "" if policy.whole_photo_share is None else ", or processed as a whole"
    review = f"review        between{rule}: {summary.review:.1%} of all."
    yield (
        review
        if guarantee
        else f"{review} The rates hold for these photos; no promise about others"
    )
    told = [("sources", policy.worst_source.statement)] if policy.worst_source else []
    told += [("warning", warning) for warning in summary.warnings]
    if guarantee:
        told += [("promise", guarantee.statement), *(("note", note) for note in summary.notes)]
    for title, text in told:
        yield textwrap.fill(f"{title:<14}{text}", width=WIDTH, subsequent_indent=" " * 14)


def _curve(calibration: Calibration) -> str:
    if calibration.slope is not None and calibration.intercept is not None:
        return f"sigmoid({calibration.slope:.4g} * score {calibration.intercept:+.4g})"
    low, high = calibration.knots[0], calibration.knots[-1]
    return (
        f"isotonic, {len(calibration.knots)} knots from {low[1]:.3f} (score {low[0]:+.3f}) to {high[1]:.3f} "
        f"(score {high[0]:+.3f})"
    )
