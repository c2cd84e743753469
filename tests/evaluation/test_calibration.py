"""Thresholds keep the rates they were asked for, and the model file carries them with the calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import beta

from realdamage.core.detector import Detector
from realdamage.core.gate import Gate
from realdamage.core.metadata import read_model_file, write_model_file
from realdamage.data.manifest import Manifest
from realdamage.errors import ManifestError, PhotoError, RealDamageError, UsageError
from realdamage.evaluation.calibration import calibrate_model, choose_policy
from realdamage.evaluation.compare import compare_models
from realdamage.evaluation.economics import REFUSED, cost_sample
from realdamage.evaluation.perturbations import suite_from_config
from realdamage.evaluation.predictions import PREDICTION_COLUMNS, score_manifest
from realdamage.evaluation.robustness import ModelFile, Scoring, all_figures, score_suite
from realdamage.rendering.calibration_text import summary_text
from realdamage.rendering.report import build_report
from realdamage.rendering.report_page import report_page

WritePhotos = Callable[..., Manifest]

rates = st.sampled_from([0.0, 0.01, 0.05, 0.29, 0.5])
tied = hnp.arrays(
    np.float64, st.integers(1, 120), elements=st.integers(-6, 6).map(lambda value: value / 3)
)


def predictions_of(real: np.ndarray, synthetic: np.ndarray, n_damaged: int = 0) -> pd.DataFrame:
    n = len(real) + len(synthetic)
    table = pd.DataFrame(
        {**dict.fromkeys(PREDICTION_COLUMNS, ""), "file_name": [f"{i}.jpg" for i in range(n)]}
    )
    return table.assign(
        label=["real"] * len(real) + ["synthetic"] * len(synthetic),
        kind=["damaged"] * n_damaged
        + ["original"] * (len(real) - n_damaged)
        + ["ai_region"] * len(synthetic),
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
    policy = choose_policy(
        predictions_of(np.arange(100.0), np.arange(50.0, 150.0)), fpr=0.05, miss=0.1
    )
    # Five of a hundred may be accused: 95 to 99. Ten may pass: 50 to 59.
    assert (policy.t_synthetic, policy.t_real) == pytest.approx((94, 60))
    assert [policy.outcome(score) for score in (94, 95, 60, 59)] == [
        "review",
        "synthetic",
        "review",
        "real",
    ]
    assert (policy.negatives, policy.photos) == (
        "real",
        {"real": 100, "damaged": 0, "synthetic": 100},
    )


def test_twenty_damaged_photos_are_enough_to_be_the_negatives() -> None:
    real = np.concatenate([np.full(20, 5.0), np.zeros(80)])
    synthetic = np.arange(10.0)
    assert (
        choose_policy(predictions_of(real, synthetic, n_damaged=20), 0.5, 0.1).negatives
        == "damaged"
    )
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


def test_the_least_t_synthetic_lets_t_real_rise_with_it() -> None:
    table = predictions_of(np.arange(10.0), np.arange(100.0, 110.0))
    free = choose_policy(table, 0.0, 0.0)
    assert free.t_real == free.t_synthetic == pytest.approx(9)
    raised = choose_policy(table, 0.0, 0.0, least=50.0)
    assert raised.t_real == raised.t_synthetic == 50
    assert choose_policy(table, 0.0, 0.0, least=-50.0) == free


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    table = predictions_of(np.zeros(5), np.ones(5))
    with pytest.raises(UsageError, match=r"fpr=.* must be at least 0 and below 1"):
        choose_policy(table, rate, 0.1)
    with pytest.raises(UsageError, match="miss="):
        choose_policy(table, 0.1, rate)


def test_one_class_has_no_thresholds() -> None:
    with pytest.raises(RealDamageError, match="found 5 real, 0 synthetic photos"):
        choose_policy(predictions_of(np.zeros(5), np.zeros(0)), 0.1, 0.1)


def photos(split: str = "", n: int = 30) -> list[dict[str, object]]:
    """Real photos with red 60..118, synthetic ones with 100..158: they overlap."""
    return [
        {
            "file_name": f"{split}{label}{i}.png",
            "label": label,
            "split": split,
            "red": start + 2 * i,
        }
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
    assert (predictions["outcome"] == "review").mean() == pytest.approx(summary.review)
    assert predictions["probability"].between(0, 1).all()
    assert predictions["probability"].rank().equals(predictions["score"].rank())


def test_another_output_leaves_the_model_alone(
    model_file: Path, write_photos: WritePhotos, tmp_path: Path
) -> None:
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


def test_a_split_without_a_class_changes_nothing(
    model_file: Path, write_photos: WritePhotos
) -> None:
    before = model_file.read_bytes()
    manifest = write_photos([*photos("val", 4)[:4], *photos("test", 4)])
    with pytest.raises(
        ManifestError, match="split 'val' has 4 real and 0 synthetic photos; calibration needs both"
    ):
        calibrate_model(model_file, manifest, "val")
    with pytest.raises(ManifestError, match="no photo has split 'policy'"):
        calibrate_model(model_file, manifest, "policy")
    assert model_file.read_bytes() == before


def test_a_model_that_scores_the_wrong_way_round_changes_nothing(
    model_file: Path, write_photos: WritePhotos
) -> None:
    before = model_file.read_bytes()
    swapped = [
        {**row, "label": "real" if row["label"] == "synthetic" else "synthetic"} for row in photos()
    ]
    with pytest.raises(RealDamageError, match="do not rise with the label"):
        calibrate_model(model_file, write_photos(swapped))
    assert model_file.read_bytes() == before


def of_products(n: int, split: str = "policy", per_product: int = 1) -> list[dict[str, object]]:
    """As many really damaged photos (red 60 to 109) of products of their own, and as many synthetic ones of them."""
    return [
        {
            **{"file_name": f"{split}{label}{i}.png", "label": label, "kind": kind, "split": split},
            **{"group": f"{split}{i // per_product}", "red": start + 50 * i // n},
        }
        for label, kind, start in (("real", "damaged", 60), ("synthetic", "ai_region", 100))
        for i in range(n)
    ]


def test_a_promise_goes_into_the_file(model_file: Path, write_photos: WritePhotos) -> None:
    manifest = write_photos([*of_products(59), *photos("train", 3)])
    summary = calibrate_model(model_file, manifest, alpha=0.05, beta=0.05)
    policy, guarantee = summary.policy, summary.policy.guarantee
    assert guarantee is not None
    assert (guarantee.alpha, guarantee.beta, guarantee.delta, guarantee.split) == (
        0.05,
        0.05,
        0.05,
        "split 'policy'",
    )
    assert guarantee.manifest_sha256 == manifest.digest()
    assert read_model_file(model_file)[1].policy == policy
    # 59 photos allow no error, so nobody is accused here and no synthetic photo passes.
    assert (summary.called_synthetic, summary.called_real) == (0, 0)
    predictions, _ = score_manifest(Detector.load(model_file), manifest.select(split="policy"))
    damaged = predictions[predictions["kind"] == "damaged"]["score"]
    assert policy.t_synthetic == np.nextafter(damaged.max(), np.inf)
    synthetic = predictions[predictions["label"] == "synthetic"]
    assert summary.caught == (synthetic["outcome"] == "synthetic").mean() > 0.3
    assert len(summary.notes) == 1
    assert "trained on another manifest" in summary.notes[0]
    assert (
        "promise       With 95% confidence, at most 5% of photos with real damage"
        in summary_text(summary)
    )


def two_sources(write_photos: WritePhotos) -> Manifest:
    """93 really damaged photos of a shop with their edits, which at 5% may have one error, and 40 intact photos of
    phones that are redder than the shop's, but not so red that the whole-photo rule holds them back."""
    phones = [
        {
            "file_name": f"phone{i}.png",
            "label": "real",
            "kind": "original",
            "split": "policy",
            "source": "phones",
        }
        for i in range(40)
    ]
    rows = [{**row, "red": 88 + i} for i, row in enumerate(phones)]
    return write_photos([*({**row, "source": "shop"} for row in of_products(93)), *rows])


