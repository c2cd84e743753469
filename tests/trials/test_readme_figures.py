"""Figures reach the CSV and the README from metrics.json alone, with their origin."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(METRICS))
    return path


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


def test_the_readme_gets_the_table_between_its_marks(
    readme_figures: ModuleType, written: Path, tmp_path: Path
) -> None:
    readme, target = tmp_path / "README.md", str(tmp_path / "x.csv")
    readme.write_text(f"before\n{readme_figures.START}\nold\n{readme_figures.END}\nafter\n")
    assert readme_figures.main([f"test={written}", "--csv", target, "--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
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


def test_what_cannot_be_read_or_filled_changes_nothing(
    readme_figures: ModuleType, written: Path, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    target = str(tmp_path / "x.csv")
    main = readme_figures.main
    assert main([f"test={written}", "--csv", target, "--readme", str(readme)]) == 3
    assert readme.read_text() == "no marks"
    assert main([f"test={tmp_path / 'none.json'}", "--csv", target]) == 3
    assert main(["test", "--csv", target]) == 2
