"""The pages hold the right numbers, name what is missing, show the worst photos, and treat no name
as markup."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy.stats import beta

from realdamage.commands.cli import main
from realdamage.data.audit import audit
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.evaluation.compare import compare_models
from realdamage.evaluation.figures import photo_metrics
from realdamage.evaluation.predictions import score_manifest, write_predictions
from realdamage.evaluation.slices import json_records, slice_table
from realdamage.rendering.html import (
    MOVED,
    audit_page,
    comparison_page,
    most_moved,
    report_page,
    write_report,
)
from realdamage.rendering.report import (
    EXAMPLES,
    build_report,
    reliability,
    worst_false_alarms,
    worst_misses,
)

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def report_of(red):
    """`report_of(table, …)`: its report by an uncalibrated model, with more values of metrics."""

    def made(table, manifest=None, **metrics):
        found = photo_metrics(table, threshold=0.5, n_boot=20)
        found["slices"] = {"kind": json_records(slice_table(table, ["kind"], n_boot=20))}
        return build_report((table, found | metrics), red, manifest=manifest)

    return made


def text_of(page):
    """What a reader sees."""
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def images(page):
    return re.findall(r'<img src="([^"]*)"', page)


def statistic(page, key):
    found = re.search(rf'data-key="{re.escape(key)}">(.*?)\n\n', page, flags=re.DOTALL)
    assert found, key
    return text_of(found[1])


def test_numbers_worked_out_by_hand_are_in_the_json_and_on_the_page(judged, report_of, tmp_path):
    report = report_of(judged)
    page, values = write_report(tmp_path, report).read_text(), report.values
    headlines = {row["key"]: row for row in values["headlines"]}
    # 60 edits lie above all real photos, 30 above 97 of 100, 10 below all.
    assert headlines["auroc"]["value"] == pytest.approx((60 * 100 + 30 * 97) / 10_000)
    assert "0.891" in statistic(page, "auroc")
    assert headlines["tpr_at_fpr_1"]["value"] == pytest.approx(0.6)
    assert "60.0%" in statistic(page, "tpr_at_fpr_1")
    accused = headlines["false_alarms"]
    ends = beta.ppf(0.025, 3, 98), beta.ppf(0.975, 4, 97)
    assert (accused["value"], accused["low"], accused["high"]) == pytest.approx((0.03, *ends))
    assert "3.0% 0.6% to 8.5% 3 of 100" in statistic(page, "false_alarms")
    assert "63.5%" in statistic(page, "review")  # (97 + 30) of 200
    assert headlines["tpr_at_fpr_0.5"]["value"] is None
    assert "at least 200" in statistic(page, "tpr_at_fpr_0.5")
    kinds = {row["kind"]: row for row in values["slices"]["kind"]}
    assert kinds["damaged"]["called_synthetic"] == pytest.approx(0.03)
    # It is the same in every run, loads nothing, and prints no placeholder.
    assert report_page(report) == page
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "@import" not in page
    assert not re.search(r"\b(NaN|nan|Undefined)\b", text_of(page))


def test_names_of_a_user_are_never_markup(judged, report_of):
    table = judged.replace({"Nano Banana": HOSTILE, "ai_region": "ai_whole"})
    table = table.assign(file_name=HOSTILE + table["file_name"], family="", source='"><b>')
    row = {"perturbation": HOSTILE, "n": 200, "auroc": 0.5, "note": HOSTILE}
    row |= {"auroc_low": 0.4, "auroc_high": 0.6}
    run = {"data_root": HOSTILE, "command": HOSTILE}
    page = report_page(report_of(table, robustness=[row], run=run))
    assert HOSTILE not in page
    assert "&lt;script&gt;alert" in page
    assert "<b>" not in page.replace('<b class="', "")
    assert page.count("<script>") == 1
    better = table.assign(score=table["score"] + (table["label"] == "synthetic") * 5)
    comparison = compare_models(table, better, names=(HOSTILE, "B"), n_boot=50)
    page = comparison_page(comparison, (table, better))
    assert HOSTILE not in page
    assert "B is better in" in text_of(page)


def test_bins_count_every_photo_and_missing_curves_say_why(judged, report_of):
    bins = reliability(judged)
    assert bins["n"].sum() == 200
    assert (bins["n"] * bins["observed"]).sum() == pytest.approx(100)
    assert reliability(judged.assign(probability=np.nan)).empty
    few = judged.iloc[[*range(15), *range(180, 200)]].reset_index(drop=True)
    assert text_of(report_page(report_of(few))).count("Not drawn. Too few photos") == 2


def test_the_worst_photos_are_one_of_a_group_really_damaged_ones_first(predictions):
    table = predictions(
        label=["real"] * 40 + ["synthetic"] * 30,
        kind=["damaged"] * 20 + ["annotated"] * 20 + ["ai_region"] * 20 + ["pasted"] * 10,
        group=[f"g{i // 2}" for i in range(70)],
        score=[*np.arange(20) / 10, *np.arange(10, 30), *-np.arange(20.0), *np.full(10, -99.0)],
    )
    alarms = worst_false_alarms(table)
    assert len(alarms) == EXAMPLES
    assert alarms["group"].is_unique
    assert alarms["kind"].tolist() == ["damaged"] * 6 + ["annotated"] * 3
    assert alarms["score"].iloc[[0, 6]].tolist() == [1.9, 29.0]
    # The pasted ones would come last.
    assert worst_misses(table)["score"].tolist() == [-float(i) for i in range(19, 1, -2)]


@pytest.fixture
def evaluated(red, write_photos):
    """Six real photos, one of them red, six edits, one of them pale, and what the red network made
    of them."""
    rows = []
    for i, value in enumerate((60, 70, 80, 90, 100, 250)):
        name = "accused.png" if value == 250 else f"real{i}.png"
        rows.append({"file_name": name, "label": "real", "kind": "damaged", "red": value})
    for i, value in enumerate((200, 210, 220, 230, 240, 20)):
        name = "missed" if value == 20 else f"edit{i}"
        edit = {"file_name": f"{name}.png", "label": "synthetic", "kind": "ai_region", "red": value}
        rows.append(edit | {"generator": "Painter 2", "mask_file_name": f"{name}_mask.png"})
    manifest = write_photos(rows)
    return manifest, score_manifest(red, manifest)[0]


def test_photos_that_changed_or_cannot_be_read_are_not_shown(evaluated, report_of):
    manifest, predictions = evaluated
    photos = manifest.root
    Image.new("RGB", (64, 64)).save(photos / "accused.png")
    (photos / "missed.png").write_bytes(b"no photo")
    (photos.parent / "secret.png").write_bytes((photos / "real0.png").read_bytes())
    report = report_of(predictions.replace("real0.png", "../secret.png"), manifest)
    alarms, misses = report.values["false_alarms"], report.values["misses"]
    assert (alarms[0]["file_name"], misses[0]["file_name"]) == ("accused.png", "missed.png")
    named = {"accused.png", "missed.png", "../secret.png"}
    assert {row["file_name"] for row in alarms + misses if row["note"]} == named
    assert report_page(report).count('alt="the photo"') == 12 - 3


def test_photos_that_two_models_order_differently_are_found_on_any_scale(judged, judge):
    score = judged["score"] + np.linspace(0, 0.1, 200)
    a = judge(judged.assign(score=score))
    # On another scale B moves one fake from the bottom to the top, and one real photo from the
    # bottom to the middle.
    b = judge(a.assign(score=10 * score).replace({"score": {10 * score[190]: 90.0}}))
    moved = most_moved(a, b)
    assert len(moved) == MOVED
    first = moved.iloc[0]
    assert (first["file_name"], bool(first["nearer"])) == ("photo190.jpg", True)
    assert (first["rank"], first["rank_b"]) == pytest.approx((1 / 200, 1.0))


def test_a_comparison_shows_the_photos_where_they_are_found(evaluated, tmp_path):
    manifest, predictions = evaluated
    page, folder, photos = tmp_path / "compare.html", tmp_path / "a", manifest.root
    write_predictions(folder / "predictions.csv", predictions)
    metrics = {"auroc": 0.5, "run": {"data_root": str(photos)}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    command = ["compare", str(folder), str(folder), "--html", str(page)]
    assert main(command) == 0
    assert len(images(page.read_text())) == 12
    moved = photos.rename(tmp_path / "moved")
    assert main(command) == 0
    assert images(page.read_text()) == []
    assert "--manifest" in page.read_text()
    assert main([*command, "--manifest", str(moved)]) == 0
    assert len(images(page.read_text())) == 12


def test_an_audit_page_shows_problems_and_pictures_and_loads_nothing(write_set, tmp_path):
    """Of synthetic photos with a source of their own, one group in two splits, and a mask that
    marks nothing."""
    root = write_set(tmp_path / "set", 8)
    table = read_manifest(root).table
    table["source"] = table["source"].where(table["label"] == "real", "<b>generated</b>")
    table.loc[0, "split"] = "test"
    write_manifest(root, table)
    with Image.open(root / "masks/02_ai_region.png") as mask:
        Image.new("L", mask.size).save(root / "masks/02_ai_region.png")
    manifest = read_manifest(root)
    audited = audit(manifest, workers=1)
    page = audit_page(audited, manifest)
    assert not re.search(r"<script|<link|<iframe|https?://|url\(", page)
    assert audited.summary == "audit failed: source; 1 crossing; 1 mask empty"
    assert audited.summary in page
    assert "<b>" not in page
    assert "&lt;b&gt;generated&lt;/b&gt;" in page
    urls = images(page)
    # The failed test's surest, the photos of one group, the photo with its mask.
    assert len(urls) == 8 + 2 + 2
    with Image.open(io.BytesIO(base64.b64decode(urls[0].partition(",")[2]))) as image:
        assert max(image.size) <= 128
    (root / audited.failed_tests[0].examples[0]).unlink()
    assert 0 < len(images(audit_page(audited, manifest))) < len(urls)
