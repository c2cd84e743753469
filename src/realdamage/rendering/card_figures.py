"""The figures of one evaluation as a model card shows them: tables in Markdown, every figure with its 95% interval or
the reason why it is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from realdamage.core.policy import Outcome
from realdamage.data.bootstrap import share_interval
from realdamage.evaluation.figures import RATES, has_thresholds
from realdamage.evaluation.fraudbench import format_benchmark
from realdamage.evaluation.predictions import clean
from realdamage.evaluation.slices import outcomes_by_source
from realdamage.rendering.card_markdown import Markdown, code, code_block, escape, table
from realdamage.rendering.card_training import Seen
from realdamage.rendering.figure_titles import (
    ROBUSTNESS_FIGURES,
    SLICE_FIGURES,
    format_figure,
    measured,
    of_how_many,
)
from realdamage.rendering.pages import NOTHING, figure, percent
from realdamage.rendering.report import Report
from realdamage.rendering.report_figures import Headline
from realdamage.rendering.report_words import GeneratorCount, first_line

Row = Mapping[str, Any]

OUTCOMES: tuple[Outcome, ...] = ("synthetic", "review", "real")
_FROM_REPORT = ("pairs", "pixel_ap", "best_f1", "brier", "ece")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of the model. scored: its rows with a score, under all perturbations; report: what was measured;
    seen: the generators of its photos; run: where it comes from (`run` of metrics.json)."""

    name: str
    scored: pd.DataFrame
    metrics: Mapping[str, Any]
    report: Report
    seen: Seen
    notes: tuple[str, ...]

    @property
    def photos(self) -> pd.DataFrame:
        """The photos as they are."""
        return clean(self.scored)

    @property
    def run(self) -> Mapping[str, Any]:
        return self.metrics.get("run") or {}


@dataclass(frozen=True)
class EvaluationText:
    """One evaluation as the card's template takes it; tables are "" where there is nothing to tell."""

    name: str
    about: tuple[str, ...]
    origin: Markdown
    headline: Markdown
    slices: tuple[tuple[str, Markdown, str], ...]
    robustness: Markdown
    container: str
    benchmark: Markdown


def evaluation_text(evaluated: Evaluated) -> EvaluationText:
    """The tables of one evaluation."""
    report, run, counts = evaluated.report, evaluated.run, evaluated.report.counts
    unscored = f"; {counts['n_unscored']:,} could not be judged" if counts.get("n_unscored") else ""
    sizes = (
        f"{counts['n']:,} photos in {counts['n_groups']:,} groups: {counts['n_real']:,} real "
        f"({counts['n_damaged']:,} really damaged), {counts['n_synthetic']:,} synthetic{unscored}."
    )
    return EvaluationText(
        name=evaluated.name,
        about=(
            sizes,
            *first_line(evaluated.seen.generators),
            *(f"Note: {note}" for note in (*evaluated.notes, *report.notes)),
        ),
        origin=_origin(run),
        headline=table(
            ("figure", "value", "95% interval", "without skill", "note"),
            [_headline(row) for row in _headlines(evaluated.metrics, report)],
        ),
        slices=tuple(_slices(evaluated)),
        robustness=_robustness(report.robustness),
        container=report.container,
        benchmark=code_block(format_benchmark(report.benchmark).splitlines())
        if report.benchmark
        else Markdown(""),
    )


def outcomes(evaluations: Sequence[Evaluated]) -> Markdown:
    """What photos were called at the shipped thresholds, sort by sort, with the intervals of Clopper and Pearson; ""
    where the model had none."""
    rows = []
    for evaluated in evaluations:
        photos = evaluated.photos[has_thresholds(evaluated.photos)]
        for title, own in sorts(photos, evaluated.seen).items():
            counts = [int((own["outcome"] == outcome).sum()) for outcome in OUTCOMES]
            if len(own):
                rows.append(
                    (
                        evaluated.name,
                        title,
                        f"{len(own):,}",
                        *(share(count, len(own)) for count in counts),
                    )
                )
    return table(
        ("evaluation", "photos", "n", *(f"called {outcome}" for outcome in OUTCOMES)), rows
    )


def false_alarms(evaluations: Sequence[Evaluated]) -> Markdown:
    """What the real photos of each source were called at the shipped thresholds, with the intervals of Clopper and
    Pearson, worst source first; "" where the model had none, or no test has a real photo."""
    rows = []
    for evaluated in evaluations:
        photos = evaluated.photos[has_thresholds(evaluated.photos)]
        for source, n, called, review in outcomes_by_source(
            photos[photos["label"] == "real"]
        ).itertuples():
            rows.append((evaluated.name, source, f"{n:,}", share(called, n), share(review, n)))
    return table(
        ("evaluation", "source", "real photos", "called synthetic", "sent to review"), rows
    )


def sorts(photos: pd.DataFrame, seen: Seen) -> dict[str, pd.DataFrame]:
    """The scored photos by what a wrong outcome means to somebody."""
    synthetic, damaged = photos["label"] == "synthetic", photos["kind"] == "damaged"
    deployed = photos["generator"].isin([row.name for row in seen.deployed]) & (
        photos["kind"] != "pasted"
    )
    return {
        "really damaged": photos[~synthetic & damaged],
        "other real": photos[~synthetic & ~damaged],
        "synthetic, by deployed generators": photos[synthetic & deployed],
        "other synthetic": photos[synthetic & ~deployed],
    }


