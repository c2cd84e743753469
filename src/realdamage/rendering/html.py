"""The pages: an evaluation's report, a comparison of two models, an audit. Each is one file that
loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from realdamage.data.audit import AuditReport
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.data.shortcuts import LIMIT
from realdamage.errors import RealDamageError
from realdamage.evaluation.compare import KEYS, Comparison
from realdamage.evaluation.predictions import clean, read_evaluation
from realdamage.files import write_atomically
from realdamage.rendering import plots, terminal, words
from realdamage.rendering.outcomes import per_thousand
from realdamage.rendering.report import Report, thumbnails

HTML_NAME = "report.html"
MOVED = 12
"""Photos shown of those on which two models differ most."""
_THUMBNAIL_SIDE, _MOVED_SIDE = 128, 240  # pixels of a picture's longer side


def write_report(folder: Path, report: Report) -> Path:
    """Writes report.html into the folder and returns its path."""
    write_atomically(folder / HTML_NAME, report_page(report).encode())
    return folder / HTML_NAME


def report_page(report: Report) -> str:
    """The report as HTML."""
    values = report.values
    curves, bins, photos = values["roc"], values["reliability"], values["photos"]
    height = 0.75 + 0.42 * photos["kind"].nunique()
    return render(
        "report.html.j2",
        report=values,
        pictures=report.pictures,
        roc=plots.svg(plots.roc, "ROC curve", curves, height=3.7) if curves else "",
        reliability=plots.svg(plots.reliability, "Reliability", bins) if len(bins) else "",
        scores=plots.svg(
            plots.scores, "Scores by kind of photo", photos, values["thresholds"], height=height
        ),
        robustness_plots=_robustness_plots(values["robustness"]),
        robustness=words.perturbation_rows(values["robustness"]),
        benchmark=terminal.benchmark_text(values["benchmark"]) if values["benchmark"] else "",
    )


def _robustness_plots(rows: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """A drawing for each figure that was measured."""
    found = []
    for key in ("auroc", "tpr_at_fpr_1", "false_alarms", "false_alarms_all_real"):
        if any(row.get(key) is not None for row in rows):
            title, height = words.COLUMNS[key], 0.75 + 0.185 * len(rows)
            label = f"{title} after each perturbation"
            found.append(plots.svg(plots.robustness, label, rows, key, title, height=height))
    return found


def photos_of(folders: Sequence[Path], given: Path | None = None) -> Manifest | None:
    """The photos that these evaluations judged, from `given` or where the first one says; None:
    not found. Raises RealDamageError: `given` cannot be read."""
    if given:
        return read_dataset(given)
    for folder in folders:
        with suppress(RealDamageError):  # a predictions file does not say where its photos are
            root = (read_evaluation(folder)[1].get("run") or {}).get("data_root")
            if root:
                return read_dataset(root)
    return None


def most_moved(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The `MOVED` photos, as they are, that two predictions tables order most differently.

    Columns of `a`, those of `b` ending in _b; rank and rank_b: the share of photos that score no
    higher, so that models with other scales compare; nearer: whether B moved it towards the truth.
    """
    both = clean(a).merge(clean(b), on=KEYS, suffixes=("", "_b"))
    both = both.dropna(subset=["score", "score_b"])
    both = both.assign(rank=both["score"].rank(pct=True), rank_b=both["score_b"].rank(pct=True))
    moved = both["rank_b"] - both["rank"]
    both = both.assign(nearer=(moved > 0) == (both["label"] == "synthetic"))
    return both.loc[moved.abs().sort_values(ascending=False, kind="stable").index].head(MOVED)


def comparison_page(
    comparison: Comparison,
    sides: tuple[pd.DataFrame, pd.DataFrame],
    manifest: Manifest | None = None,
) -> str:
    """A comparison of two models as HTML. sides: their predictions. manifest: for thumbnails."""
    ends = [abs(end) for row in comparison.figures for end in (row.low, row.high) if end]
    perturbed = [row for rows in comparison.perturbed.values() for row in rows]
    moved = most_moved(*sides)
    pictures = thumbnails(manifest, moved["file_name"].tolist(), _MOVED_SIDE) if manifest else ()
    return render(
        "comparison.html.j2",
        comparison=comparison,
        summary=words.lines("comparison.txt.j2", comparison=comparison),
        standings={row.standing for row in comparison.figures},
        shown={row.figure for row in perturbed if row.difference is not None},
        width=max([*ends, 1e-9]),
        moved=moved.to_dict("records"),
        pictures={picture["name"]: picture["url"] for picture in pictures},
    )


def audit_page(report: AuditReport, manifest: Manifest) -> str:
    """An audit as HTML, with thumbnails of the worst offenders from the photos of `manifest`."""
    pictures = partial(thumbnails, manifest, side=_THUMBNAIL_SIDE)
    tables = terminal.audit_counts(report)
    return render("audit.html.j2", report=report, limit=LIMIT, thumbnails=pictures, tables=tables)


def render(template: str, **values: Any) -> str:
    """A page. Every name and message comes from a user's files, so all of them are escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = words.environment(autoescape=True)
    environment.globals |= {"test_outcome": terminal.test_outcome, "per_thousand": per_thousand}
    return environment
