"""What the commands print holds the same figures as the files, with a reason where one is
missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from realdamage.core.model_file import read_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.evaluation.calibration import CalibrationSummary
from realdamage.evaluation.compare import compare_models
from realdamage.evaluation.costs import Costs, cost_report, triage_order
from realdamage.evaluation.figures import photo_metrics
from realdamage.evaluation.slices import json_records, robustness_table
from realdamage.rendering import terminal, words
from realdamage.rendering.report import headlines


@pytest.fixture(scope="module")
def judged(predictions: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """100 really damaged photos and 100 edits whose scores overlap."""
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.normal(-1, 1, 100), rng.normal(1, 1, 100)])
    return predictions(
        label=["real"] * 100 + ["synthetic"] * 100,
        kind=["damaged"] * 100 + ["ai_region"] * 100,
        generator=[""] * 100 + ["[bold]x[/bold]"] * 100,
        score=score,
        outcome=np.select([score >= 2, score <= -2], ["synthetic", "real"], "review"),
    ).assign(probability=1 / (1 + np.exp(-score)))


def row(text: str, start: str) -> list[str]:
    """The words of the line that starts so."""
    [line] = [line for line in text.splitlines() if line.startswith(start)]
    return line.removeprefix(start).split()


def test_cells_print_a_dash_for_what_is_missing() -> None:
    formats = ("{0[a]:.1f}", "{0[b][1]:.2%}")
    rows = [{"a": 1.25, "b": (0, 0.5)}, {"a": None, "b": None}, {"a": float("nan"), "b": (0, None)}]
    assert list(words.cells(rows, formats)) == [["1.2", "50.00%"], ["–", "–"], ["–", "–"]]
    lines = terminal.grid(("name", "n"), [("[red]a", "1"), ("b", "100")]).splitlines()
    assert lines == ["name      n", "[red]a    1", "b       100"]


def test_an_evaluation_prints_its_figures_and_reasons(judged: pd.DataFrame) -> None:
    metrics = photo_metrics(judged, threshold=0.0, n_boot=20)
    blurred = judged.assign(perturbation="blur", score=judged["score"] * 0.5)
    perturbed = json_records(robustness_table(pd.concat([judged, blurred]), n_boot=20))
    found = {each["key"]: each for each in headlines(metrics, judged)}
    text = terminal.evaluation_text(metrics | {"robustness": perturbed}, list(found.values()))
    low, high = metrics["intervals"]["auroc"]
    printed = row(text, words.TITLES["auroc"])
    assert printed == [f"{metrics['auroc']:.3f}", f"{low:.3f}", "to", f"{high:.3f}"]
    assert row(text, words.TITLES["tpr_at_fpr_0.5"])[0] == "–"
    assert metrics["reasons"]["tpr_at_fpr_0.5"] in text
    assert found["false_alarms"]["note"] in text
    assert row(text, "[bold]x[/bold]")[0] == "100"
    assert f"{perturbed[1]['auroc']:.3f}" in row(text, "blur")


def test_a_comparison_ends_with_its_conclusion(judged: pd.DataFrame) -> None:
    better = judged.assign(score=judged["score"] + 3 * (judged["label"] == "synthetic"))
    comparison = compare_models(judged, better, names=("old", "new"), n_boot=50)
    text = terminal.comparison_text(comparison)
    auroc = comparison.figures[0]
    assert row(text, auroc.title)[:3] == words_of(auroc.a, auroc.b, auroc.difference)
    assert text.splitlines()[-1].startswith("B is better in AUROC")
    same = terminal.comparison_text(compare_models(judged, judged, n_boot=50))
    assert same.splitlines()[-1].startswith("No clear difference")


def words_of(a: float | None, b: float | None, difference: float | None) -> list[str]:
    return [f"{a:.3f}", f"{b:.3f}", f"{difference:+.3f}"]


def test_costs_and_the_queue_print_what_was_computed(judged: pd.DataFrame) -> None:
    report = cost_report(judged, Costs(0.02, 60.0, 4.0, 150.0))
    text = terminal.render("costs", report=report)
    for way in report.ways:
        assert f"{way.cost:.4g}" in row(text, way.name)
    queue = triage_order(judged)
    text = terminal.render("queue", queue=queue)
    assert text.startswith(f"{len(queue.claims)} claims with {len(queue.photos)} photos")
    first = queue.claims.iloc[0]
    assert row(text, f"   1  {first['claim_id']}")[1] == f"{first['probability']:.4f}"


def test_what_claims_print_needs_no_pandas() -> None:
    code = "import sys, realdamage.rendering.terminal; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_fact_about_a_model_has_a_line_of_its_own(
    save_red_model: Callable[..., Path], policy: Policy, tmp_path: Path
) -> None:
    training = {"git_commit": "0" * 40, "photos": {"real": 3}}
    path = save_red_model(tmp_path / "red.onnx", training=training)
    metadata = read_model_file(path)[1]
    found = dict(words.facts("card_facts.txt.j2", metadata=metadata, run={}))
    assert (found["trained at commit"], found["trained on"]) == ("0" * 12, "3 real")
    curve = Calibration(slope=1.0, intercept=0.0, prior=0.5)
    shares: Any = dict.fromkeys(("called_synthetic", "called_real", "caught", "review"), 0.0)
    summary = CalibrationSummary(path, "val", curve, policy, **shares, demo=True)
    text = terminal.calibration_text(summary)
    assert [line for line in text.splitlines() if line.startswith(str(path))]
