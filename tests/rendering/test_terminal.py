"""What the commands print holds the same figures as the files, with a reason where one is
missing."""

import subprocess
import sys

import pandas as pd

from realdamage.evaluation.costs import Costs, cost_report, triage_order
from realdamage.evaluation.figures import photo_metrics
from realdamage.evaluation.slices import json_records, robustness_table
from realdamage.rendering import terminal, words
from realdamage.rendering.report import headlines


def row(text, start):
    """The words of the line that starts so."""
    [line] = [line for line in text.splitlines() if line.startswith(start)]
    return line.removeprefix(start).split()


def test_an_evaluation_prints_its_figures_and_reasons(judged):
    judged = judged.replace({"generator": {"Nano Banana": "[bold]x[/bold]"}})
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
    assert row(text, "[bold]x[/bold]")[0] == "50"
    assert f"{perturbed[1]['auroc']:.3f}" in row(text, "blur")


def test_costs_and_the_queue_print_what_was_computed(judged):
    report = cost_report(judged, Costs(0.02, 60.0, 4.0, 150.0))
    text = terminal.render("costs", report=report)
    for way in report.ways:
        assert f"{way.cost:.4g}" in row(text, way.name)
    queue = triage_order(judged)
    text = terminal.render("queue", queue=queue)
    assert text.startswith(f"{len(queue.claims)} claims with {len(queue.photos)} photos")
    first = queue.claims.iloc[0]
    assert row(text, f"   1  {first['claim_id']}")[1] == f"{first['probability']:.4f}"


def test_what_claims_print_needs_no_pandas():
    code = "import sys, realdamage.rendering.terminal; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
