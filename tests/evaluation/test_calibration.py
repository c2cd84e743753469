"""Thresholds keep the rates they were asked for, and the model file carries them."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from realdamage.core.detector import Detector
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.quality import Gate
from realdamage.data.manifest import Manifest
from realdamage.errors import ManifestError, PhotoError, RealDamageError, UsageError
from realdamage.evaluation.calibration import (
    calibrate_model,
    choose_policy,
    fit_platt,
    is_calibrated,
)
from realdamage.evaluation.compare import compare_models
from realdamage.evaluation.costs import Costs, cost_report
from realdamage.evaluation.figures import photo_metrics
from realdamage.evaluation.guarantee import Targets
from realdamage.evaluation.predictions import score_manifest

rates = st.sampled_from([0.0, 0.01, 0.05, 0.29, 0.5])
tied = hnp.arrays(
    np.float64, st.integers(1, 120), elements=st.integers(-6, 6).map(lambda value: value / 3)
)


def predictions_of(real, synthetic, n_damaged=0):
    sizes = [n_damaged, len(real) - n_damaged, len(synthetic)]
    columns = {
        "label": np.repeat(["real", "real", "synthetic"], sizes),
        "kind": np.repeat(["damaged", "original", "ai_region"], sizes),
        "score": np.concatenate([real, synthetic]),
    }
    return pd.DataFrame(columns)


@settings(max_examples=40, deadline=None)
@given(tied, tied, rates, rates)
def test_thresholds_keep_their_rates_and_cannot_be_moved_further(real, synthetic, fpr, miss):
    policy = choose_policy(predictions_of(real, synthetic), Targets(fpr, miss))
    assert (real >= policy.t_synthetic).mean() <= fpr + 1e-12
    assert (synthetic <= policy.t_real).mean() <= miss + 1e-12
    assert (real >= np.nextafter(policy.t_synthetic, -np.inf)).mean() > fpr
    if policy.t_real < policy.t_synthetic:
        assert (synthetic <= np.nextafter(policy.t_real, np.inf)).mean() > miss


def test_twenty_damaged_photos_are_enough_to_be_the_negatives():
    real, synthetic = np.concatenate([np.full(20, 5.0), np.zeros(80)]), np.arange(10.0)
    enough = choose_policy(predictions_of(real, synthetic, n_damaged=20), Targets(0.5, 0.1))
    assert (enough.negatives, enough.t_synthetic > 5) == ("damaged", True)
    few = choose_policy(predictions_of(real, synthetic, n_damaged=19), Targets(0.5, 0.1))
    assert (few.negatives, 0 < few.t_synthetic < 5) == ("real", True)


def test_platt_scaling_is_platts_own_loss_at_its_minimum():
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(-30, 10, 40), rng.normal(20, 10, 60)])
    labels = np.repeat([0, 1], [40, 60])
    target = np.where(labels == 1, 61 / 62, 1 / 42)

    def loss(parameters):
        log_odds = parameters[0] * scores + parameters[1]
        return float(np.sum(np.logaddexp(0, log_odds) - target * log_odds))

    options = {"xatol": 1e-8, "fatol": 1e-10}
    best = minimize(loss, [0.1, 0.0], method="Nelder-Mead", options=options).x
    calibration = fit_platt(scores, labels, np.arange(100))
    assert (calibration.slope, calibration.intercept) == pytest.approx(tuple(best), rel=1e-3)


def test_a_product_photographed_often_weighs_one_photo_per_class():
    rng = np.random.default_rng(0)
    labels, groups = np.arange(60) % 2, np.arange(60)
    scores = rng.normal(0, 1, 60) + labels
    once = fit_platt(scores, labels, groups)
    often = np.concatenate([np.arange(60), np.repeat([4, 7], 50)])
    repeated = fit_platt(scores[often], labels[often], groups[often])
    assert (repeated.slope, repeated.intercept) == pytest.approx(
        (once.slope, once.intercept), rel=1e-3
    )
    assert repeated.prior == once.prior == 0.5


def photos(split, n=10):
    """Real photos with red 60, 66, 72, …, synthetic ones with 100, 106, …: they overlap."""
    return [
        {"file_name": f"{split}{label}{i}.png", "label": label, "split": split, "red": red + 6 * i}
        for label, red in (("real", 60), ("synthetic", 100))
        for i in range(n)
    ]


def of_products(n, split="policy"):
    """A really damaged photo (red 60 to 109) and a synthetic one of each of so many products. Ten
    guarantee a share of 30% without an error, 22 one of 20% with one."""
    return [
        {
            **{"file_name": f"{split}{label}{i}.png", "label": label, "kind": kind, "split": split},
            **{"group": f"{split}{i}", "red": start + 50 * i // n},
        }
        for label, kind, start in (("real", "damaged", 60), ("synthetic", "ai_region", 100))
        for i in range(n)
    ]


def test_a_model_is_calibrated_in_place_and_known_by_model_photos_and_targets(
    model_file, write_photos, tmp_path
):
    manifest = write_photos(photos("val"))
    targets, new = Targets(fpr=0.1, miss=0.2), tmp_path / "new.onnx"
    before = model_file.read_bytes()
    calibrate_model(model_file, manifest, Targets(), output=new)
    assert model_file.read_bytes() == before
    assert not is_calibrated(model_file, manifest, targets)
    digest = read_model_file(model_file)[2]
    summary = calibrate_model(model_file, manifest, targets)
    _, after, same_digest = read_model_file(model_file)
    assert (after.calibration, after.policy) == (summary.calibration, summary.policy)
    assert (same_digest, summary.split) == (digest, "split 'val'")
    assert (summary.called_synthetic, summary.called_real) == pytest.approx((0.1, 0.2))
    assert is_calibrated(model_file, manifest, targets)
    assert is_calibrated(model_file, manifest, targets, split="val")
    assert not is_calibrated(model_file, manifest, targets, output=new)
    assert not is_calibrated(model_file, manifest, Targets(fpr=0.2, miss=0.2))
    assert not is_calibrated(model_file, manifest.subset(manifest.table.index > 0), targets)
    os.utime(manifest.path(manifest.table["file_name"][0]), ns=(1, 1))
    assert not is_calibrated(model_file, manifest, targets)


def test_policy_photos_come_before_val_photos_and_training_photos_never(model_file, write_photos):
    manifest = write_photos([*photos("train", 2), *photos("val", 4), *photos("policy", 3)])

    def photos_used(split=None):
        return calibrate_model(model_file, manifest, Targets(), split=split).policy.photos["real"]

    assert (photos_used(), photos_used("val")) == (3, 4)
    with pytest.raises(UsageError) as usage:
        photos_used("train")
    assert usage.value.code == "training_photos"
    with pytest.raises(ManifestError) as error:
        calibrate_model(model_file, manifest.select(split="train"), Targets())
    assert error.value.code == "no_calibration_split"


def test_what_cannot_be_calibrated_changes_nothing(model_file, write_photos):
    before = model_file.read_bytes()
    manifest = write_photos([*photos("test", 4), *photos("policy")])
    table = manifest.table
    real = manifest.subset((table["label"] == "real").to_numpy())
    swapped = table["label"].map({"real": "synthetic", "synthetic": "real"})
    wrong = Manifest(manifest.root, table.assign(label=swapped))
    for photos_given, targets, code in (
        (manifest, Targets(beta=0.05), "too_few_photos"),
        (real, Targets(), "one_class"),
        (wrong, Targets(), "scores_do_not_rise"),
        (manifest, Targets(kinds=("pasted",)), "no_photo_of_kind"),
    ):
        with pytest.raises(RealDamageError) as refused:
            calibrate_model(model_file, photos_given, targets)
        assert refused.value.code == code
    (manifest.root / "policyreal0.png").write_bytes(b"not a picture")
    with pytest.raises(PhotoError, match=r"policyreal0\.png"):
        calibrate_model(model_file, manifest, Targets())
    assert model_file.read_bytes() == before


def test_a_guarantee_goes_into_the_file(model_file, write_photos):
    manifest = write_photos([*of_products(10), *photos("train", 3)])
    free = calibrate_model(model_file, manifest, Targets())
    assert (free.policy.guarantee, free.notes) == (None, ())
    assert (free.policy.fpr, free.policy.miss) == (0.01, 0.05)
    # The limits on quality belong to the network, so they outlive its thresholds.
    data, metadata, _ = read_model_file(model_file)
    gated = replace(free.policy, gate=Gate(min_side=32))
    write_model_file(model_file, data, replace(metadata, policy=gated))
    summary = calibrate_model(model_file, manifest, Targets(alpha=0.3, beta=0.3))
    policy, guarantee = summary.policy, summary.policy.guarantee
    assert guarantee is not None
    assert (guarantee.alpha, guarantee.beta, guarantee.delta) == (0.3, 0.3, 0.05)
    assert (guarantee.split, guarantee.manifest_sha256) == ("split 'policy'", manifest.digest())
    assert read_model_file(model_file)[1].policy == policy
    assert policy.gate == gated.gate
    # Ten photos allow no error, so nobody is accused here and no synthetic photo passes.
    assert (summary.called_synthetic, summary.called_real) == (0, 0)
    predictions, _ = score_manifest(Detector.load(model_file), manifest.select(split="policy"))
    damaged = predictions[predictions["kind"] == "damaged"]["score"]
    assert policy.t_synthetic == np.nextafter(damaged.max(), np.inf)
    assert len(summary.notes) == 1  # trained on another manifest
    mixed = calibrate_model(model_file, manifest, Targets(alpha=0.3, miss=0.2))
    assert (mixed.policy.fpr, mixed.policy.miss) == (0.3, 0.2)
    assert mixed.called_real == pytest.approx(2 / 10)
    [gone] = mixed.warnings
    assert "beta=0.3 is gone" in gone


def test_t_synthetic_rises_to_the_source_with_the_highest_honest_scores(model_file, write_photos):
    """22 really damaged photos of a shop with their edits, which at 20% may have one error, and 20
    intact photos of phones that are redder than the shop's."""
    shop = [{**row, "source": "shop"} for row in of_products(22)]
    about = {"label": "real", "kind": "original", "split": "policy", "source": "phones"}
    phones = [{**about, "file_name": f"phone{i}.png", "red": 88 + 2 * i} for i in range(20)]
    manifest, targets = write_photos([*shop, *phones]), Targets(alpha=0.2, beta=0.2)
    one_source = Manifest(manifest.root, manifest.table.assign(source="shop"))
    pooled = calibrate_model(model_file, one_source, targets).policy
    assert pooled.worst_source is None
    policy = calibrate_model(model_file, manifest, targets).policy
    predictions, _ = score_manifest(Detector.load(model_file), manifest)
    phones = predictions[predictions["source"] == "phones"]
    # Four of twenty may be called synthetic.
    expected = np.nextafter(np.sort(phones["score"])[-5], np.inf)
    assert policy.t_synthetic == expected > pooled.t_synthetic
    worst = policy.worst_source
    assert worst is not None
    assert (worst.source, worst.photos, worst.called_synthetic) == ("phones", 20, 4)
    assert worst.to_review == (phones["outcome"] == "review").sum()
    assert (worst.raised_by, worst.raised_from) == ("phones", pooled.t_synthetic)
    assert policy.guarantee is not None
    assert pooled.guarantee is not None
    # The guarantee is as before; of the photos it rests on, fewer are called synthetic now.
    before = pooled.guarantee.accused
    assert before is not None
    assert (before.errors, before.allowed) == (1, 1)
    assert policy.guarantee.accused == replace(before, errors=0)
    assert policy.guarantee.passed == pooled.guarantee.passed


