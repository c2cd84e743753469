"""Figures reach the CSV and the README from metrics.json alone, with what is needed to find their origin."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from realdamage.evaluation.results import END, START, main

RUN = {
    "model_version": "reference-2026-01-02",
    "graph_sha256": "0123456789abcdef",
    "data_root": "out/data/x",
    "split": "test",
    "command": "realdamage-evaluate checkpoint=x.onnx",
    "git_commit": "abcdef0123456789",
    "date": "2026-01-02T03:04:05+00:00",
}


def metrics(**changes: Any) -> dict[str, Any]:
    slice_row = {
        "n": 7,
        "auroc": 0.75,
        "tpr_at_fpr_1": None,
        "tpr_at_fpr_5": 0.25,
        "called_synthetic": 0.5,
    }
    return {
        "n": 20,
        "auroc": 0.875,
        "tpr_at_fpr_1": None,
        "tpr_at_fpr_5": 0.5,
        "intervals": {"auroc": [0.8, 0.95], "tpr_at_fpr_1": None, "tpr_at_fpr_5": [0.25, 0.75]},
        "slices": {
            "generator": [
                {
                    "generator": name,
                    "auroc": 0.75,
                    "auroc_low": 0.5,
                    "auroc_high": 0.9,
                    "tpr_at_fpr_1": None,
                }
                | {"tpr_at_fpr_1_low": None, "tpr_at_fpr_1_high": None}
                for name in ("g1", "g3")
            ]
        },
        "per_kind": {"pasted": {**slice_row, "called_real": 0.5}},
        "per_generator": {
            "g1": {**slice_row, "trained_on": True, "called_real": 0.5},
            "g2": {**slice_row, "trained_on": False, "called_real": 0.5},
            "rare": {
                **slice_row,
                "n": 1,
                "auroc": None,
                "tpr_at_fpr_5": None,
                "trained_on": True,
                "called_real": 0.5,
            },
        },
        "localisation": {"pixel_ap": 0.4, "prevalence": 0.1, "best_f1": 0.5, "baseline_f1": 0.18},
        "container_auroc": {"auroc": 0.51, "low": 0.44, "high": 0.58},
        "run": RUN,
        **changes,
    }


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(metrics()))
    return path


def test_every_figure_stands_in_the_csv_with_its_origin(written: Path, tmp_path: Path) -> None:
    assert main([f"test={written}", "--csv", str(tmp_path / "x.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert [(row["slice"], row["name"]) for row in rows] == [
        ("all", "all"),
        ("kind", "pasted"),
        ("generator", "g1"),
        ("generator", "g2"),
        ("generator", "rare"),
        *(("localisation", key) for key in ("pixel_ap", "prevalence", "best_f1", "baseline_f1")),
        ("files only", "size, bytes, tables"),
    ]
    assert rows[0]["auroc"] == "0.8750"
    assert (rows[0]["auroc_low"], rows[0]["auroc_high"], rows[0]["tpr_at_fpr_1"]) == (
        "0.8000",
        "0.9500",
        "",
    )
    assert (rows[0]["tpr_at_fpr_5"], rows[0]["tpr_at_fpr_5_low"], rows[0]["tpr_at_fpr_5_high"]) == (
        *("0.5000", "0.2500", "0.7500"),
    )
    assert rows[0]["tpr_at_fpr_1_low"] == ""
    assert (rows[2]["auroc_low"], rows[2]["auroc_high"], rows[2]["tpr_at_fpr_1_low"]) == (
        "0.5000",
        "0.9000",
        "",
    )
    assert rows[3]["auroc_low"] == ""  # g2 has no slice
    assert rows[3]["trained_on"] == "False"
    assert rows[5]["value"] == "0.4000"
    assert {row["git_commit"] for row in rows} == {RUN["git_commit"]}


def test_each_perturbation_has_its_row(tmp_path: Path) -> None:
    rate = {"n": 20, "auroc": 0.6, "auroc_low": 0.5, "auroc_high": 0.7, "tpr_at_fpr_1": None}
    called = {
        "called_synthetic": 0.25,
        "called_real": 0.5,
        "n_damaged": 5,
        "false_alarms": 0.0,
        "n_real": 12,
    }
    called |= {
        "false_alarms_all_real": 0.25,
        "false_alarms_all_real_low": 0.0,
        "false_alarms_all_real_high": 0.5,
    }
    rows = [{"title": "JPEG 70", **rate, **called}, {"title": "an old one", **rate}]
    (tmp_path / "m.json").write_text(json.dumps(metrics(robustness=rows)))
    assert main([f"test={tmp_path / 'm.json'}", "--csv", str(tmp_path / "x.csv")]) == 0
    row, old = (
        row for row in csv.DictReader((tmp_path / "x.csv").open()) if row["slice"] == "perturbation"
    )
    assert (row["name"], row["auroc"], row["auroc_low"], row["tpr_at_fpr_1"]) == (
        "JPEG 70",
        "0.6000",
        "0.5000",
        "",
    )
    assert (row["called_synthetic"], row["called_real"]) == ("0.2500", "0.5000")
    assert (row["false_alarms"], row["n_damaged"]) == ("0.0000", "5")
    assert (row["false_alarms_all_real"], row["false_alarms_all_real_high"], row["n_real"]) == (
        "0.2500",
        "0.5000",
        "12",
    )
    assert (old["name"], old["false_alarms_all_real"], old["called_synthetic"]) == (
        "an old one",
        "",
        "",
    )


def test_the_readme_gets_the_table_between_its_marks(written: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    assert main([f"test={written}", "--csv", str(tmp_path / "x.csv"), "--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| test | all | 20 | 0.875 (0.800–0.950) | – | 0.500 (0.250–0.750) |" in text
    assert (
        "| test | g1 | 7 | 0.750 (0.500–0.900) | – | – |" in text
    )  # a rate of seven photos, without an interval
    assert "g2 (never trained on)" in text
    assert "rare" not in text  # one photo tells nothing, and stands in the CSV
    assert ",rare,True,1," in (tmp_path / "x.csv").read_text()
    assert "`realdamage-evaluate checkpoint=x.onnx` at abcdef01, 2026-01-02" in text


def test_a_rate_of_few_photos_is_told_with_its_interval_or_not_at_all(tmp_path: Path) -> None:
    row = {"auroc": 0.75, "tpr_at_fpr_1": 0.5, "tpr_at_fpr_5": 0.6, "trained_on": True}
    ends = {"auroc_low": 0.5, "auroc_high": 0.9, "tpr_at_fpr_1_low": 0.1, "tpr_at_fpr_1_high": 0.8}
    changes: dict[str, Any] = {
        "per_generator": {
            name: {"n": n, **row} for name, n in (("few", 6), ("bare", 19), ("many", 20))
        },
        "slices": {"generator": [{"generator": "few", **row, **ends}]},
    }
    (tmp_path / "m.json").write_text(json.dumps(metrics(**changes)))
    (tmp_path / "README.md").write_text(f"{START}\n{END}\n")
    arguments = ["--csv", str(tmp_path / "x.csv"), "--readme", str(tmp_path / "README.md")]
    assert main([f"test={tmp_path / 'm.json'}", *arguments]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "| test | few | 6 | 0.750 (0.500–0.900) | 0.500 (0.100–0.800) | – |" in text
    assert "| test | bare | 19 | 0.750 | – | – |" in text
    assert "| test | many | 20 | 0.750 | 0.500 | 0.600 |" in text
    old = metrics()
    del old["slices"]
    (tmp_path / "m.json").write_text(json.dumps(old))
    assert main([f"test={tmp_path / 'm.json'}", *arguments]) == 0
    assert "| test | g1 | 7 | 0.750 | – | – |" in (tmp_path / "README.md").read_text()


def test_what_cannot_be_read_or_filled_changes_nothing(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    target = str(tmp_path / "x.csv")
    assert main([f"test={written}", "--csv", target, "--readme", str(readme)]) == 3
    assert readme.read_text() == "no marks"
    assert main([f"test={tmp_path / 'none.json'}", "--csv", target]) == 3
    assert main(["test", "--csv", target]) == 2
    assert "NAME=PATH" in capsys.readouterr().err