def share(count: int, n: int) -> str:
    """A share with its exact interval."""
    return with_interval(count / n, *share_interval(count, n), percent)


def with_interval(
    value: float | None, low: Any, high: Any, tell: Callable[[Any], str] = figure
) -> str:
    """A figure with its interval in brackets, where it has one."""
    if value is None or pd.isna(value):
        return NOTHING
    return (
        tell(value)
        if low is None or pd.isna(low)
        else f"{tell(value)} ({tell(low)} to {tell(high)})"
    )


def cell(row: Row, key: str) -> str:
    """A figure of a row, as `slice_table` names its columns."""
    return with_interval(
        row.get(key), row.get(f"{key}_low"), row.get(f"{key}_high"), partial(format_figure, key)
    )


def _origin(run: Mapping[str, Any]) -> Markdown:
    parts = [code(str(run["command"]))] if run.get("command") else []
    parts += [escape(f"at {commit_words(run['git_commit'])}")] if run.get("git_commit") else []
    parts += [escape(str(run["date"])[:10])] if run.get("date") else []
    return Markdown(" · ".join(parts))


def commit_words(commit: str) -> str:
    """A commit as `realdamage.commit.git_commit` gives it, in words."""
    return f"{commit[:12]}{' with uncommitted changes' if commit.endswith('+changes') else ''}"


def _headlines(metrics: Mapping[str, Any], report: Report) -> Iterator[Headline]:
    by_key = {row.key: row for row in report.headlines}
    yield by_key["auroc"]
    for suffix, negatives in (("", "really damaged photos"), ("_all_real", "all real photos")):
        for fpr in RATES.values():
            key = f"tpr_at_fpr_{100 * fpr:g}{suffix}"
            low, high = (metrics.get("intervals") or {}).get(key) or (None, None)
            note = (metrics.get("reasons") or {}).get(key, "")
            title = f"TPR at {100 * fpr:g}% FPR on {negatives}"
            yield Headline(key, title, metrics.get(key), low, high, True, fpr, note)
    yield from (by_key[key] for key in _FROM_REPORT if key in by_key)


def _headline(row: Headline) -> tuple[str, ...]:
    tell = percent if row.share else figure
    interval = NOTHING if row.low is None else f"{tell(row.low)} to {tell(row.high)}"
    baseline = NOTHING if row.baseline is None else tell(row.baseline)
    return row.title, tell(row.value), interval, baseline, row.note


def _slices(evaluated: Evaluated) -> Iterator[tuple[str, Markdown, str]]:
    """(title, table, the values that are too few for a figure)."""
    report = evaluated.report
    sorts_of = [{**row, "kind": row["synthetic photos by"]} for row in report.parts]
    yield _slice("synthetic photos by", "kind", sorts_of, {})
    yield _slice("kind", "kind", report.slices.get("kind", ()), {})
    marks = {row.name: _mark(row.sort, row.trained_on) for row in evaluated.seen.generators}
    yield _slice("generator", "generator", report.slices.get("generator", ()), marks)
    families: dict[str, list[GeneratorCount]] = {}
    for row in evaluated.seen.deployed:
        families.setdefault(row.family, []).append(row)
    told = {name: _family_mark(own) for name, own in families.items() if name}
    named = [row for row in report.slices.get("family", ()) if row.get("family") in told]
    yield _slice("family", "family", named, told)


def _mark(sort: str, trained_on: bool | None) -> str:
    known = {True: "trained on", False: "never trained on", None: "not known"}[trained_on]
    return known if sort == "deployed" else f"{known} ({sort})"


def _family_mark(own: Sequence[GeneratorCount]) -> str:
    """Of a family, whose generators in the test need not be those that the model was trained on."""
    known = {row.family_trained_on for row in own}
    if True not in known:
        return _mark("deployed", None if None in known else False)
    new = sum(row.trained_on is False for row in own)
    return (
        f"trained on, by {'other' if new == len(own) else 'some of these'} generators"
        if new
        else "trained on"
    )


def _slice(
    title: str, key: str, rows: Sequence[Row], marks: Mapping[str, str]
) -> tuple[str, Markdown, str]:
    rated = [row for row in rows if row.get("auroc") is not None]
    few = [f"{row[key]} {row['n']:,}" for row in rows if row.get("auroc") is None]
    kept = measured(SLICE_FIGURES, rated)
    titles = (title, *(["in training"] if marks else []), "photos", *kept.values())
    cells = [
        (
            row[key],
            *([marks.get(str(row[key]), NOTHING)] if marks else []),
            f"{row['n']:,}",
            *(cell(row, column) for column in kept),
        )
        for row in rated
    ]
    return title, table(titles, cells), ", ".join(few)


def _robustness(rows: Sequence[Row]) -> Markdown:
    kept = measured(ROBUSTNESS_FIGURES, rows)
    cells = [
        (
            row.get("title") or row["perturbation"],
            f"{row['n']:,}",
            *(cell(row, key) + of_how_many(row, key) for key in kept),
        )
        for row in rows
    ]
    return table(("after", "photos", *kept.values()), cells)
