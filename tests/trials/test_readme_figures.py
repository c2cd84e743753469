"""Figures reach the CSV and the README from evaluations alone, with their origin."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from realdamage.evaluation.predictions import (
    FURTHER_COLUMNS,
    PREDICTION_COLUMNS,
    write_predictions,
)

RUN = {
    "model_version": "reference-2026-01-02",
    "graph_sha256": "0123456789abcdef",
    "data_root": "out/data/x",
    "split": "test",
    "command": "realdamage-evaluate checkpoint=x.onnx",
    "git_commit": "abcdef0123456789",
    "date": "2026-01-02T03:04:05+00:00",
}
ROW = {
    **{"n": 7, "auroc": 0.75, "tpr_at_fpr_1": None, "tpr_at_fpr_5": 0.25, "trained_on": True},
    **{"called_synthetic": 0.5, "called_real": 0.5},
}
ENDS = {"auroc_low": 0.5, "auroc_high": 0.9, "tpr_at_fpr_1_low": 0.1, "tpr_at_fpr_1_high": 0.8}
PERTURBED = {
    **{"title": "JPEG 70", "n": 20, "auroc": 0.6, "called_synthetic": 0.25, "n_real": 12},
    **{"false_alarms": 0.0, "false_alarms_all_real": 0.25},
}
METRICS: dict[str, Any] = {
    **{"n": 20, "auroc": 0.875, "tpr_at_fpr_1": None, "tpr_at_fpr_5": 0.5},
    "intervals": {"auroc": [0.8, 0.95], "tpr_at_fpr_1": None, "tpr_at_fpr_5": [0.25, 0.75]},
    "slices": {
        "generator": [
            {"generator": "g1", **ROW, **ENDS},
            {"generator": "few", **ROW, **ENDS, "tpr_at_fpr_1": 0.5},
        ]
    },
    "per_kind": {"pasted": ROW},
    "per_generator": {
        "g1": ROW,
        "g2": {**ROW, "trained_on": False},
        "few": {**ROW, "n": 6, "tpr_at_fpr_1": 0.5},
        "many": {**ROW, "n": 20},
        "rare": {**ROW, "n": 1, "auroc": None, "tpr_at_fpr_5": None},
    },
    "localisation": {"pixel_ap": 0.4, "prevalence": 0.1, "best_f1": 0.5, "baseline_f1": 0.18},
    "robustness": [PERTURBED],
    "container_auroc": {"auroc": 0.51, "low": 0.44, "high": 0.58},
    "run": RUN,
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """An evaluation of 25 really damaged photos, one of them accused, and 40 fakes, 30 found."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    columns = (*PREDICTION_COLUMNS, *FURTHER_COLUMNS)
    table = pd.DataFrame({column: [""] * 65 for column in columns}).assign(
        file_name=[f"{i}.jpg" for i in range(65)],
        label=["real"] * 25 + ["synthetic"] * 40,
        kind=["damaged"] * 25 + ["ai_region"] * 40,
        generator=[""] * 25 + ["g1"] * 20 + ["g2"] * 20,
        score=0.0,
        probability=0.5,
        outcome=["synthetic"] + ["real"] * 24 + ["synthetic"] * 30 + ["review"] * 10,
    )
    write_predictions(folder / "predictions.csv", table)
    return folder


@pytest.fixture
def fill(
    readme_figures: ModuleType, written: Path, tmp_path: Path
) -> Callable[[str], tuple[int, str]]:
    """`fill(text)`: the exit code, and the README that had this text."""

    def filled(text: str) -> tuple[int, str]:
        readme = tmp_path / "README.md"
        readme.write_text(text)
        target = str(tmp_path / "x.csv")
        given = [f"test={written}", "--csv", target, "--readme", str(readme)]
        return readme_figures.main(given), readme.read_text()

    return filled


def test_every_figure_is_in_the_csv_with_its_origin(
    readme_figures: ModuleType, written: Path, tmp_path: Path
) -> None:
    assert readme_figures.main([f"test={written}", "--csv", str(tmp_path / "x.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    named = {(row["slice"], row["name"]): row for row in rows}
    assert len(named) == len(rows) == 1 + 1 + 5 + 4 + 1 + 1
    assert {row["git_commit"] for row in rows} == {RUN["git_commit"]}
    overall = named["all", "all"]
    keys = ("auroc", "auroc_low", "auroc_high", "tpr_at_fpr_1", "tpr_at_fpr_1_low", "tpr_at_fpr_5")
    assert [overall[key] for key in keys] == ["0.8750", "0.8000", "0.9500", "", "", "0.5000"]
    first, second = named["generator", "g1"], named["generator", "g2"]
    assert (first["auroc_low"], first["tpr_at_fpr_1_low"]) == ("0.5000", "")
    assert (second["auroc_low"], second["trained_on"]) == ("", "False")
    assert named["localisation", "pixel_ap"]["value"] == "0.4000"
    perturbed = named["perturbation", "JPEG 70"]
    keys = ("auroc", "auroc_low", "called_synthetic", "false_alarms", "n_real")
    assert [perturbed[key] for key in keys] == ["0.6000", "", "0.2500", "0.0000", "12"]


def test_the_readme_gets_each_table_between_its_marks(
    readme_figures: ModuleType, fill: Callable[[str], tuple[int, str]]
) -> None:
    marks = readme_figures.MARKS
    start, end = marks["figures"]
    code, text = fill(
        f"before\n{start}\nstale\n{end}\nbetween\n{''.join(marks['outcomes'])}\nafter\n"
    )
    assert code == 0
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    for line in (
        "| test | all | 20 | 0.875 (0.800–0.950) | – | 0.500 (0.250–0.750) |",
        "| test | g1 | 7 | 0.750 (0.500–0.900) | – | – |",  # a rate of 7 photos without an interval
        "| test | g2 (never trained on) | 7 | 0.750 | – | – |",
        "| test | few | 6 | 0.750 (0.500–0.900) | 0.500 (0.100–0.800) | – |",
        "| test | many | 20 | 0.750 | – | 0.250 |",
        "`realdamage-evaluate checkpoint=x.onnx` at abcdef01, 2026-01-02",
    ):
        assert line in text
    assert "rare" not in text  # one photo is in the CSV only
    outcomes = text.split("between")[1]
    assert "| really damaged photos | 25 | 960 (24) | 0 (0) | 40 (1) |" in outcomes
    assert "never seen in training | 20 | 0 (0) | 500 (10) | 500 (10) |" in outcomes
    assert "75 in 100 are found at the shipped thresholds (30 of 40)" in outcomes


def test_what_cannot_be_read_or_filled_changes_nothing(
    readme_figures: ModuleType, fill: Callable[[str], tuple[int, str]], tmp_path: Path
) -> None:
    assert fill("no marks") == (3, "no marks")
    target = str(tmp_path / "y.csv")
    assert readme_figures.main([f"test={tmp_path / 'none'}", "--csv", target]) == 2
    assert readme_figures.main(["test", "--csv", target]) == 2
    assert not Path(target).exists()
