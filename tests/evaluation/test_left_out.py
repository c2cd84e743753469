"""Figures of folds: each part against the right real photos, mean and worst over the folds."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from realdamage.data.manifest import Manifest, with_known_columns
from realdamage.errors import RealDamageError
from realdamage.evaluation.guarantee import Targets
from realdamage.evaluation.left_out import (
    COLUMNS,
    Fold,
    left_out_table,
    localisation_rows,
    photos_of_fold,
)
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import predictions_table
from realdamage.evaluation.robustness import ModelFile, Suite


def photos():
    """120 really damaged photos and 30 intact ones; a synthetic twin of every third, of family b
    (6), c (3), d (2) or a (all others)."""
    rows = []
    families = ["b"] * 6 + ["c"] * 3 + ["d"] * 2 + ["a"] * 39
    for index in range(150):
        kind = "damaged" if index < 120 else "original"
        about = {"group": f"g{index}", "split": "test", "source": f"shop{index % 2}"}
        rows.append({"file_name": f"{index}.png", "label": "real", "kind": kind, **about})
        if index % 3 == 0:
            twin = {"label": "synthetic", "kind": "ai_region", "family": families.pop(0)}
            twin |= {"file_name": f"{index}_fake.png", "pair": f"{index}.png"}
            rows.append(about | twin)
    return with_known_columns(pd.DataFrame(rows).fillna(""))


def predicted(table, gain):
    """Predictions for a manifest's table, as they are and (noisier) "worse"."""
    rng = np.random.default_rng(1)
    clean = predictions_table(table)
    clean["score"] = rng.normal(gain * (table["label"] == "synthetic"), 1)
    worse = clean.assign(perturbation="worse", score=clean["score"] + rng.normal(0, 2, len(table)))
    return pd.concat([clean, worse], ignore_index=True)


def fold(name, predictions, **left_out):
    return Fold(name, left_out, predictions, [], "model-1", "abc")


def auroc_of(real, synthetic):
    photos = pd.concat([real, synthetic])
    return float(roc_auc_score(photos["label"] == "synthetic", photos["score"]))


@pytest.fixture
def manifest(tmp_path):
    return Manifest(tmp_path, photos())


def test_each_part_is_measured_against_all_real_photos_of_the_same_perturbation(manifest):
    predictions = predicted(manifest.table, gain=1.5)
    table = left_out_table([fold("f", predictions, family=("a", "b", "c", "d"))], manifest)
    assert tuple(table.columns) == COLUMNS
    own = table[table["fold"] == "f"]
    parts = {"all": "abcd", "a": "a", "b": "b", "c": "c", "d": "d"}
    assert list(zip(own["left_out"], own["perturbation"], strict=True)) == [
        (part, name) for part in parts for name in ("none", "worse")
    ]
    for row in own.to_dict(orient="records"):
        under = predictions[predictions["perturbation"] == row["perturbation"].replace("none", "")]
        real = under[under["label"] == "real"]
        found = under[under["family"].isin(list(parts[row["left_out"]]))]
        if row["left_out"] in "cd":
            assert np.isnan(row["auroc"])
            assert f"{len(found)} synthetic and 150 real photos" in row["note"]
            continue
        assert row["note"] == ""
        assert row["auroc"] == pytest.approx(auroc_of(real, found))
        assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
        assert row["auroc_known"] == row["auroc"]  # no source is left out
        scores = under.set_index("file_name")["score"]
        higher = found["score"].to_numpy() > scores[found["pair"]].to_numpy()
        assert (row["n_pairs"], row["edit_higher"]) == (len(found), pytest.approx(higher.mean()))
        assert row["edit_higher_low"] < row["edit_higher_high"]
        assert (row["n_real"], row["n_synthetic"]) == (150, len(found))


