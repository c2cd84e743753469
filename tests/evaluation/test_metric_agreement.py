"""Our figures agree with those of scikit-learn and torchmetrics to 1e-6, on random photos and where
formulas break: ties everywhere, one photo of a class, all scores equal, classes entirely apart."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    jaccard_score,
    roc_auc_score,
    roc_curve,
)
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryF1Score,
    BinaryJaccardIndex,
    MulticlassAccuracy,
)

from realdamage.data.bootstrap import WeightedRoc
from realdamage.evaluation.figures import (
    N_BINS,
    calibration_errors,
    equal_mass_bins,
    photo_metrics,
    tpr_at_fpr,
)
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import PatchEvidence, predictions_table
from realdamage.evaluation.slices import robustness_table, slice_table

property_test = settings(max_examples=30, deadline=None, derandomize=True)
TOLERANCE = 1e-6
RATES = (0.0, 0.005, 0.01, 0.05, 0.5, 1.0)

# Halves between -3 and 3: ties are the rule, and exact in float32, in which torchmetrics counts.
halves = st.integers(-6, 6).map(lambda value: value / 2)


def classes(most):
    """Scores of real and of synthetic photos, at most so many of each."""
    some, one = (st.lists(halves, min_size=1, max_size=size) for size in (most, 1))

    def equal(score):
        return st.integers(1, most).map(lambda n: [score] * n)

    constant = [
        st.tuples(equal(low), equal(high)) for low, high in ((0.5, 0.5), (-1.0, 2.0), (2.0, -1.0))
    ]
    return st.one_of(st.tuples(some, some), st.tuples(one, some), st.tuples(some, one), *constant)


def table_of(negatives, positives, group=""):
    score, label = arrays(negatives, positives)
    columns = {
        "file_name": [f"{i}.jpg" for i in range(len(score))],
        "label": np.where(label == 1, "synthetic", "real"),
        "kind": np.where(label == 1, "ai_region", "damaged"),
        "score": score,
        "probability": 1 / (1 + np.exp(-score)),
    }
    return predictions_table(pd.DataFrame(columns).assign(outcome="review", group=group))


def arrays(negatives, positives):
    return np.array([*negatives, *positives]), np.repeat([0, 1], [len(negatives), len(positives)])


@settings(property_test, max_examples=20)
@given(classes(most=40), halves)
def test_every_headline_agrees_with_both_libraries(scores, threshold):
    score, label = arrays(*scores)
    found = photo_metrics(table_of(*scores), threshold=threshold, n_boot=2)
    squashed, target = torch.sigmoid(torch.tensor(score)), torch.tensor(label)
    called = score >= threshold
    balanced = MulticlassAccuracy(2, average="macro")(torch.tensor(called.astype(int)), target)
    average = BinaryAveragePrecision()(squashed, target)
    for key, sklearn, torchmetrics in (
        ("auroc", roc_auc_score(label, score), BinaryAUROC()(squashed, target)),
        ("average_precision", average_precision_score(label, score), average),
        ("balanced_accuracy", balanced_accuracy_score(label, called), balanced),
        ("brier", brier_score_loss(label, squashed.numpy()), ((squashed - target) ** 2).mean()),
    ):
        assert found[key] == pytest.approx(sklearn, abs=TOLERANCE)
        assert found[key] == pytest.approx(torchmetrics.item(), abs=TOLERANCE)


@settings(property_test, max_examples=8)
@given(classes(most=5))
def test_rates_agree_with_the_curve_and_are_the_same_in_every_table(scores):
    # As many photos as the rates take, in two groups of each class.
    negatives, positives = list(scores[0]) * 200, list(scores[1]) * 6
    groups = [f"real{i % 2}" for i in range(len(negatives))]
    groups += [f"synthetic{i % 2}" for i in range(len(positives))]
    table = table_of(negatives, positives, group=groups)
    found = photo_metrics(table, n_boot=2)
    score, label = arrays(negatives, positives)
    false, true, _ = roc_curve(label, score)
    for key, rate in (("tpr_at_fpr_0.5", 0.005), ("tpr_at_fpr_1", 0.01), ("tpr_at_fpr_5", 0.05)):
        assert found[key] == pytest.approx(true[false <= rate].max(), abs=TOLERANCE)
        assert found[f"{key}_all_real"] == found[key]
        assert tpr_at_fpr(score[label == 0], score[label == 1], rate) == pytest.approx(
            found[key], abs=TOLERANCE
        )
    sliced = slice_table(table, ["kind"], n_boot=2).query("kind == 'ai_region'")
    for rows in (sliced, robustness_table(table, n_boot=2)):
        [row] = rows.to_dict(orient="records")
        assert row["auroc"] == pytest.approx(found["auroc"], abs=TOLERANCE)
        assert row["tpr_at_fpr_1"] == pytest.approx(found["tpr_at_fpr_1"], abs=TOLERANCE)


@property_test
@given(classes(most=40), st.integers(0, 2**32 - 1))
def test_resampled_figures_agree_with_scikit_learn_under_any_weights(scores, seed):
    score, label = arrays(*scores)
    weights = np.random.default_rng(seed).integers(0, 4, len(score))
    negative, positive = label == 0, label == 1
    curve = WeightedRoc(score, positive)
    # Two draws at once: the second is the sample itself.
    found = curve.figures([weights, np.ones(len(score))], RATES)[:, 0]
    [average, _] = curve.average_precision([weights, np.ones(len(score))])
    if not weights[negative].any() or not weights[positive].any():
        assert np.isnan(found).all()
        assert math.isnan(average)
        return
    false, true, _ = roc_curve(label, score, sample_weight=weights, drop_intermediate=False)
    reached = [true[false <= rate + 1e-9].max() for rate in RATES]
    assert found[1:] == pytest.approx(reached, abs=TOLERANCE)
    drawn = weights > 0
    expected = average_precision_score(label[drawn], score[drawn], sample_weight=weights[drawn])
    assert average == pytest.approx(expected, abs=TOLERANCE)
    assert found[0] == pytest.approx(
        roc_auc_score(label, score, sample_weight=weights), abs=TOLERANCE
    )


@property_test
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1), st.booleans()),
        min_size=1,
    )
)
def test_the_calibration_error_is_that_of_scikit_learns_curve(rows):
    probability, label = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    true, stated = calibration_curve(label, probability, n_bins=N_BINS, strategy="quantile")
    counts = np.unique(equal_mass_bins(probability), return_counts=True)[1]
    [[found], _] = calibration_errors(probability, label)(np.ones((1, len(rows))))
    assert len(counts) == len(true)
    assert found == pytest.approx(np.abs(true - stated) @ counts / len(rows), abs=TOLERANCE)


@settings(property_test, max_examples=20)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()),
        min_size=2,
        max_size=60,
    )
)
def test_localisation_agrees_with_both_libraries(patches):
    heat, painted = (np.array(column) for column in zip(*patches, strict=True))
    painted[:2] = [True, False]
    photo = PatchEvidence("a.jpg", heat.astype(np.float32)[:, None], painted[:, None])
    found = localisation_metrics([photo], n_boot=2)
    hot, everything = heat >= 0.5, painted >= 0
    target, called, every = (
        torch.tensor(flags.astype(int)) for flags in (painted, hot, everything)
    )
    average = BinaryAveragePrecision()(torch.tensor(heat), target)
    f1, iou = BinaryF1Score(), BinaryJaccardIndex()
    for key, sklearn, torchmetrics in (
        ("pixel_ap", average_precision_score(painted, heat), average),
        ("f1", f1_score(painted, hot, zero_division=0), f1(called, target)),
        ("iou", jaccard_score(painted, hot, zero_division=0), iou(called, target)),
        ("baseline_f1", f1_score(painted, everything), f1(every, target)),
        ("baseline_iou", jaccard_score(painted, everything), iou(every, target)),
    ):
        assert found[key] == pytest.approx(sklearn, abs=TOLERANCE)
        assert found[key] == pytest.approx(torchmetrics.item(), abs=TOLERANCE)
    assert found["best_f1"] == pytest.approx(
        max(f1_score(painted, heat >= each) for each in np.unique(heat))
    )
