"""The notebooks run from top to bottom, print what the package computes, and are in git without
traces of a run."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pytest

from realdamage import Detector
from realdamage.core.detector import PACKAGED_MODEL
from realdamage.core.model_file import read_model_file
from realdamage.data.manifest import read_manifest
from realdamage.evaluation.calibration import calibrate_model
from realdamage.evaluation.costs import Costs, cost_report
from realdamage.evaluation.guarantee import Targets
from realdamage.evaluation.perturbations import suite_from_config
from realdamage.evaluation.predictions import clean, read_predictions, write_predictions
from realdamage.evaluation.robustness import ModelFile, Suite, all_figures

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
JPEG = {"jpeg_50": {"title": "JPEG 50", "steps": [{"step": "jpeg", "quality": 50}]}}


class Shown(NamedTuple):
    """What an executed notebook shows: its printed lines, its tables as HTML, its number of
    pictures."""

    printed: str
    tables: str
    pictures: int


class Evaluated(NamedTuple):
    """Some photos, a calibrated model, and what the model made of them."""

    photos: Path
    model: Path
    folder: Path


@pytest.fixture(scope="module")
def evaluated(write_set, tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    photos = write_set(root / "photos", 8, splits=False)
    model, folder = root / "model.onnx", root / "evaluation"
    manifest = read_manifest(photos)
    calibrate_model(PACKAGED_MODEL, manifest, Targets(fpr=0.25, miss=0.25), output=model)
    suite = suite_from_config({"perturbations": JPEG})
    scored = Suite(ModelFile(model), manifest, suite, folder, "model")
    scored.score(threads=1, workers=1)
    _, metadata, graph_sha256 = read_model_file(model)
    metrics = all_figures(scored, metadata)
    run = {"checkpoint": str(model), "data_root": str(photos), "graph_sha256": graph_sha256}
    write_predictions(folder / "predictions.csv", scored.predictions)
    (folder / "metrics.json").write_text(json.dumps(metrics | {"run": run}))
    return Evaluated(photos, model, folder)


@pytest.fixture
def execute(monkeypatch, capsys):
    """`execute(name, photos=…)` runs a notebook's cells, in this process and in the folder of the
    notebooks, with these parameters instead of its own."""
    monkeypatch.chdir(ROOT / "notebooks")
    plt.switch_backend("agg")

    def run(name, **parameters):
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        for key, value in parameters.items():
            assert re.search(rf"^{key} = ", cell.source, re.MULTILINE), f"no parameter {key}"
            given = str(value) if isinstance(value, Path) else value
            cell.source += f"\n{key} = {given!r}"
        names = {}
        values = [run_cell(cell, names) for cell in notebook.cells if cell.cell_type == "code"]
        tables = [value.to_html() for value in values if hasattr(value, "to_html")]
        figures = [plt.figure(number) for number in plt.get_fignums()]
        for figure in figures:
            figure.canvas.draw()
        return Shown(capsys.readouterr().out, "\n".join(tables), len(figures))

    with mpl.rc_context({"figure.max_open_warning": 0}):
        yield run
    plt.close("all")


def run_cell(cell, names):
    """Returns the value of the last line, which a notebook would show."""
    module = ast.parse(cell.source)
    last = module.body.pop() if isinstance(module.body[-1], ast.Expr) else None
    exec(compile(module, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


@pytest.mark.slow
def test_the_manifest_notebook_finds_the_trap_that_it_sets(execute, evaluated):
    found = execute("01_manifest", photos=evaluated.photos)
    assert found.pictures == 6
    assert "source, AUROC 1.000" in found.printed


@pytest.mark.slow
def test_the_errors_notebook_shows_the_figures_of_its_evaluation(execute, evaluated):
    photos, model, folder = evaluated
    found = execute("02_errors", evaluation=folder, model=model, photos=photos)
    assert found.pictures + found.printed.count("Not drawn") == 11
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"{metrics['n']} photos judged, under 2 perturbations" in found.printed
    assert f">{metrics['auroc']:.6f}<" in found.tables


@pytest.mark.slow
def test_the_thresholds_notebook_agrees_with_the_package(execute, evaluated):
    _, model, folder = evaluated
    found = execute(
        "03_thresholds", evaluation=folder, model=model, fraud_rate=0.02, review_cost=3.0
    )
    assert found.pictures >= 3
    predictions = clean(read_predictions(folder / "predictions.csv"))
    judged = cost_report(predictions, Costs(0.02, 60.0, 3.0, 150.0)).ways[-1].cost
    assert f"as judged: {judged:.3f} a claim" in found.printed
    assert "90% at an even share of fakes is 15.5% at 2.0%" in found.printed
    assert "1% takes 299 without" in found.printed


@pytest.mark.slow
def test_the_claim_notebook_comes_to_the_detector_s_own_verdict(execute, evaluated):
    photos, model, _ = evaluated
    table = read_manifest(photos).table
    found = execute("04_claim", model=model, photos=photos, prior=0.03, ways=("chat",))
    assert found.pictures == 3
    [name] = [name for name in table["file_name"] if f"{Path(name).name}: " in found.printed]
    assert table.set_index("file_name").loc[name, "kind"] == "ai_region"
    verdict = Detector.load(model, prior=0.03, allow_demo=True).predict(photos / name)
    score = f"{verdict.score:+.4f}"
    assert f"pooled here: {score}; by the detector: {score}" in found.printed
    assert f"{verdict.outcome}; probability {verdict.probability:.1%} if 3.0%" in found.printed
    assert f"{100 * verdict.probability:.0f} of 100 photos with this score are; " in found.printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_a_purpose_and_parameters_and_no_traces_of_a_run(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == {"language_info": {"name": "python"}}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    first, second, *_ = notebook.cells
    heading, purpose = first.source.split("\n\n")
    assert heading.startswith("# ")
    assert purpose.endswith(".")
    assert second.metadata.tags == ["parameters"]
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"[\"'`](/|~|[A-Z]:\\)\w", text), "a path of somebody's own machine"
