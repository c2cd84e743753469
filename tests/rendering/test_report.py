"""The report of an evaluation: its numbers, what it says in words, and a page that shows what is there and names what
is not."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from realdamage.commands.cli import main
from realdamage.core.detector import Detector
from realdamage.core.metadata import read_model_file, write_model_file
from realdamage.core.policy import Bound, Calibration, Guarantee, Policy
from realdamage.data.manifest import Manifest
from realdamage.data.vocabulary import CODECS
from realdamage.evaluation.metrics import photo_metrics, tpr_at_fpr
from realdamage.evaluation.predictions import (
    FURTHER_COLUMNS,
    PREDICTION_COLUMNS,
    score_manifest,
    write_predictions,
)
from realdamage.evaluation.slices import json_records, slice_table
from realdamage.rendering import report_figures, report_plots, report_words
from realdamage.rendering.report import Report, build_report, write_report
from realdamage.rendering.report_examples import PHOTOS, worst_false_alarms, worst_misses
from realdamage.rendering.report_page import report_page
from realdamage.rendering.report_words import first_line, generator_counts

REPOSITORY = Path(__file__).resolve().parents[2]
POLICY = Policy(
    t_synthetic=2.0,
    t_real=-2.0,
    fpr=0.01,
    miss=0.05,
    negatives="damaged",
    photos={"real": 300, "damaged": 110, "synthetic": 200},
)
WritePhotos = Callable[..., Manifest]


def predictions(**columns: Any) -> pd.DataFrame:
    n = len(columns["label"])
    table = pd.DataFrame({column: [""] * n for column in (*PREDICTION_COLUMNS, *FURTHER_COLUMNS)})
    return table.assign(
        file_name=[f"photo{i}.jpg" for i in range(n)], probability=np.nan, **columns
    )


def test_set() -> pd.DataFrame:
    """100 really damaged photos, three of them accused, and 100 edits: 60 found, 30 for review, 10 missed."""
    score = np.concatenate(
        [np.full(3, 3.0), np.full(97, 0.0), np.full(60, 4.0), np.full(30, 1.0), np.full(10, -3.0)]
    )
    table = predictions(
        label=["real"] * 100 + ["synthetic"] * 100,
        kind=["damaged"] * 100 + ["ai_region"] * 100,
        generator=[""] * 100 + ["taesd"] * 50 + ["Nano Banana"] * 50,
        family=[""] * 100 + ["taesd"] * 50 + ["gemini-imagen"] * 50,
        damage="cracked",
        source="shop",
        score=score,
    )
    outcome = np.select([score >= 2, score <= -2], ["synthetic", "real"], "review")
    return table.assign(
        outcome=outcome,
        reasons=np.where(outcome == "review", "between_thresholds", ""),
        probability=1 / (1 + np.exp(-table["score"])),
    )


test_set.__test__ = False  # type: ignore[attr-defined]


def report_of(table: pd.DataFrame, **options: Any) -> Report:
    metrics = photo_metrics(table, threshold=0.5, n_boot=50)
    metrics["slices"] = {"kind": json_records(slice_table(table, ["kind"], n_boot=50))}
    return build_report((table, metrics), **options)


def text_of(page: str) -> str:
    """What a reader sees."""
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def tile(page: str, key: str) -> str:
    found = re.search(
        rf'<div class="tile[^"]*" data-key="{re.escape(key)}">(.*?)\n\n', page, flags=re.DOTALL
    )
    assert found, key
    return text_of(found[1])


def test_numbers_by_hand_stand_in_the_json_and_on_the_page(tmp_path: Path) -> None:
    table = test_set()
    page_path = write_report(tmp_path, report_of(table))
    values = json.loads((tmp_path / "report.json").read_text())
    page = page_path.read_text()
    headlines = {row["key"]: row for row in values["headlines"]}
    # 60 edits lie above all real photos, 30 above 97 of 100, 10 below all.
    auroc = (60 * 100 + 30 * 97) / 10_000
    assert headlines["auroc"]["value"] == pytest.approx(auroc)
    assert "0.891" in tile(page, "auroc")
    assert headlines["tpr_at_fpr_1"]["value"] == pytest.approx(0.6)
    assert "60.0%" in tile(page, "tpr_at_fpr_1")
    accused = headlines["false_alarms"]
    assert accused["value"] == pytest.approx(0.03)
    assert (accused["low"], accused["high"]) == (
        pytest.approx(beta.ppf(0.025, 3, 98)),
        pytest.approx(beta.ppf(0.975, 4, 97)),
    )
    assert "3.0% 95%: 0.6% to 8.5% 3 of 100" in tile(page, "false_alarms")
    assert "10.0% 95%: 4.9% to 17.6% 10 of 100" in tile(page, "missed")
    assert "63.5%" in tile(page, "review")  # (97 + 30) of 200
    assert headlines["tpr_at_fpr_0.5"]["value"] is None
    assert "100 really damaged photos; a rate of 0.5% takes at least 200" in tile(
        page, "tpr_at_fpr_0.5"
    )
    brier = ((table["probability"] - (table["label"] == "synthetic")) ** 2).mean()
    assert headlines["brier"]["value"] == pytest.approx(brier)
    assert f"{brier:.3f}" in tile(page, "brier")
    assert values["counts"]["n_damaged"] == 100
    kind = {row["kind"]: row for row in values["slices"]["kind"]}
    assert kind["damaged"]["called_synthetic"] == pytest.approx(0.03)
    assert "ai_region 100 0.891" in text_of(page)


def test_every_figure_of_the_json_is_a_number_or_null_and_the_page_loads_nothing() -> None:
    report = report_of(test_set())
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert "data:image" not in text
    page = report_page(report)
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "@import" not in page
    assert "NaN" not in text_of(page)
    assert "None" not in text_of(page).replace("None. The thresholds", "").replace(
        "None found", ""
    ).replace("None of the", "")


def test_the_first_line_says_which_deployed_generators_are_in_the_test() -> None:
    table = test_set()
    report = report_of(table)
    assert report.first_lines[0] == "50 photos of this test are by 1 deployed generator."
    assert "Which of them the model was trained on is not known" in report.first_lines[1]
    assert "50 photos through 1 codec of this project's recipes" in report.first_lines[2]
    assert text_of(report_page(report)).index(report.first_lines[0]) < 200
    codecs = table.assign(
        generator=table["generator"].replace("Nano Banana", "house"),
        family=table["family"].replace("gemini-imagen", "house"),
    )
    only = report_of(codecs)
    assert only.first_lines[0].startswith(
        "No deployed generator is in this test: its figures say nothing"
    )
    assert "100 photos through 2 codecs" in only.first_lines[1]
    assert 'class="card lead warn"' in report_page(only)
    assert [row["synthetic photos by"] for row in only.parts] == ["codecs"]


def test_a_part_of_the_generators_has_figures_of_its_own() -> None:
    table = test_set()
    part = {row["synthetic photos by"]: row for row in report_of(table).parts}[
        "deployed generators"
    ]
    own = table[(table["label"] == "real") | (table["generator"] == "Nano Banana")]
    synthetic = own["label"] == "synthetic"
    assert part["n"] == 50
    assert part["auroc"] == pytest.approx(roc_auc_score(synthetic, own["score"]))
    assert part["tpr_at_fpr_1"] == pytest.approx(
        tpr_at_fpr(own["score"][~synthetic].to_numpy(), own["score"][synthetic].to_numpy(), 0.01)
    )
    assert part["auroc_low"] <= part["auroc"] <= part["auroc_high"]


def test_a_figure_that_is_missing_is_named_with_its_reason() -> None:
    table = test_set().drop(index=range(82))  # 18 really damaged photos
    part = {row["synthetic photos by"]: row for row in report_of(table).parts}[
        "deployed generators"
    ]
    assert part["auroc"] > 0.5
    assert (
        part["note"]
        == "no TPR at 1% FPR: 50 such photos and 18 really damaged ones; it takes at least 5 and 100"
    )


def test_the_page_says_how_many_of_the_worst_photos_are_really_wrong() -> None:
    table = test_set()
    page = text_of(report_page(report_of(table)))
    assert "accused wrongly. 3 of the 9 shown are called synthetic." in page
    assert "9 of the 9 shown are called real. The regenerated area" in page
    page = text_of(report_page(report_of(table.assign(outcome="review"))))
    assert "None of the 9 shown is called synthetic." in page
    assert "None of the 9 shown is called real." in page


def test_generators_are_sorted_by_a_rule_and_told_apart_by_what_the_model_was_trained_on() -> None:
    table = predictions(
        label=["synthetic"] * 6,
        kind=["ai_whole", "ai_whole", "ai_region", "ai_region", "pasted", "ai_whole"],
        generator=["A", "B", "C", "house_nearest", "paint", ""],
        family=["f", "f", "g", "", "", ""],
    )
    families = {"A": "f", "B": "f", "C": "g", "D": "h", "": ""}
    counts = {
        row.name: row for row in generator_counts(table, {"generators": ["A", "D"]}, families)
    }
    assert {name: row.sort for name, row in counts.items()} == {
        **dict.fromkeys("ABC", "deployed"),
        "house_nearest": "codec",
        "paint": "control",
        "(not named)": "not named",
    }
    told = {
        name: (row.trained_on, row.family_trained_on)
        for name, row in counts.items()
        if name in "ABC"
    }
    assert told == {"A": (True, True), "B": (False, True), "C": (False, False)}
    assert first_line(list(counts.values()))[1] == (
        "2 of them are by 2 generators that the model was never trained on; 1 of these by families that it never saw."
    )
    assert first_line([row for row in counts.values() if row.trained_on]) == [
        "1 photo of this test is by 1 deployed generator.",
        "The model was trained on each of them: what it does on generators new to it, this test does not tell.",
    ]
    # The family of D, which it was trained on, is not known: C may be of the same.
    unknown = {
        row.name: row for row in generator_counts(table, {"generators": ["A", "D"]}, {"A": "f"})
    }
    assert unknown["C"].family_trained_on is None
    left_out = {"generators": ["A", "D"], "excluded": {"family": ["g"]}}
    assert {row.name: row for row in generator_counts(table, left_out, {"A": "f"})}[
        "C"
    ].family_trained_on is False
    assert generator_counts(table, {}, {})[0].trained_on is None


def test_the_codecs_of_the_rule_are_those_of_the_recipes() -> None:
    pytest.importorskip("torch")
    from realdamage.synthesis.autoencoders import HOUSE_CODECS

    recipe = yaml.safe_load((REPOSITORY / "configs" / "recipe" / "codecs.yaml").read_text())[
        "recipe"
    ]["generators"]
    made = {
        name: values["family"] for name, values in recipe.items() if values["engine"] == "codec"
    }
    assert made == {name: family for family, names in CODECS.items() for name in names}
    assert set(HOUSE_CODECS) <= set(made)


def test_names_of_a_user_are_never_markup() -> None:
    hostile = "<script>alert(1)</script>"
    table = test_set()
    table = table.assign(
        file_name=hostile + table["file_name"],
        generator=table["generator"].replace("Nano Banana", hostile),
        family="",
        source='"><b>',
        kind=table["kind"].replace("ai_region", "ai_whole"),
        perturbation="",
    )
    metrics = photo_metrics(table, n_boot=20)
    row = {
        "perturbation": hostile,
        "n": 200,
        "auroc": 0.5,
        "auroc_low": 0.4,
        "auroc_high": 0.6,
        "note": hostile,
    }
    metrics |= {"robustness": [row], "run": {"model_version": hostile, "command": hostile}}
    page = report_page(build_report((table, metrics), notes=[hostile]))
    assert hostile not in page
    assert "&lt;script&gt;alert" in page
    assert "<b>" not in page.replace('<b class="', "")
    assert page.count("<script>") == 1


def test_the_curve_goes_through_the_rates_that_the_metrics_tell() -> None:
    rng = np.random.default_rng(0)
    table = predictions(
        label=["real"] * 400 + ["synthetic"] * 200,
        kind=["damaged"] * 250 + ["original"] * 150 + ["ai_region"] * 200,
        score=np.concatenate([rng.normal(0, 1, 400), rng.normal(1.5, 1, 200)]),
        group=[f"g{i // 3}" for i in range(600)],
    )
    curves = {curve.negatives: curve for curve in report_figures.roc_curves(table)}
    score = table["score"].to_numpy()
    for name, own in (("really damaged", slice(0, 250)), ("all real", slice(0, 400))):
        curve = curves[name]
        for fpr, found in zip(curve.fpr, curve.tpr, strict=True):
            assert found == pytest.approx(tpr_at_fpr(score[own], score[400:], fpr)), fpr
        assert all(low <= high for low, high in zip(curve.low, curve.high, strict=True))
        assert (
            np.mean(
                [
                    low <= found <= high
                    for low, found, high in zip(curve.low, curve.tpr, curve.high, strict=True)
                ]
            )
            > 0.9
        )
    assert curves["really damaged"].n == 250


def test_histograms_and_bins_count_every_photo() -> None:
    table = test_set()
    edges, rows = report_figures.histograms(table)
    assert {row.kind: sum(row.counts) for row in rows} == {"damaged": 100, "ai_region": 100}
    assert len(edges) == len(rows[0].counts) + 1
    bins = report_figures.reliability(table)
    assert sum(each.n for each in bins) == 200
    assert sum(each.n * each.observed for each in bins) == pytest.approx(100)
    assert report_figures.reliability(table.assign(probability=np.nan)) == ()


def test_too_few_photos_make_no_curve() -> None:
    few = test_set().iloc[[*range(15), *range(180, 200)]].reset_index(drop=True)
    assert report_figures.roc_curves(few) == ()
    assert report_figures.reliability(few) == ()
    page = text_of(report_page(report_of(few)))
    assert "Found, at which price" not in page
    assert "Where the scores lie" in page


def test_drawings_take_the_pages_colours_and_keep_letters_as_letters() -> None:
    svg = report_plots.roc_plot(report_figures.roc_curves(test_set()))
    assert "var(--fake)" in svg
    assert not re.search(r"#0102\d", svg)
    assert ">really damaged (100 photos)</text>" in svg
    assert not re.search(r'<svg[^>]*(width|height)="', svg)
    assert (
        report_plots.roc_plot(report_figures.roc_curves(test_set())) == svg
    )  # the same in every run
    assert [
        report_plots.family_of(name) for name in ("jpeg_95", "chat_50_60", "recapture", "blur2")
    ] == [*("jpeg", "chat", "recapture", "blur")]


def test_the_worst_photos_are_one_of_a_group_really_damaged_ones_first() -> None:
    table = predictions(
        label=["real"] * 40 + ["synthetic"] * 30,
        kind=["damaged"] * 20 + ["annotated"] * 20 + ["ai_region"] * 20 + ["pasted"] * 10,
        group=[f"g{i // 2}" for i in range(70)],
        score=[*np.arange(20) / 10, *np.arange(10, 30), *-np.arange(20.0), *np.full(10, -99.0)],
    )
    alarms = worst_false_alarms(table)
    assert len(alarms) == PHOTOS
    assert alarms["group"].is_unique
    assert alarms["kind"].tolist() == ["damaged"] * 6 + ["annotated"] * 3
    assert alarms["score"].iloc[[0, 6]].tolist() == [1.9, 29.0]
    misses = worst_misses(table)
    assert misses["score"].tolist() == [
        -float(i) for i in range(19, 1, -2)
    ]  # the pasted ones would come last


def test_the_policy_is_told_in_words_with_its_promise_or_without() -> None:
    scaling = Calibration(slope=1.0, intercept=0.0, prior=0.4)
    told = dict(report_words.policy_words(POLICY, scaling))
    assert told["synthetic"] == "score at or above +2.000"
    assert told["promise"].startswith(
        "None. The thresholds were chosen so that of the calibration photos"
    )
    assert "at most 1% of the really damaged photos" in told["promise"]
    assert (
        told["probability"] == "Platt scaling of the score, where 40.0% of the photos are synthetic"
    )
    bound = Bound(share=0.05, photos=59, drawn_from=110, errors=0, allowed=0, upper=0.0495)
    promise = Guarantee(
        delta=0.05,
        accused=bound,
        passed=None,
        split="policy",
        seed=0,
        manifest_sha256="",
        statement="At most 5%.",
    )
    told = dict(report_words.policy_words(replace(POLICY, guarantee=promise), scaling))
    assert told["promise"] == "At most 5%."
    assert told["behind it: accused"].startswith("0 errors among 59 independent calibration photos")
    assert dict(report_words.policy_words(None, None))["no thresholds"].startswith(
        "The model is not calibrated"
    )


@pytest.fixture
def evaluated(model_file: Path, write_photos: WritePhotos, tmp_path: Path) -> Path:
    """Evaluation folder of the red network with thresholds: six real photos, one of them red; six edits, one pale."""
    rows = [
        {
            "file_name": f"real{i}.png",
            "label": "real",
            "kind": "damaged",
            "condition": "damaged",
            "red": 60 + 10 * i,
        }
        for i in range(5)
    ]
    rows.append(
        {
            "file_name": "accused.png",
            "label": "real",
            "kind": "damaged",
            "condition": "damaged",
            "red": 250,
        }
    )
    for i in range(6):
        name = "missed" if i == 5 else f"edit{i}"
        edit = {
            "file_name": f"{name}.png",
            "label": "synthetic",
            "kind": "ai_region",
            "generator": "Painter 2",
        }
        rows.append(
            {**edit, "mask_file_name": f"{name}_mask.png", "red": 20 if i == 5 else 200 + 10 * i}
        )
    manifest = write_photos(rows)
    onnx, metadata, _ = read_model_file(model_file)
    training = {
        "generators": ["Painter 1"],
        "audit": {"verdict": "failed, overridden", "tests": {"source": [0.9, 0.8, 1]}},
    }
    scaling = Calibration(slope=1.0, intercept=0.0, prior=0.5)
    write_model_file(
        model_file,
        onnx,
        replace(
            metadata, policy=POLICY, calibration=scaling, training=training, model_version="red-1"
        ),
    )
    detector = Detector.load(model_file)
    table, evidence = score_manifest(detector, manifest)
    metrics = photo_metrics(table, evidence, threshold=0.0, n_boot=20)
    metrics["run"] = {
        "checkpoint": str(model_file),
        "graph_sha256": detector.graph_sha256,
        "model_version": "red-1",
        "data_root": str(manifest.root),
    }
    folder = tmp_path / "evaluation"
    folder.mkdir()
    write_predictions(folder / "predictions.csv", table)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_the_command_shows_the_worst_photos_with_their_heat_maps(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(evaluated)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "6 photos of this test are by 1 deployed generator."
    assert str(evaluated / "report.html") in out
    page = (evaluated / "report.html").read_text()
    values = json.loads((evaluated / "report.json").read_text())
    assert values["notes"] == []
    assert values["false_alarms"][0]["file_name"] == "accused.png"
    assert values["misses"][0]["file_name"] == "missed.png"
    assert "picture" not in values["misses"][0]
    assert (
        page.count('alt="its heat map"')
        == len(values["false_alarms"]) + len(values["misses"])
        == 12
    )
    assert len(page) < 4_000_000
    text = text_of(page)
    assert "FAILED the audit" in text
    assert "source 0.900 0.800 to 1.000" in text
    assert "Painter 2: 6 deployed, never trained on" in text
    assert (
        "kind (2)" in text
    )  # without slices in metrics.json: the tables that every evaluation has


def test_photos_that_changed_or_are_gone_are_named_instead_of_shown(evaluated: Path) -> None:
    photos = evaluated.parent / "photos"
    (photos / "accused.png").write_bytes((photos / "real0.png").read_bytes())
    (photos / "missed.png").write_bytes(b"no photo")
    assert main(["report", str(evaluated)]) == 0
    values = json.loads((evaluated / "report.json").read_text())
    notes = {row["file_name"]: row["note"] for row in (*values["false_alarms"], *values["misses"])}
    assert notes["accused.png"] == "the file has changed since it was judged"
    assert notes["missed.png"] == "the photo cannot be read any more"
    assert notes["real0.png"] == ""


def test_without_photos_and_model_the_page_says_so(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (evaluated.parent / "photos").rename(evaluated.parent / "moved")
    (evaluated.parent / "red.onnx").rename(evaluated.parent / "other.onnx")
    assert main(["report", str(evaluated)]) == 0
    text = text_of((evaluated / "report.html").read_text())
    assert "No pictures: the photos are not at hand" in text
    assert "No heat maps and no model card: the model is not at hand" in text
    assert "data:image" not in (evaluated / "report.html").read_text()
    assert "accused.png" in text
    assert "not at hand" in capsys.readouterr().out
    moved = [
        "--manifest",
        str(evaluated.parent / "moved"),
        "--model",
        str(evaluated.parent / "other.onnx"),
    ]
    assert main(["report", str(evaluated), *moved]) == 0
    assert (evaluated / "report.html").read_text().count("data:image/jpeg") == 24


def test_a_photo_outside_the_manifest_is_never_opened(evaluated: Path) -> None:
    table = pd.read_csv(evaluated / "predictions.csv", dtype=str, keep_default_na=False)
    (evaluated.parent / "secret.png").write_bytes(
        (evaluated.parent / "photos" / "accused.png").read_bytes()
    )
    table["file_name"] = table["file_name"].replace("accused.png", "../secret.png")
    table.to_csv(evaluated / "predictions.csv", index=False)
    assert main(["report", str(evaluated)]) == 0
    first = json.loads((evaluated / "report.json").read_text())["false_alarms"][0]
    assert (first["file_name"], first["note"]) == ("../secret.png", "not in the manifest")


def test_thresholds_that_changed_since_are_pointed_out(evaluated: Path) -> None:
    path = evaluated.parent / "red.onnx"
    onnx, metadata, _ = read_model_file(path)
    write_model_file(path, onnx, replace(metadata, policy=replace(POLICY, t_synthetic=50.0)))
    assert main(["report", str(evaluated), "--manifest", str(evaluated.parent / "photos")]) == 0
    notes = json.loads((evaluated / "report.json").read_text())["notes"]
    assert re.match(
        r"\d of 12 photos were judged with other thresholds than the model's file now has", notes[0]
    )


def test_another_network_than_the_one_evaluated_is_refused(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    metrics["run"]["graph_sha256"] = "f" * 64
    (evaluated / "metrics.json").write_text(json.dumps(metrics))
    assert main(["report", str(evaluated), "--model", str(evaluated.parent / "red.onnx")]) == 3
    assert "is another network" in capsys.readouterr().err
    assert main(["report", str(evaluated)]) == 0
    assert "is another network" in json.loads((evaluated / "report.json").read_text())["notes"][0]


def test_the_command_says_what_is_wrong_with_a_folder(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(evaluated.parent / "nowhere")]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    assert main(["report", str(evaluated / "predictions.csv")]) == 2
    assert "name the folder that it lies in" in capsys.readouterr().err
    assert main(["report", str(evaluated), "--manifest", str(evaluated)]) == 3
    assert main(["report", str(evaluated), "--model", str(evaluated / "metrics.json")]) == 3
    assert "metrics.json: not an ONNX file" in capsys.readouterr().err
    (evaluated / "metrics.json").write_text("[]")
    assert main(["report", str(evaluated)]) == 3
    assert "no figures of realdamage-evaluate in it" in capsys.readouterr().err
    (evaluated / "metrics.json").unlink()
    assert main(["report", str(evaluated)]) == 3
    assert "metrics.json: cannot be read" in capsys.readouterr().err


def test_perturbations_are_drawn_and_listed_under_their_titles() -> None:
    table = test_set()
    metrics = photo_metrics(table, n_boot=20)
    metrics["robustness"] = [
        {
            "perturbation": name,
            "title": title,
            "n": 200,
            "auroc": auroc,
            "auroc_low": auroc - 0.02,
            "auroc_high": 0.95,
        }
        | {"tpr_at_fpr_1": None, "note": "", "localisation": {"pixel_ap": 0.25}}
        for name, title, auroc in (
            ("clean", "As it is", 0.9),
            ("jpeg_50", "JPEG at 50", 0.8),
            ("jpeg_30", "JPEG at 30", 0.7),
        )
    ]
    page = report_page(build_report((table, metrics)))
    assert "JPEG at 50 200 0.800 0.780 to 0.950 0.250" in text_of(page)
    assert ">jpeg 30</text>" in page
    assert page.count('aria-label="AUROC on all 100 real photos after each perturbation"') == 1
    assert "TPR at 1% FPR on" not in page
    assert "No perturbation was evaluated." in text_of(report_page(report_of(table)))


@pytest.mark.parametrize(
    ("n_damaged", "counted", "titles"),
    [
        (
            (100, 100),
            {},
            [
                "TPR at 1% FPR on 100 really damaged photos",
                "false alarms on 100 really damaged photos",
            ],
        ),
        (
            (18, 17),
            {},
            [
                "TPR at 1% FPR on all 228 real photos",
                "false alarms on 17 to 18 really damaged photos",
            ],
        ),
        (
            None,
            {"n_damaged": 18},
            ["TPR at 1% FPR on all 228 real photos", "false alarms on 18 really damaged photos"],
        ),
    ],
)
def test_plots_of_perturbations_say_which_photos_are_counted(
    n_damaged: tuple[int, int] | None, counted: dict[str, int], titles: list[str]
) -> None:
    table = test_set()
    rows: list[dict[str, Any]] = [
        {
            "perturbation": name,
            "n": 428,
            "n_real": 228,
            "auroc": 0.8,
            "tpr_at_fpr_1": 0.4,
            "false_alarms": 0.1,
        }
        for name in ("clean", "jpeg_50")
    ]
    for row, n in zip(rows, n_damaged or (), strict=bool(n_damaged)):
        row["n_damaged"] = n
    metrics = {**photo_metrics(table, n_boot=2), "robustness": rows, **counted}
    page = text_of(report_page(build_report((table, metrics))))
    for title in ("AUROC on all 228 real photos", *titles):
        assert title in page


def test_an_audit_that_measured_nothing_neither_passed_nor_failed(model_file: Path) -> None:
    metadata = read_model_file(model_file)[1]
    told = {"verdict": "not measured", "tests": {"source": [None, None, None]}}
    words = report_words.audit_words(replace(metadata, training={"audit": told}))
    assert words.passed is None
    assert (
        words.sentence == "The training set had too few photos for the audit to measure anything."
    )
    assert words.tests == (("source", None, None, None),)