def test_mean_and_worst_are_over_the_folds_and_the_worst_is_named(manifest):
    # "easy" has too few synthetic photos for a figure; it must not count as 0.
    folds = [
        fold("good", predicted(manifest.table, gain=3.0), family=("a",)),
        fold("bad", predicted(manifest.table, gain=0.5), family=("b",)),
        fold("small", predicted(manifest.table, gain=3.0), family=("d",)),
    ]
    table = left_out_table(folds, manifest).set_index(["fold", "left_out", "perturbation"])
    for name in ("none", "worse"):
        good, bad, small = (table.loc[(each, "all", name)] for each in ("good", "bad", "small"))
        mean, worst = table.loc[("mean", "all", name)], table.loc[("worst", "all", name)]
        assert np.isnan(small["auroc"])
        assert "2 synthetic and 150 real photos" in small["note"]
        assert mean["auroc"] == pytest.approx((good["auroc"] + bad["auroc"]) / 2)
        assert worst["auroc"] == bad["auroc"] < good["auroc"]
        assert worst["tpr_at_fpr_1"] == bad["tpr_at_fpr_1"]
        for key in ("auroc", "tpr_at_fpr_1", "edit_higher"):
            ends = [f"{key}_low", f"{key}_high"]
            lowest = min((good, bad), key=lambda row, key=key: row[key])
            assert worst[ends].tolist() == lowest[ends].tolist()
            assert mean[ends[0]] <= mean[key] <= mean[ends[1]]
            assert mean[ends[0]] < mean[ends[1]]
        assert "auroc: bad" in worst["note"]
        assert "auroc over 2 of 3 folds" in mean["note"]


def test_a_generator_left_out_with_a_source_is_compared_with_real_photos_of_that_source(tmp_path):
    table = photos()
    seen = (table["source"] == "shop1") & (table.index % 2 == 0)
    manifest = Manifest(tmp_path, table.assign(split=seen.map({True: "train", False: "test"})))
    left_out = {"family": ("a",), "source": ("shop1",)}
    wanted = photos_of_fold(manifest, left_out).table
    new = manifest.table["source"] == "shop1"
    known = ~new & (manifest.table["split"] == "test")
    assert set(manifest.table.loc[new, "file_name"]) < set(wanted["file_name"])
    assert set(manifest.table.loc[seen, "file_name"]) < set(wanted["file_name"])
    assert not set(wanted.loc[wanted["source"] == "shop0", "family"]) - {"", "a"}
    assert (wanted["source"] == "shop0").sum() < known.sum()

    predictions = predicted(manifest.table, gain=1.0)
    outcome = np.select(
        [predictions["score"] > 2, predictions["score"] > 0], ["synthetic", "review"], "real"
    )
    predictions = predictions.assign(outcome=outcome, t_real=0.0, t_synthetic=2.0)
    rows = left_out_table([fold("f", predictions, **left_out)], manifest)
    rows = rows[(rows["fold"] == "f") & (rows["perturbation"] == "none")]
    assert list(zip(rows["column"], rows["left_out"], strict=True)) == [
        ("family", "all"),
        ("family", "a"),
        ("source", "shop1"),
    ]
    clean = predictions[predictions["perturbation"] == ""]
    scored = clean[clean["file_name"].isin(wanted["file_name"])]
    honest = scored[(scored["label"] == "real") & (scored["source"] == "shop1")]
    assert set(rows["n_real"]) == {len(honest)}
    for name in ("synthetic", "review"):
        assert set(rows[f"honest_{name}"]) == {(honest["outcome"] == name).sum()}
    fakes = scored["label"] == "synthetic"
    found = scored[fakes & (scored["family"] == "a")]
    assert rows["auroc"].iloc[0] == pytest.approx(auroc_of(honest, found))
    seen_source = scored[(scored["label"] == "real") & (scored["source"] == "shop0")]
    expected = auroc_of(seen_source, found)
    assert rows["auroc_known"].tolist()[:2] == pytest.approx([expected] * 2)
    assert np.isnan(rows["auroc_known"].iloc[2])  # of a generator only
    assert rows["n_pairs"].iloc[0] == len(found)


