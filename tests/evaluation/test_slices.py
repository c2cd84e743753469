"""A slice is compared with the right photos, says what it was compared with, and prints nothing it cannot know."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.metrics import photo_metrics, tpr_at_fpr
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS
from realdamage.evaluation.slices import SLICE_KEYS, json_records, slice_table, standard_slices
from realdamage.rendering.tables import slice_lines

COLUMNS = (
    *("n", "n_real", "n_synthetic", "n_groups", "auroc", "auroc_low", "auroc_high"),
    *("tpr_at_fpr_1", "tpr_at_fpr_1_low", "tpr_at_fpr_1_high"),
    *(
        "called_synthetic",
        "called_synthetic_low",
        "called_synthetic_high",
        "called_real",
        "called_of",
        "note",
    ),
)


def photos(n: int, label: str, mean: float = 0.0, **columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(n + len(label))
    empty = dict.fromkeys((*PREDICTION_COLUMNS, *FURTHER_COLUMNS), "")
    kind = "damaged" if label == "real" else "ai_region"
    area = 0.0 if label == "real" else math.nan
    table = pd.DataFrame({**empty, "score": rng.normal(mean, 1, n)}).assign(
        **{"label": label, "kind": kind, "mask_area": area, **columns}
    )
    return table.assign(
        outcome=np.where(
            table["score"] >= 2, "synthetic", np.where(table["score"] < 0, "real", "review")
        )
    )


def together(*parts: pd.DataFrame) -> pd.DataFrame:
    table = pd.concat(parts, ignore_index=True)
    return table.assign(file_name=[f"{index}.jpg" for index in range(len(table))])


def row_of(table: pd.DataFrame, **values: str) -> dict[str, object]:
    chosen = np.logical_and.reduce([table[key] == value for key, value in values.items()])
    [row] = table[chosen].to_dict(orient="records")
    return row


def auroc_of(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    return float(
        roc_auc_score([0] * len(real) + [1] * len(synthetic), [*real["score"], *synthetic["score"]])
    )


def test_a_generator_is_compared_with_all_real_photos() -> None:
    table = together(
        photos(150, "real", source="shop"),
        photos(60, "real", kind="original", source="other"),
        photos(40, "synthetic", 2, generator="flux"),
        photos(30, "synthetic", 1, generator="sd3"),
        photos(3, "synthetic", 1, generator="rare"),
        photos(6, "synthetic", 1),
    )
    found = slice_table(table, ["generator"])
    assert found.columns.tolist() == ["generator", *COLUMNS]
    assert found["generator"].tolist() == ["flux", "rare", "sd3", "(not named)"]
    real, flux = table[table["label"] == "real"], table[table["generator"] == "flux"]
    row = row_of(found, generator="flux")
    assert (row["n"], row["n_real"], row["n_synthetic"], row["n_groups"]) == (40, 210, 40, 40)
    assert row["auroc"] == pytest.approx(auroc_of(real, flux))
    assert row["tpr_at_fpr_1"] == tpr_at_fpr(
        real["score"].to_numpy(), flux["score"].to_numpy(), 0.01
    )
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    assert row["tpr_at_fpr_1_low"] <= row["tpr_at_fpr_1"] <= row["tpr_at_fpr_1_high"]
    assert (row["called_of"], row["note"]) == ("synthetic", "")
    assert row["called_synthetic"] == (flux["outcome"] == "synthetic").mean()
    assert row["called_real"] == (flux["outcome"] == "real").mean()
    rare = row_of(found, generator="rare")
    assert math.isnan(rare["auroc"])
    assert math.isnan(rare["tpr_at_fpr_1"])
    assert (
        rare["note"] == "3 synthetic and 210 real photos, too few for a figure (at least 5 of each)"
    )


def test_a_source_is_compared_with_its_own_real_photos_and_counts_false_alarms() -> None:
    own = photos(120, "real", 1, source="shop")
    table = together(
        own,
        photos(50, "real", 0, source="other"),
        photos(3, "real", 0, source="few"),
        photos(40, "synthetic", 2, source="shop"),
        photos(20, "synthetic", 2, source="few"),
        photos(20, "synthetic", 2, source="web"),
    )
    found = slice_table(table, ["source"])
    row = row_of(found, source="shop")
    assert (row["n"], row["n_real"], row["n_synthetic"], row["called_of"]) == (160, 120, 40, "real")
    assert row["auroc"] == pytest.approx(
        auroc_of(own, table[table["source"].eq("shop") & table["label"].eq("synthetic")])
    )
    accused = int((own["outcome"] == "synthetic").sum())
    exact = binomtest(accused, 120).proportion_ci(method="exact")
    assert row["called_synthetic"] == accused / 120 > 0
    assert (row["called_synthetic_low"], row["called_synthetic_high"]) == pytest.approx(
        (exact.low, exact.high)
    )
    web, few = row_of(found, source="web"), row_of(found, source="few")
    assert (web["n_real"], web["note"]) == (173, "no real photo of this source: compared with all")
    assert (few["n_real"], few["note"]) == (173, "3 real photos of this source: compared with all")
    other = row_of(found, source="other")
    assert (other["n_real"], other["n_synthetic"], other["called_of"]) == (50, 80, "real")
    assert "no synthetic photo of this source: compared with all" in other["note"]
    assert "50 real photos, too few for a rate of 1% (at least 100)" in other["note"]
    assert math.isnan(other["tpr_at_fpr_1"])
    assert not math.isnan(other["auroc"])


def test_a_damage_is_compared_with_real_damage_of_its_sort_when_there_is_enough() -> None:
    table = together(
        photos(100, "real", 0, damage="torn"),
        photos(30, "real", 1, damage="cracked"),
        photos(40, "real", 2, kind="annotated", damage="cracked"),
        photos(50, "real", 0, kind="original"),
        photos(20, "synthetic", 2, damage="torn"),
        photos(20, "synthetic", 2, damage="cracked"),
        photos(20, "synthetic", 2),
    )
    found = slice_table(table, ["damage"])
    assert found["damage"].tolist() == ["cracked", "torn", "(none)"]
    damaged = table["kind"] == "damaged"
    for damage, real, note in (
        (
            "torn",
            damaged & (table["damage"] == "torn"),
            "compared with the 100 really damaged photos of this damage",
        ),
        ("cracked", damaged, "compared with all 130 really damaged photos (30 of this damage)"),
        ("(none)", table["label"] == "real", ""),
    ):
        row = row_of(found, damage=damage)
        own = (table["label"] == "synthetic") & (table["damage"] == damage.replace("(none)", ""))
        assert row["auroc"] == pytest.approx(auroc_of(table[real], table[own]))
        assert row["note"] == note
    few = slice_table(table[~damaged | (table.index < 4)], ["damage"])
    assert (
        "4 really damaged photos: compared with all real ones"
        in row_of(few, damage="cracked")["note"]
    )


def test_seam_and_generator_stand_beside_each_other() -> None:
    table = together(
        photos(120, "real", 0),
        photos(20, "real", 0, kind="annotated"),
        photos(20, "real", 0, kind="original"),
        photos(20, "synthetic", 2, kind="ai_whole"),
        photos(20, "synthetic", 2, kind="pasted"),
        photos(20, "synthetic", 2, kind="ai_region"),
    )
    found = slice_table(table, ["kind"])
    assert found["kind"].tolist() == [
        "original",
        "damaged",
        "annotated",
        "ai_region",
        "pasted",
        "ai_whole",
    ]
    annotated = row_of(found, kind="annotated")
    own = table[table["kind"] == "annotated"]
    assert annotated["auroc"] == pytest.approx(auroc_of(own, table[table["label"] == "synthetic"]))
    assert (annotated["n_real"], annotated["n_synthetic"], annotated["called_of"]) == (
        20,
        60,
        "real",
    )


def test_mask_areas_fall_into_bins_and_whole_photos_apart() -> None:
    areas = [0.0, 0.01, 0.011, 0.05, 0.2, 0.5, 0.51, 1.0]
    table = together(
        photos(10, "real"),
        *(photos(1, "synthetic", 2, mask_area=area) for area in areas),
        photos(2, "synthetic", 2),
    )
    found = slice_table(table, ["mask_area"])
    assert dict(zip(found["mask_area"], found["n"], strict=True)) == {
        "up to 1%": 2,
        "1–5%": 2,
        "5–20%": 1,
        "20–50%": 1,
        "over 50%": 2,
        "(no mask)": 2,
    }


def suite() -> pd.DataFrame:
    clean = together(
        photos(120, "real", 0, damage="torn"),
        photos(60, "synthetic", 3, damage="torn", generator="flux", mask_area=0.1),
    )
    blurred = clean.assign(perturbation="blur", score=-clean["score"])
    again = clean.assign(perturbation="a chat", score=0.0)
    return pd.concat([clean, blurred, again], ignore_index=True)


def test_every_perturbation_is_compared_within_itself_in_the_order_of_the_file() -> None:
    found = slice_table(suite(), ["perturbation"])
    assert found["perturbation"].tolist() == ["clean", "blur", "a chat"]
    clean, blur, chat = found["auroc"]
    assert (clean + blur, chat) == (pytest.approx(1.0), 0.5)
    crossed = slice_table(suite(), ["generator", "perturbation"])
    assert crossed[["generator", "perturbation", "n_real"]].to_numpy().tolist() == [
        ["flux", "clean", 120],
        ["flux", "blur", 120],
        ["flux", "a chat", 120],
    ]
    assert crossed["auroc"].tolist() == found["auroc"].tolist()


def test_without_perturbation_among_the_keys_only_photos_as_they_are_count() -> None:
    table = suite()
    assert slice_table(table, ["generator"]).equals(
        slice_table(table[table["perturbation"] == ""], ["generator"])
    )
    blurred = slice_table(table[table["perturbation"] == "blur"], ["generator"])
    assert blurred["auroc"][0] == slice_table(table, ["generator", "perturbation"])["auroc"][1]
    with pytest.raises(UsageError, match="under several perturbations and never as they are"):
        slice_table(table[table["perturbation"] != ""], ["generator"])


def test_the_intervals_are_those_of_the_headline() -> None:
    table = suite()
    table = table[table["perturbation"] == ""].assign(
        group=lambda rows: [f"g{i // 2}" for i in range(len(rows))]
    )
    headline = photo_metrics(table, n_boot=100, seed=3)
    [row] = slice_table(table, ["generator"], n_boot=100, seed=3).to_dict(orient="records")
    for key in ("auroc", "tpr_at_fpr_1"):
        assert [row[f"{key}_low"], row[f"{key}_high"]] == pytest.approx(headline["intervals"][key])
    assert row["n_groups"] == 30


def test_a_rate_of_nought_is_no_certainty_and_one_group_has_no_interval() -> None:
    table = together(photos(120, "real", 0), photos(8, "synthetic", -9, generator="quiet"))
    [row] = slice_table(table, ["generator"]).to_dict(orient="records")
    assert (row["tpr_at_fpr_1"], row["tpr_at_fpr_1_low"]) == (0.0, 0.0)
    assert row["tpr_at_fpr_1_high"] == pytest.approx(
        binomtest(0, 8).proportion_ci(method="exact").high
    )
    table["group"] = np.where(table["label"] == "synthetic", "one", "")
    [row] = slice_table(table, ["generator"]).to_dict(orient="records")
    assert (row["n_groups"], row["auroc"]) == (1, 0.0)
    assert math.isnan(row["auroc_low"])
    assert math.isnan(row["tpr_at_fpr_1_high"])
    assert row["note"] == "one class comes from a single group, so there is no interval"


def test_a_model_without_thresholds_has_spared_nobody() -> None:
    table = together(photos(20, "real"), photos(20, "synthetic", 2)).assign(
        outcome="review", reasons="not_calibrated"
    )
    for row in slice_table(table, ["kind"]).to_dict(orient="records"):
        assert math.isnan(row["called_synthetic"])
        assert math.isnan(row["called_real"])
        assert "the model has no thresholds" in row["note"]


@pytest.mark.parametrize("label", ["real", "synthetic"])
def test_a_single_photo_never_crashes(label: str) -> None:
    table = together(
        photos(
            1, label, source="shop", damage="torn", generator="x" if label == "synthetic" else ""
        )
    )
    for key in SLICE_KEYS:
        for row in slice_table(table, [key]).to_dict(orient="records"):
            assert math.isnan(row["auroc"])
            assert "too few for a figure" in row["note"]
    for found in standard_slices(table).values():
        assert found["auroc"].isna().all()
    nothing = slice_table(table.assign(score=np.nan), ["kind"])
    assert (len(nothing), nothing.columns.tolist()) == (0, ["kind", *COLUMNS])
    assert standard_slices(table.assign(score=np.nan)) == {}


def test_the_standard_slices_are_those_that_the_photos_tell_about() -> None:
    table = together(
        photos(10, "real", source="shop"), photos(10, "synthetic", 2, generator="flux")
    )
    assert list(standard_slices(table)) == ["kind", "generator", "source"]
    full = suite().assign(family="f", condition="damaged")
    assert list(standard_slices(full)) == [
        *("kind", "generator", "family", "damage", "mask_area", "condition", "perturbation"),
        *("kind × damage", "generator × perturbation", "damage × perturbation"),
        *("damage × mask_area", "damage × mask_area × perturbation"),
    ]
    crossed = standard_slices(full)["damage × mask_area × perturbation"]
    assert crossed.iloc[:, :4].to_numpy().tolist()[0] == ["torn", "5–20%", "clean", 60]


def test_older_tables_without_the_further_columns_can_be_sliced() -> None:
    table = together(photos(10, "real"), photos(10, "synthetic", 2)).drop(
        columns=list(FURTHER_COLUMNS)
    )
    assert list(standard_slices(table)) == ["kind"]
    assert slice_table(table, ["family"])["family"].tolist() == ["(not named)"]


@pytest.mark.parametrize("by", [["colour"], [], ["kind", "kind"], ["score"]])
def test_an_unknown_key_is_refused(by: list[str]) -> None:
    with pytest.raises(
        UsageError, match=r"name one or more of generator, family, kind, .* each once"
    ):
        slice_table(suite(), by)


def test_photos_without_label_are_refused() -> None:
    with pytest.raises(RealDamageError, match=r"0\.jpg: no label"):
        slice_table(suite().assign(label=""), ["kind"])


def test_records_are_plain_json() -> None:
    tables = {name: json_records(table) for name, table in standard_slices(suite()).items()}
    assert json.loads(json.dumps(tables, allow_nan=False)) == tables
    assert tables["kind"][0]["n"] == 120
    assert json_records(slice_table(together(photos(1, "real")), ["kind"]))[0]["auroc"] is None


def test_lines_for_a_terminal_show_figures_intervals_and_each_note_once() -> None:
    table = together(
        photos(120, "real", 0),
        photos(40, "synthetic", 2, generator="flux"),
        photos(2, "synthetic", 2, generator="rare"),
        photos(
            2,
            "synthetic",
            2,
            generator="a generator with a name that goes on and on, longer than any",
        ),
    )
    found = slice_table(table, ["generator"])
    row = row_of(found, generator="flux")
    lines = slice_lines(found, "by generator")
    assert lines[0] == "by generator"
    [flux] = [line for line in lines if line.startswith("flux ")]
    assert f"{row['auroc']:.3f} ({row['auroc_low']:.3f}–{row['auroc_high']:.3f})" in flux
    assert flux.split()[1] == "40"
    [rare] = [line for line in lines if line.startswith("rare ")]
    assert rare.split()[:4] == ["rare", "2", "–", "–"]
    short = "a generator with a name that goes on an…"
    assert any(line.startswith(short) for line in lines)
    assert (
        lines[-1]
        == f"  – {short}, rare: 2 synthetic and 120 real photos, too few for a figure (at least 5 of each)"
    )