def test_t_real_can_be_about_one_kind_of_synthetic_photo(model_file, write_photos):
    rows = [
        {"file_name": f"{kind}{i}.png", "label": label, "kind": kind, "red": red + step * i}
        for kind, label, red, step in (
            ("original", "real", 0, 8),
            ("ai_region", "synthetic", 10, 1),
            ("ai_whole", "synthetic", 100, 1),
        )
        for i in range(14)
    ]
    manifest = write_photos(rows)
    policy = calibrate_model(model_file, manifest, Targets(beta=0.3)).policy
    targets = Targets(beta=0.3, kinds=("ai_whole",))
    whole = calibrate_model(model_file, manifest, targets).policy
    predictions, _ = score_manifest(Detector.load(model_file), manifest)
    passed = predictions["score"] <= whole.t_real
    assert policy.t_real < predictions.loc[predictions["kind"] == "ai_whole", "score"].min()
    assert passed[predictions["kind"] == "ai_region"].all()
    assert passed[predictions["kind"] == "ai_whole"].sum() == 1
    assert whole.guarantee is not None
    assert whole.guarantee.passed is not None
    assert (whole.guarantee.passed.kinds, whole.guarantee.passed.drawn_from) == (("ai_whole",), 14)


def test_photos_that_chose_the_checkpoint_guarantee_only_when_named(model_file, write_photos):
    rows = [*of_products(10, "val"), *of_products(10, "test"), *photos("train", 3)]
    manifest, targets = write_photos(rows), Targets(alpha=0.3)
    with pytest.raises(ManifestError) as error:
        calibrate_model(model_file, manifest, targets)
    assert error.value.code == "no_calibration_split"
    onnx_bytes, metadata, _ = read_model_file(model_file)
    known = replace(metadata, training={"manifest_sha256": manifest.digest()})
    write_model_file(model_file, onnx_bytes, known)
    for split, word in (("val", "checkpoint"), ("test", "independent")):
        summary = calibrate_model(model_file, manifest, targets, split=split)
        assert summary.policy.guarantee is not None
        [note] = summary.notes
        assert word in note


