"""Figures reach the CSV and the README from evaluations alone, with their origin."""

import csv
import json
import runpy
from pathlib import Path

import pandas as pd
import pytest

from realdamage.evaluation.left_out import COLUMNS
from realdamage.evaluation.predictions import predictions_table, write_predictions

TOOL = runpy.run_path(str(Path(__file__).with_name("readme_figures.py")))
RUN = {
    "model_version": "reference-2026-01-02",
    "graph_sha256": "0123456789abcdef",
    "data_root": "out/data/x",
    "split": "test",
    "command": "realdamage-evaluate checkpoint=x.onnx",
    "git_commit": "abcdef0123456789",
    "date": "2026-01-02T03:04:05+00:00",
}
ROW = {"n": 7, "auroc": 0.75, "tpr_at_fpr_1": None, "tpr_at_fpr_5": 0.25, "trained_on": True}
METRICS = {
    **{"n": 20, "auroc": 0.875, "tpr_at_fpr_1": None, "tpr_at_fpr_5": 0.5},
    "intervals": {"auroc": [0.8, 0.95], "tpr_at_fpr_1": None, "tpr_at_fpr_5": [0.25, 0.75]},
    "slices": {"generator": [{"generator": "g1", **ROW, "auroc_low": 0.5, "auroc_high": 0.9}]},
    "per_kind": {"pasted": ROW},
    "per_generator": {
        "g1": ROW,
        "g2": {**ROW, "trained_on": False},
        "rare": {**ROW, "n": 1, "auroc": None, "tpr_at_fpr_5": None},
    },
    "localisation": {"pixel_ap": 0.4, "prevalence": 0.1, "best_f1": 0.5, "baseline_f1": 0.18},
    "robustness": [{"title": "JPEG 70", "n": 20, "auroc": 0.6}],
    "container_auroc": {"auroc": 0.51, "low": 0.44, "high": 0.58},
    "run": RUN,
}


@pytest.fixture
def evaluation(tmp_path):
    """NAME=FOLDER of an evaluation of two photos."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    photos = {"file_name": ["a.jpg", "b.jpg"], "label": ["real", "synthetic"], "score": [0.0, 1.0]}
    write_predictions(folder / "predictions.csv", predictions_table(pd.DataFrame(photos)))
    return f"test={folder}"


def test_a_new_shop_is_counted_over_all_sources(tmp_path):
    rows = [{"fold": name, "left_out": "all", "auroc": 0.8} for name in ("f", "mean", "worst")]
    for n, review, found in ((300, 200, 0.2), (100, 100, 0.4)):
        shop = {"column": "source", "n_real": n, "honest_synthetic": 1, "honest_review": review}
        own = {"own_honest_synthetic": 4, "own_honest_review": 50, "own_fakes_found": found}
        rows.append({"fold": "f", "left_out": f"shop{n}", **shop, **own, "fakes_found": 0.1})
    columns = [*COLUMNS, "git_commit", "command", "date"]
    table = pd.DataFrame(rows, columns=columns).assign(perturbation="none", command="folds")
    table.assign(git_commit="a", date="b", note="").to_csv(tmp_path / "folds.csv", index=False)
    text = TOOL["shops_table"](tmp_path / "folds.csv")
    assert "| from other sources | 0.5% | 75.0% | 10% |" in text
    assert "| from its own photos | 2.0% | 25.0% | 30% |" in text
    assert text.count("400 honest photos of 2 sources that 1 model") == 1


def test_figures_reach_the_csv_and_the_readme(evaluation, tmp_path):
    target, readme = tmp_path / "x.csv", tmp_path / "README.md"
    start, end = TOOL["MARKS"]["figures"]
    readme.write_text(f"before\n{start}\nstale\n{end}\nafter\n")
    assert TOOL["main"]([evaluation, "--csv", str(target), "--readme", str(readme)]) == 0
    with target.open() as file:
        rows = {(row["slice"], row["name"]): row for row in csv.DictReader(file)}
    assert len(rows) == 1 + 1 + 3 + 4 + 1 + 1
    assert {row["git_commit"] for row in rows.values()} == {RUN["git_commit"]}
    keys = ("auroc", "auroc_low", "auroc_high", "tpr_at_fpr_1", "tpr_at_fpr_5_low")
    assert [rows["all", "all"][key] for key in keys] == ["0.8750", "0.8000", "0.9500", "", "0.2500"]
    assert rows["generator", "g2"]["trained_on"] == "False"
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    for line in (
        "| test | all | 20 | 0.875 (0.800–0.950) | – | 0.500 (0.250–0.750) |",
        "| test | g1 | 7 | 0.750 (0.500–0.900) | – | – |",  # a rate of 7 photos without an interval
        "| test | g2 (never trained on) | 7 | 0.750 | – | – |",
        "`realdamage-evaluate checkpoint=x.onnx` at abcdef01, 2026-01-02",
    ):
        assert line in text
    assert "rare" not in text  # one photo is in the CSV only


def test_what_cannot_be_read_or_filled_changes_nothing(evaluation, tmp_path):
    target, readme = tmp_path / "x.csv", tmp_path / "README.md"
    readme.write_text("no marks")
    assert TOOL["main"]([evaluation, "--csv", str(target), "--readme", str(readme)]) == 3
    assert TOOL["main"]([f"test={tmp_path / 'none'}", "--csv", str(target)]) == 2
    assert TOOL["main"](["test", "--csv", str(target)]) == 2
    assert readme.read_text() == "no marks"
    assert not target.exists()