@pytest.mark.parametrize("rate", [{"alpha": 0.05, "beta": 0.1}, {"fpr": 0.05}])
def test_t_synthetic_rises_to_the_source_with_the_highest_honest_scores(
    model_file: Path, write_photos: WritePhotos, rate: dict[str, Any]
) -> None:
    manifest = two_sources(write_photos)
    one_source = Manifest(manifest.root, manifest.table.assign(source="shop"))
    pooled = calibrate_model(model_file, one_source, **rate).policy
    assert pooled.worst_source is None
    summary = calibrate_model(model_file, manifest, **rate)
    policy, worst = summary.policy, summary.policy.worst_source
    predictions, _ = score_manifest(Detector.load(model_file), manifest)
    real = predictions[predictions["label"] == "real"]
    phones = np.sort(real[real["source"] == "phones"]["score"])
    assert (
        policy.t_synthetic == np.nextafter(phones[-3], np.inf) > pooled.t_synthetic
    )  # two of forty may be called so
    assert (real["score"] >= policy.t_synthetic).groupby(real["source"]).mean().to_dict() == {
        "phones": 0.05,
        "shop": 0,
    }
    assert policy.t_real == pooled.t_real

    own = real[real["source"] == "phones"]["outcome"].value_counts()
    assert worst is not None
    assert (worst.source, worst.photos, worst.called_synthetic, worst.to_review) == (
        "phones",
        40,
        2,
        own["review"],
    )
    assert (worst.raised_by, worst.raised_from) == ("phones", pooled.t_synthetic)
    assert read_model_file(model_file)[1].policy == policy
    told = " ".join(summary_text(summary).split())
    assert f"2 of 40 (5.0%, 95% interval {100 * beta.ppf(0.025, 2, 39):.1f}% to" in told
    assert f"{own['review']} of 40 ({own['review'] / 40:.1%}" in told
    assert f"raised from {pooled.t_synthetic:+.3f} to {policy.t_synthetic:+.3f}" in told

    if promise := policy.guarantee:
        before = pooled.guarantee
        assert before is not None
        assert before.accused is not None
        # What was promised is as before; of the photos it rests on, fewer are called synthetic now.
        assert promise.accused == replace(before.accused, errors=0)
        assert (before.accused.errors, before.accused.allowed) == (1, 1)
        assert promise.passed == before.passed
        assert "0 called synthetic (1 allowed)" in promise.statement