def test_calibration_evaluation_costs_and_comparison_count_the_same(model_file, write_photos):
    """All of them after the whole-photo rule."""
    rng = np.random.default_rng(0)
    reds = {"real": rng.normal(100, 25, 30), "edit": rng.normal(230, 20, 30).clip(0, 255)}
    rows = []
    for index, (real, edit) in enumerate(zip(*reds.values(), strict=True)):
        about = {"file_name": f"real{index}.png", "label": "real", "kind": "damaged"}
        rows.append(about | {"red": int(real), "mask_file_name": "", "generator": ""})
        # Every third edit is red all over, which the whole-photo rule leaves to a person.
        mask = f"mask{index}.png" if index % 3 else ""
        about = {"file_name": f"edit{index}.png", "label": "synthetic", "kind": "ai_region"}
        rows.append(about | {"red": int(edit), "mask_file_name": mask, "generator": "maker"})
    manifest = write_photos(rows)
    summary = calibrate_model(model_file, manifest, Targets(fpr=0.1), threads=1)
    assert 0.2 < summary.caught < 0.7
    predictions, _ = score_manifest(Detector.load(model_file, threads=1), manifest)
    figures = photo_metrics(predictions, n_boot=2)
    assert figures["per_kind"]["ai_region"]["called_synthetic"] == pytest.approx(summary.caught)
    report = cost_report(predictions, Costs(0.5, 0, 0, 1))  # nothing counts but accusations
    assert 2 * report.ways[2].cost == pytest.approx(summary.called_synthetic)
    compared = {row.figure: row.a for row in compare_models(predictions, predictions).figures}
    balanced = (summary.caught + 1 - summary.called_synthetic) / 2
    assert compared["balanced_at_thresholds"] == pytest.approx(balanced)
