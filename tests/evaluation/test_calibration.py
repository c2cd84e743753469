"""Thresholds keep the rates they were asked for, Platt scaling is calibrated, and the model file carries both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from realdamage.data.manifest import Manifest
from realdamage.evaluation.calibration import calibrate_model, choose_policy
from realdamage.evaluation.predictions import PREDICTION_COLUMNS, score_manifest
from realdamage.evaluation.scaling import fit_platt
from realdamage.inference.detector import Detector
from realdamage.inference.errors import ManifestError, PhotoError, RealDamageError, UsageError
from realdamage.inference.metadata import read_model_file

WritePhotos = Callable[..., Manifest]

rates = st.sampled_from([0.0, 0.01, 0.05, 0.29, 0.5])
tied = hnp.arrays(np.float64, st.integers(1, 120), elements=st.integers(-6, 6).map(lambda value: value / 3))


def predictions_of(real: np.ndarray, synthetic: np.ndarray, n_damaged: int = 0) -> pd.DataFrame:
    n = len(real) + len(synthetic)
    table = pd.DataFrame({**dict.fromkeys(PREDICTION_COLUMNS, ""), "file_name": [f"{i}.jpg" for i in range(n)]})
    return table.assign(
        label=["real"] * len(real) + ["synthetic"] * len(synthetic),
        kind=["damaged"] * n_damaged + ["original"] * (len(real) - n_damaged) + ["ai_region"] * len(synthetic),
        score=np.concatenate([real, synthetic]),
    )


@settings(max_examples=100, deadline=None)
@given(tied, tied, rates, rates)
def test_thresholds_keep_their_rates_and_cannot_be_moved_further(
    real: np.ndarray, synthetic: np.ndarray, fpr: float, miss: float
) -> None:
    policy = choose_policy(predictions_of(real, synthetic), fpr, miss)
    assert (real >= policy.t_synthetic).mean() <= fpr + 1e-12
    assert (synthetic <= policy.t_real).mean() <= miss + 1e-12
    # The next lower threshold would accuse too many.
    assert (real >= np.nextafter(policy.t_synthetic, -np.inf)).mean() > fpr
    if policy.t_real < policy.t_synthetic:
        assert (synthetic <= np.nextafter(policy.t_real, np.inf)).mean() > miss


def test_a_known_set_gives_known_thresholds() -> None:
    policy = choose_policy(predictions_of(np.arange(100.0), np.arange(50.0, 150.0)), fpr=0.05, miss=0.1)
    # Five of a hundred may be accused: 95 to 99. Ten may pass: 50 to 59.
    assert (policy.t_synthetic, policy.t_real) == pytest.approx((94, 60))
    assert [policy.outcome(score) for score in (94, 95, 60, 59)] == ["review", "synthetic", "review", "real"]
    assert (policy.negatives, policy.photos) == ("real", {"real": 100, "damaged": 0, "synthetic": 100})


def test_twenty_damaged_photos_are_enough_to_be_the_negatives() -> None:
    real = np.concatenate([np.full(20, 5.0), np.zeros(80)])
    synthetic = np.arange(10.0)
    assert choose_policy(predictions_of(real, synthetic, n_damaged=20), 0.5, 0.1).negatives == "damaged"
    assert choose_policy(predictions_of(real, synthetic, n_damaged=20), 0.5, 0.1).t_synthetic > 5
    few = choose_policy(predictions_of(real, synthetic, n_damaged=19), 0.5, 0.1)
    assert few.negatives == "real"
    assert 0 < few.t_synthetic < 5
    assert few.photos == {"real": 100, "damaged": 19, "synthetic": 10}


def test_unscored_photos_do_not_count() -> None:
    table = predictions_of(np.arange(10.0), np.arange(10.0))
    table.loc[[9, 10], "score"] = np.nan
    policy = choose_policy(table, 0.0, 0.0)
    assert policy.photos == {"real": 9, "damaged": 0, "synthetic": 9}
    assert policy.t_synthetic == pytest.approx(8)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    table = predictions_of(np.zeros(5), np.ones(5))
    with pytest.raises(UsageError, match=r"fpr=.* must be at least 0 and below 1"):
        choose_policy(table, rate, 0.1)
    with pytest.raises(UsageError, match="miss="):
        choose_policy(table, 0.1, rate)


def test_one_class_has_no_thresholds_and_no_calibration() -> None:
    with pytest.raises(RealDamageError, match="found 5 real, 0 synthetic photos"):
        choose_policy(predictions_of(np.zeros(5), np.zeros(0)), 0.1, 0.1)
    with pytest.raises(RealDamageError, match="found 0 synthetic and 5 real ones"):
        fit_platt(np.zeros(5), np.zeros(5), range(5))


def test_platt_scaling_finds_the_odds_that_the_scores_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(1, 2, 20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-(0.8 * scores - 1.5)))
    calibration = fit_platt(scores, labels, np.arange(20_000))
    assert calibration.slope == pytest.approx(0.8, abs=0.03)
    assert calibration.intercept == pytest.approx(-1.5, abs=0.06)
    assert calibration.prior == pytest.approx(labels.mean())
    probabilities = np.array([calibration.probability(score) for score in scores])
    for low in np.arange(0, 1, 0.2):
        bin_ = (probabilities >= low) & (probabilities < low + 0.2)
        assert labels[bin_].mean() == pytest.approx(probabilities[bin_].mean(), abs=0.03)


def test_platt_scaling_is_platts_own_loss_at_its_minimum() -> None:
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(-30, 10, 40), rng.normal(20, 10, 60)])
    labels = np.repeat([0, 1], [40, 60])
    target = np.where(labels == 1, 61 / 62, 1 / 42)

    def loss(parameters: np.ndarray) -> float:
        log_odds = parameters[0] * scores + parameters[1]
        return float(np.sum(np.logaddexp(0, log_odds) - target * log_odds))

    best = minimize(loss, [0.1, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x
    calibration = fit_platt(scores, labels, np.arange(100))
    assert (calibration.slope, calibration.intercept) == pytest.approx(tuple(best), rel=1e-3)


def test_scores_that_separate_the_classes_entirely_stay_modest() -> None:
    calibration = fit_platt([-1.0] * 20 + [1.0] * 20, [0] * 20 + [1] * 20, range(40))
    # Platt's targets of 20 and 20 photos: 21/22 and 1/22.
    assert calibration.probability(1.0) == pytest.approx(21 / 22, abs=1e-3)
    assert calibration.probability(-1.0) == pytest.approx(1 / 22, abs=1e-3)


def test_a_product_photographed_often_weighs_one_photo_per_class() -> None:
    rng = np.random.default_rng(0)
    scores, labels, groups = rng.normal(0, 1, 60), np.arange(60) % 2, np.arange(60)
    scores = scores + labels
    once = fit_platt(scores, labels, groups)
    often = np.concatenate([np.arange(60), np.repeat([4, 7], 50)])
    repeated = fit_platt(scores[often], labels[often], groups[often])
    assert (repeated.slope, repeated.intercept) == pytest.approx((once.slope, once.intercept), rel=1e-3)
    assert repeated.prior == once.prior == 0.5


def test_scores_that_fall_with_the_label_are_refused() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    with pytest.raises(RealDamageError, match="do not rise with the label"):
        fit_platt(scores, scores < 0, range(50))
    with pytest.raises(RealDamageError, match="do not rise with the label"):
        fit_platt(np.ones(50), np.arange(50) % 2, range(50))


def photos(split: str = "", n: int = 30) -> list[dict[str, object]]:
    """Real photos with red 60..118, synthetic ones with 100..158: they overlap."""
    return [
        {"file_name": f"{split}{label}{i}.png", "label": label, "split": split, "red": start + 2 * i}
        for label, start in (("real", 60), ("synthetic", 100))
        for i in range(n)
    ]


def test_a_model_is_calibrated_in_place(model_file: Path, write_photos: WritePhotos) -> None:
    manifest = write_photos(photos("val"))
    _, before, digest = read_model_file(model_file)
    summary = calibrate_model(model_file, manifest, fpr=0.1, miss=0.2)
    _, after, same_digest = read_model_file(model_file)
    assert before.calibration is None
    assert (after.calibration, after.policy) == (summary.calibration, summary.policy)
    assert same_digest == digest
    assert summary.policy.photos == {"real": 30, "damaged": 0, "synthetic": 30}
    assert (summary.split, summary.output, summary.unreadable) == ("split 'val'", model_file, 0)
    assert (summary.called_synthetic, summary.called_real) == pytest.approx((0.1, 0.2))

    predictions, _ = score_manifest(Detector.load(model_file), manifest)
    outcomes = predictions.groupby("label")["outcome"].value_counts(normalize=True)
    assert outcomes["real", "synthetic"] == pytest.approx(summary.called_synthetic)
    assert outcomes["synthetic", "real"] == pytest.approx(summary.called_real)
    # The whole-photo rule turns the rest of the detector's `synthetic` into `review`; the summary is of the thresholds.
    scores = predictions["score"]
    assert scores.between(summary.policy.t_real, summary.policy.t_synthetic, "neither").mean() == summary.review
    assert predictions["probability"].between(0, 1).all()
    assert predictions["probability"].rank().equals(predictions["score"].rank())


def test_another_output_leaves_the_model_alone(model_file: Path, write_photos: WritePhotos, tmp_path: Path) -> None:
    before = model_file.read_bytes()
    summary = calibrate_model(model_file, write_photos(photos()), output=tmp_path / "new.onnx")
    assert model_file.read_bytes() == before
    assert summary.split == "the whole manifest"
    assert Detector.load(tmp_path / "new.onnx").metadata.policy == summary.policy


def test_policy_photos_come_before_val_photos_and_training_photos_never(
    model_file: Path, write_photos: WritePhotos
) -> None:
    manifest = write_photos([*photos("train"), *photos("val", 20), *photos("policy", 10)])
    assert calibrate_model(model_file, manifest).policy.photos["real"] == 10
    assert calibrate_model(model_file, manifest, "val").policy.photos["real"] == 20
    with pytest.raises(UsageError, match="split=train"):
        calibrate_model(model_file, manifest, "train")
    training_only = manifest.select(split="train")
    with pytest.raises(ManifestError, match=r"neither a split 'policy' nor 'val' .*found: train"):
        calibrate_model(model_file, training_only)


def test_a_split_without_a_class_changes_nothing(model_file: Path, write_photos: WritePhotos) -> None:
    before = model_file.read_bytes()
    manifest = write_photos([*photos("val", 4)[:4], *photos("test", 4)])
    with pytest.raises(ManifestError, match="split 'val' has 4 real and 0 synthetic photos; calibration needs both"):
        calibrate_model(model_file, manifest, "val")
    with pytest.raises(ManifestError, match="no photo has split 'policy'"):
        calibrate_model(model_file, manifest, "policy")
    assert model_file.read_bytes() == before


def test_a_model_that_scores_the_wrong_way_round_changes_nothing(model_file: Path, write_photos: WritePhotos) -> None:
    before = model_file.read_bytes()
    swapped = [{**row, "label": "real" if row["label"] == "synthetic" else "synthetic"} for row in photos()]
    with pytest.raises(RealDamageError, match="do not rise with the label"):
        calibrate_model(model_file, write_photos(swapped))
    assert model_file.read_bytes() == before


def test_unreadable_photos_stop_it_or_are_counted(model_file: Path, write_photos: WritePhotos) -> None:
    manifest = write_photos(photos())
    (manifest.root / "real0.png").write_bytes(b"not a picture")
    with pytest.raises(PhotoError, match=r"real0\.png"):
        calibrate_model(model_file, manifest)
    summary = calibrate_model(model_file, manifest, on_error="skip")
    assert (summary.unreadable, summary.policy.photos["real"]) == (1, 29)