def test_a_threshold_that_every_source_allows_stays(
    model_file: Path, write_photos: WritePhotos
) -> None:
    manifest = two_sources(write_photos)
    none_named = calibrate_model(
        model_file, Manifest(manifest.root, manifest.table.assign(source=""))
    ).policy
    table = manifest.table
    halves = (
        table["source"]
        .mask(table["kind"] == "original", "small")
        .mask(table["kind"] == "damaged", "shop")
    )
    small = table["kind"].ne("original") | table["file_name"].isin(
        [f"phone{i}.png" for i in range(19)]
    )
    kept = manifest.subset(small)
    summary = calibrate_model(
        model_file, Manifest(kept.root, kept.table.assign(source=halves[small].to_numpy()))
    )
    worst = summary.policy.worst_source
    assert worst is not None
    # 19 photos are too few to have a say.
    assert (worst.source, worst.photos, worst.raised_by, worst.raised_from) == (
        "shop",
        93,
        None,
        None,
    )
    assert summary.policy.t_synthetic == none_named.t_synthetic
    assert "No source raised t_synthetic." in " ".join(summary_text(summary).split())


def test_no_promise_is_the_default(model_file: Path, write_photos: WritePhotos) -> None:
    summary = calibrate_model(model_file, write_photos(of_products(59)))
    assert (summary.policy.guarantee, summary.notes, summary.brier) == (None, (), None)
    assert (summary.policy.fpr, summary.policy.miss) == (0.01, 0.05)
    assert "no promise about others" in summary_text(summary)


def test_a_handful_of_photos_is_told_to_be_one(model_file: Path, write_photos: WritePhotos) -> None:
    summary = calibrate_model(model_file, write_photos(photos("val", 12)), fpr=0.01, miss=0.1)
    fallback, rate = summary.warnings
    assert fallback.startswith(
        "false alarms were counted on all 12 real photos: only 0 of them show real damage"
    )
    assert rate.startswith(
        "a rate of 1% takes at least 100 photos: that none of these 12 real ones is called synthetic"
    )
    assert "up to 22% of such photos are (with 95% confidence)" in rate  # 1 - 0.05 ** (1 / 12)
    assert summary_text(summary).count("\nwarning       ") == 2


def test_as_many_photos_as_a_rate_takes_need_no_warning(
    model_file: Path, write_photos: WritePhotos
) -> None:
    assert calibrate_model(model_file, write_photos(of_products(25)), fpr=0.04).warnings == ()


def test_what_the_file_held_and_holds_no_longer_is_told(
    model_file: Path, write_photos: WritePhotos
) -> None:
    manifest = write_photos(of_products(59))
    promised = calibrate_model(model_file, manifest, alpha=0.05)
    assert promised.warnings == ()
    onnx_bytes, metadata, _ = read_model_file(model_file)
    gate = Gate(min_side=64)
    write_model_file(
        model_file, onnx_bytes, replace(metadata, policy=replace(promised.policy, gate=gate))
    )
    summary = calibrate_model(model_file, manifest, fpr=0.02)
    assert summary.warnings == (
        "the file's promise of at most 5% of photos with real damage called synthetic is gone; --alpha makes one",
        "the file's limits on photos too poor to judge went with its thresholds; set new ones: realdamage gate",
    )