def test_thresholds_of_a_source_s_own_undo_what_all_its_scores_have_in_common(tmp_path):
    """Photos of shop1 score two too high, its edits too; the fakes come from elsewhere."""
    rows = []
    for index in range(400):
        about = {"group": f"g{index}", "split": "test", "source": "shop1", "kind": "original"}
        edit = {"label": "synthetic", "kind": "ai_whole", "family": "seen", "source": "shop1"}
        rows.append({"file_name": f"{index}.png", "label": "real", **about})
        rows.append({**about, **edit, "file_name": f"{index}_edit.png"})
    new = {"label": "synthetic", "kind": "ai_whole", "split": "test"}
    for index in range(100):
        rows.append({"file_name": f"new{index}.png", "family": "a", "generator": "a", **new})
        rows.append({"file_name": f"taesd{index}.png", "family": "taesd", "source": "shop1", **new})
    table = with_known_columns(pd.DataFrame(rows).fillna(""))
    manifest = Manifest(tmp_path, table)
    predictions = predicted(table, gain=4.0)
    predictions["score"] += 2.0 * (predictions["source"] == "shop1")
    predictions = predictions[predictions["perturbation"] == ""]
    predictions["outcome"] = np.where(predictions["score"] >= 6.5, "synthetic", "review")
    predictions = predictions.assign(t_real=0.5, t_synthetic=6.5, hot_share=0.0)
    done = fold("f", predictions, family=("a", "taesd"), source=("shop1",))
    targets = Targets(fpr=0.02, miss=0.05, kinds=("ai_whole",))
    shared = left_out_table([done], manifest)
    assert shared["own_honest_review"].isna().all()
    rows = left_out_table([done], manifest, targets=targets).set_index(["column", "left_out"])
    row = rows.loc[("source", "shop1")]
    assert row["honest_review"] == 400
    # t_synthetic: 2.05 standard deviations above 2; t_real: 1.64 below 6, and 2.36 above 2.
    assert row["own_honest_synthetic"] == pytest.approx(0.02 * 400, abs=6)
    assert row["own_honest_review"] + row["own_honest_synthetic"] < 20
    # The codec's edits are no fakes that anybody sells.
    assert (row["n_fakes"], rows.loc[("family", "all"), "n_synthetic"]) == (100, 200)
    assert row["fakes_found"] < 0.02
    assert row["own_fakes_found"] == pytest.approx(0.48, abs=0.15)
    assert rows.loc[("family", "a"), ["n_fakes", "own_honest_review"]].isna().all()
    # Without a left-out generator there are no new fakes.
    alone = fold("f", predictions, source=("shop1",))
    table = left_out_table([alone], manifest, targets=targets)
    (of_shop,) = table[table["left_out"] == "shop1"].to_dict("records")
    assert of_shop["own_honest_review"] < 40
    assert (of_shop["n_fakes"], np.isnan(of_shop["own_fakes_found"])) == (0, True)


def test_predictions_without_the_left_out_photos_are_refused(manifest):
    predictions = predicted(manifest.table, gain=1.0)
    without = predictions[predictions["family"] != "b"]
    with pytest.raises(RealDamageError) as caught:
        left_out_table([fold("f", without, family=("b",))], manifest)
    assert caught.value.code == "nothing_left_out"


def test_localisation_is_over_the_region_edits_of_each_part(write_photos, model_file, tmp_path):
    about = {"label": "synthetic", "split": "test"}
    families, kinds = ["a"] * 6 + ["b"] * 2, ["ai_region"] * 7 + ["pasted"]
    rows = [
        {"file_name": f"f{i}.png", "mask_file_name": f"m{i}.png", "red": 100 + 20 * i, **about}
        | {"family": family, "kind": kind}
        for i, (family, kind) in enumerate(zip(families, kinds, strict=True))
    ]
    manifest = write_photos(rows)
    scored = Suite(ModelFile(model_file), manifest, (), tmp_path / "s", "m")
    scored.score(workers=1)
    done = fold("f", scored.predictions, family=("a", "b"))
    found = localisation_rows(scored, manifest, done)
    counts = [(row["left_out"], row["perturbation"], row["n_localised"]) for row in found]
    assert counts == [("all", "none", 7), ("a", "none", 6), ("b", "none", 1)]
    own = [photo for photo in scored.localisation() if photo.file_name < "f6"]
    expected = localisation_metrics(own)
    assert found[1]["best_f1"] == expected["best_f1"]
    assert found[1]["baseline_f1"] == expected["baseline_f1"] < found[1]["best_f1"]
