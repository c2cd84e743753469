"""The notebooks run from top to bottom, show what they should, and lie in the repository without traces of a run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from nbclient import NotebookClient

from realdamage import Detector
from realdamage.core.metadata import read_model_file, write_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.data.manifest import Manifest, read_manifest, write_manifest
from realdamage.evaluation.economics import Costs
from realdamage.evaluation.figures import all_figures
from realdamage.evaluation.guarantee import photos_needed, smallest_share
from realdamage.evaluation.perturbations import suite_from_config
from realdamage.evaluation.predictions import (
    clean,
    group_ids,
    read_predictions,
    score_manifest,
    write_predictions,
)
from realdamage.evaluation.robustness import ModelFile, score_suite
from realdamage.evaluation.threshold_choice import choose_thresholds
from realdamage.rendering.notebook import NotThereError, existing, repository

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLACE = {"metadata": {"path": str(ROOT / "notebooks")}}  # where a kernel runs
NAMES = ("01_manifest", "02_errors", "03_thresholds", "04_claim")
WAYS = {"jpeg_50": {"title": "JPEG 50", "steps": [{"step": "jpeg", "quality": 50}]}}


class Shown(NamedTuple):
    """What an executed notebook shows: its printed lines, its tables as HTML, its number of pictures, its errors."""

    printed: str
    tables: str
    pictures: int
    errors: list[str]


Execute = Callable[..., Shown]


class Evaluated(NamedTuple):
    """The sample, a calibrated model, and what the model made of the sample."""

    photos: Path
    model: Path
    folder: Path


@pytest.fixture(scope="module")
def evaluated(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    root = tmp_path_factory.mktemp("evaluated")
    photos, model, folder = root / "photos", root / "tiny.onnx", root / "evaluation"
    shutil.copytree(ROOT / "data" / "sample", photos)
    # All of them for a test, as a model that has not seen them may take them.
    write_manifest(photos, read_manifest(photos).table.assign(split="test"))
    calibrate(tiny_onnx, read_manifest(photos), model)
    scored = score_suite(
        ModelFile(model),
        read_manifest(photos),
        suite_from_config({"perturbations": WAYS}),
        folder=folder,
        model="tiny",
        threads=1,
        workers=1,
    )
    _, metadata, graph_sha256 = read_model_file(model)
    metrics = all_figures(scored, metadata)
    run = {"checkpoint": str(model), "data_root": str(photos), "graph_sha256": graph_sha256}
    write_predictions(folder / "predictions.csv", scored.predictions)
    (folder / "metrics.json").write_text(json.dumps(metrics | {"run": run}))
    return Evaluated(photos, model, folder)


def calibrate(source: Path, photos: Manifest, target: Path) -> None:
    """Thresholds through the midst of the scores: what a network of two epochs says is as good as drawn, and each
    outcome is to occur."""
    graph, metadata, _ = read_model_file(source)
    scores = score_manifest(Detector.load(source, threads=1), photos)[0]["score"]
    t_real, middle, t_synthetic = scores.quantile([0.25, 0.5, 0.75])
    slope = 2 / (t_synthetic - t_real)
    calibration = Calibration(prior=0.5, slope=slope, intercept=-slope * middle)
    sorts = {"real": 10, "damaged": 5, "synthetic": 14}
    policy = Policy(t_synthetic, t_real, fpr=0.25, miss=0.25, negatives="real", photos=sorts)
    write_model_file(target, graph, replace(metadata, calibration=calibration, policy=policy))


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kernels that read and write nothing of the user's."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def execute(kernels: None) -> Execute:
    """`execute(name, photos=…)` runs a notebook where it lies, with these parameters instead of its own."""

    def run(name: str, **parameters: Any) -> Shown:
        path = ROOT / "notebooks" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        cell = parameters_cell(notebook)
        values = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in parameters.items()
        }
        unknown = [key for key in values if not re.search(rf"^{key} = ", cell.source, re.MULTILINE)]
        assert unknown == [], f"{name} has no such parameters"
        cell.source += "".join(f"\n{key} = {value!r}" for key, value in values.items())
        client = NotebookClient(
            notebook, timeout=200, kernel_name="python3", resources=PLACE, allow_errors=True
        )
        client.execute()
        return shown(notebook)

    return run


def shown(notebook: nbformat.NotebookNode) -> Shown:
    outputs = [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    data = [output.data for output in outputs if "data" in output]
    return Shown(
        printed="".join(output.text for output in outputs if output.get("name") == "stdout"),
        tables="\n".join(each["text/html"] for each in data if "text/html" in each),
        pictures=sum("image/png" in each for each in data),
        errors=["\n".join(output.traceback) for output in outputs if output.output_type == "error"],
    )


def parameters_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return cell


def test_the_manifest_notebook_finds_the_trap_that_it_sets(execute: Execute) -> None:
    found = execute("01_manifest")
    assert found.errors == []
    assert found.pictures == 7
    assert "177 photos in data/sample, 177 of them looked at here" in found.printed
    assert "audit passed" in found.printed
    assert "source, AUROC 1.000" in found.printed
    assert "source generated: 0 real, 19 synthetic" in found.printed
    assert re.search(
        r"\d+ pairs look alike; 0 of them in two groups, 0 in two splits", found.printed
    )


def test_the_errors_notebook_shows_the_figures_of_its_evaluation(
    execute: Execute, evaluated: Evaluated
) -> None:
    found = execute(
        "02_errors", evaluation=evaluated.folder, model=evaluated.model, photos=evaluated.photos
    )
    assert found.errors == []
    assert found.pictures == 9
    metrics = json.loads((evaluated.folder / "metrics.json").read_text())
    assert "177 photos judged, under 2 perturbations" in found.printed
    low, high = metrics["intervals"]["auroc"]
    for text in (
        f"{metrics['auroc']:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{metrics['pairs']['edit_higher']:.1%}",
    ):
        assert f">{text}<" in found.tables


def test_the_thresholds_notebook_agrees_with_the_package(
    execute: Execute, evaluated: Evaluated
) -> None:
    found = execute(
        "03_thresholds",
        evaluation=evaluated.folder,
        model=evaluated.model,
        fraud_rate=0.02,
        review_cost=3.0,
    )
    assert found.errors == []
    assert found.pictures >= 6  # the queue's needs both classes in it
    predictions = clean(read_predictions(evaluated.folder / "predictions.csv"))
    policy = read_model_file(evaluated.model)[1].policy
    assert policy is not None
    assert (
        f"real up to {policy.t_real:+.2f}, synthetic from {policy.t_synthetic:+.2f}"
        in found.printed
    )
    assert "90% at an even share of fakes is 15.5% at 2.0%" in found.printed
    choice = choose_thresholds(predictions, Costs(0.02, 60.0, 3.0, 150.0), policy=policy)
    assert f"least cost: {choice.figures.cost:.3f} a claim" in found.printed
    n = group_ids(predictions[predictions["kind"] == "damaged"]).nunique()
    assert (
        f"{n} photos promise {smallest_share(n, 0.05):.2%} at best; 1% takes 299 without"
        in found.printed
    )
    assert photos_needed(0.01, 0.05) == 299


def test_the_claim_notebook_comes_to_the_detector_s_own_verdict(
    execute: Execute, evaluated: Evaluated
) -> None:
    found = execute(
        "04_claim", model=evaluated.model, photos=evaluated.photos, prior=0.03, ways=("chat",)
    )
    assert found.errors == []
    assert found.pictures == 6
    manifest: Manifest = read_manifest(evaluated.photos)
    name = manifest.table.loc[manifest.table["kind"] == "ai_region", "file_name"].iat[0]
    verdict = Detector.load(evaluated.model, prior=0.03, allow_demo=True).predict(
        manifest.path(name)
    )
    assert (
        f"pooled here: {verdict.score:+.4f}; by the detector: {verdict.score:+.4f}" in found.printed
    )
    assert f"{verdict.outcome}; probability {verdict.probability:.1%} if 3.0% of" in found.printed
    assert "Chat app, forwarded through another" in found.tables


def test_the_claim_notebook_takes_a_photo_of_one_s_own(
    execute: Execute, evaluated: Evaluated
) -> None:
    photo = next((evaluated.photos / "photos").glob("*_damaged.jpg"))
    found = execute(
        "04_claim", model=evaluated.model, photos=evaluated.photos, photo=photo, ways=()
    )
    assert found.errors == []
    assert f"{photo.name}: {photo.stat().st_size:,} bytes" in found.printed


def test_a_missing_file_is_told_in_one_sentence(kernels: None) -> None:
    code = (
        "from realdamage.rendering.notebook import existing\nexisting('out/nowhere', 'evaluation')"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3", resources=PLACE, allow_errors=True).execute()
    assert shown(notebook).errors == [
        "evaluation = 'out/nowhere': nothing is there. Run `make quickstart` in the repository's folder, or name your "
        "own in the cell of parameters, then run all cells again."
    ]


def test_paths_are_relative_to_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert repository(ROOT / "notebooks") == ROOT
    assert repository(tmp_path) == tmp_path
    monkeypatch.chdir(ROOT / "notebooks")
    assert existing("data/sample", "photos") == ROOT / "data" / "sample"
    with pytest.raises(NotThereError, match=r"photo = 'x.jpg': nothing is there\. Name another"):
        existing("x.jpg", "photo", made_by="")


def test_the_four_notebooks_are_there() -> None:
    assert tuple(path.stem for path in NOTEBOOKS) == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_lies_in_git_without_traces_of_a_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == {"language_info": {"name": "python"}}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert not re.search(r"[\"'`](/|~|[A-Z]:\\)\w", text), "a path of somebody's own machine"
    assert str(ROOT) not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_purpose_and_its_parameters(path: Path) -> None:
    first, second, *_ = nbformat.read(path, as_version=4).cells
    heading, purpose = first.source.split("\n\n")
    assert heading.startswith("# ")
    assert purpose.endswith(".")
    assert purpose.count(". ") == 0, "one sentence"
    assert second.metadata.tags == ["parameters"]
    assert all("  # " in line for line in second.source.splitlines()), (
        "every parameter says what it is"
    )