def test_a_promise_that_photos_cannot_keep_is_refused_before_one_is_read(
    model_file: Path, write_photos: WritePhotos
) -> None:
    before = model_file.read_bytes()
    manifest = write_photos(of_products(60, per_product=2))
    for file in manifest.root.glob("*.png"):
        file.write_bytes(b"not a picture")
    with pytest.raises(
        RealDamageError, match=r"30 independent .* takes 59 .* is 9.51%: ask for alpha=0.0951"
    ):
        calibrate_model(model_file, manifest, alpha=0.05)
    assert model_file.read_bytes() == before


def test_unreadable_photos_cannot_carry_a_promise(
    model_file: Path, write_photos: WritePhotos
) -> None:
    before = model_file.read_bytes()
    manifest = write_photos(of_products(59))
    (manifest.root / "policyreal7.png").write_bytes(b"not a picture")
    with pytest.raises(RealDamageError, match="58 independent really damaged photos"):
        calibrate_model(model_file, manifest, alpha=0.05, on_error="skip")
    assert model_file.read_bytes() == before


def test_photos_that_chose_the_checkpoint_promise_only_when_named(
    model_file: Path, write_photos: WritePhotos
) -> None:
    manifest = write_photos(
        [*of_products(59, "val"), *of_products(59, "test"), *photos("train", 3)]
    )
    with pytest.raises(
        ManifestError, match=r"no split 'policy' \(found: test, train, val\).*name --split val"
    ):
        calibrate_model(model_file, manifest, alpha=0.05)
    onnx_bytes, metadata, _ = read_model_file(model_file)
    known = replace(metadata, training={"manifest_sha256": manifest.digest()})
    write_model_file(model_file, onnx_bytes, known)
    summary = calibrate_model(model_file, manifest, "val", alpha=0.05)
    assert summary.policy.guarantee is not None
    assert summary.notes == (
        "the model's checkpoint was chosen on these val photos; the promise may claim too much",
    )
    assert "note          the model's checkpoint" in summary_text(summary)
    assert (
        "no longer independent"
        in calibrate_model(model_file, manifest, "test", alpha=0.05).notes[0]
    )


def test_a_manifest_is_known_again_without_the_rows_that_training_left_out(
    model_file: Path, write_photos: WritePhotos
) -> None:
    rows = [{**row, "source": "shop"} for row in of_products(59)]
    manifest = write_photos([*rows, *({**row, "source": "other"} for row in photos("train", 3))])
    digest = manifest.subset(manifest.table["split"] == "policy").digest()
    onnx_bytes, metadata, _ = read_model_file(model_file)
    training = {"manifest_sha256": digest, "excluded": {"source": ["other"], "colour": ["red"]}}
    write_model_file(model_file, onnx_bytes, replace(metadata, training=training))
    assert calibrate_model(model_file, manifest, alpha=0.05).notes == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fpr": 0.01, "alpha": 0.05}, "fpr and alpha set the same threshold"),
        ({"miss": 0.01, "beta": 0.05}, "miss and beta set the same threshold"),
        ({"delta": 0.05}, "delta is the risk of a promise; give alpha or beta with it"),
        ({"alpha": 1.5}, "alpha=1.5 must be above 0 and below 1"),
        ({"alpha": 0.05, "delta": 0.0}, "delta=0.0 must be above 0"),
        ({"fpr": 1.0}, "fpr=1.0 must be at least 0 and below 1"),
        ({"calibration": "beta"}, "calibration='beta' is unknown"),
        ({"alpha": 0.05, "split": "train"}, "split=train"),
    ],
)
def test_options_that_contradict_each_other_are_usage_errors(
    model_file: Path, write_photos: WritePhotos, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        calibrate_model(model_file, write_photos(photos("train", 2)), **options)


def test_a_rate_goes_with_the_other_sides_promise(
    model_file: Path, write_photos: WritePhotos
) -> None:
    summary = calibrate_model(model_file, write_photos(of_products(59)), alpha=0.05, miss=0.2)
    assert (summary.policy.fpr, summary.policy.miss) == (0.05, 0.2)
    assert summary.called_real == pytest.approx(11 / 59)


def test_an_isotonic_curve_travels_in_the_file(model_file: Path, write_photos: WritePhotos) -> None:
    manifest = write_photos(photos("policy"))
    summary = calibrate_model(model_file, manifest, calibration="auto")
    assert summary.brier is not None
    assert set(summary.brier) == {"platt", "isotonic"}
    told = ", ".join(f"{method} {brier:.4f}" for method, brier in summary.brier.items())
    assert f"{told}; took {summary.calibration.method}" in summary_text(summary)
    summary = calibrate_model(model_file, manifest, calibration="isotonic")
    assert "isotonic, " in summary_text(summary)
    predictions, _ = score_manifest(Detector.load(model_file), manifest)
    by_score = predictions.sort_values("score")["probability"]
    assert by_score.is_monotonic_increasing
    assert 0 < by_score.iloc[0] < by_score.iloc[-1] < 1
    synthetic = predictions["label"] == "synthetic"
    # Isotonic regression keeps the mean, but for the clipping at both ends.
    assert by_score.mean() == pytest.approx(synthetic.mean(), abs=0.03)
    assert Detector.load(model_file).metadata.calibration == summary.calibration


def test_unreadable_photos_stop_it_or_are_counted(
    model_file: Path, write_photos: WritePhotos
) -> None:
    manifest = write_photos(photos())
    (manifest.root / "real0.png").write_bytes(b"not a picture")
    with pytest.raises(PhotoError, match=r"real0\.png"):
        calibrate_model(model_file, manifest)
    summary = calibrate_model(model_file, manifest, on_error="skip")
    assert (summary.unreadable, summary.policy.photos["real"]) == (1, 29)


@pytest.mark.parametrize("demo", [False, True])
def test_every_page_counts_what_the_thresholds_and_the_whole_photo_rule_do(
    demo: bool, model_file: Path, write_photos: WritePhotos
) -> None:
    onnx_bytes, metadata, _ = read_model_file(model_file)
    write_model_file(model_file, onnx_bytes, replace(metadata, demo=demo))
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for index, red in enumerate(rng.normal(100, 25, 60)):
        rows.append(
            {"file_name": f"real{index}.png", "label": "real", "kind": "damaged", "red": int(red)}
        )
    for index, red in enumerate(rng.normal(230, 20, 60).clip(0, 255)):
        # Every third is red all over, which the whole-photo rule leaves to a person.
        mask = f"mask{index}.png" if index % 3 else ""
        about = {"kind": "ai_region", "generator": "maker", "mask_file_name": mask}
        rows.append(
            {"file_name": f"edit{index}.png", "label": "synthetic", "red": int(red), **about}
        )
    manifest = write_photos(rows)

    summary = calibrate_model(model_file, manifest, threads=1)
    suite = suite_from_config({"perturbations": {}})
    scoring = Scoring(model_file.parent / "run", "m", threads=1, workers=1)
    scored = score_suite(ModelFile(model_file), manifest, suite, scoring)
    detector = Detector.load(model_file, threads=1)
    metrics = all_figures(scored, detector.metadata)
    assert 0.2 < summary.caught < 0.7
    assert metrics["per_kind"]["ai_region"]["called_synthetic"] == pytest.approx(summary.caught)
    report = build_report((scored.predictions, metrics), detector=detector, manifest=manifest)
    told = {headline.key: headline.value for headline in report.headlines}
    assert told["review"] == pytest.approx(summary.review)
    assert told["missed"] == pytest.approx(summary.called_real)
    assert told["false_alarms"] == pytest.approx(summary.called_synthetic)
    sample = cost_sample(scored.predictions)
    outcomes = sample.outcomes(summary.policy.t_real, summary.policy.t_synthetic)
    assert (outcomes[sample.synthetic] == REFUSED).mean() == pytest.approx(summary.caught)
    np.testing.assert_array_equal(outcomes, sample.judged)
    figures = {
        row.figure: row.a
        for row in compare_models(scored.predictions, scored.predictions, n_boot=2).figures
    }
    balanced = (summary.caught + 1 - summary.called_synthetic) / 2
    assert figures["balanced_at_thresholds"] == pytest.approx(balanced)

    page = report_page(report)
    assert page.count("demonstration model") == demo
    assert page.find("demonstration model") < page.index("In short")
    assert summary_text(summary).count("demonstration model") == demo
    assert ("demonstration model" in summary_text(summary).splitlines()[0]) == demo
    # Also where the model's file is gone.
    without = build_report(
        (scored.predictions, metrics | {"run": {"demo": demo}}), manifest=manifest
    )
    assert page.count("demonstration model") == sum(
        "demonstration model" in note for note in without.notes
    )
