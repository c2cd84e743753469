"""FraudBench's averages are those worked out on paper, next to the published rows."""

import json

import pytest
from PIL import Image

from realdamage.core.policy import Policy
from realdamage.errors import RealDamageError
from realdamage.evaluation.fraudbench import FIGURES, fraudbench_figures

# Redness decides: score 3 is synthetic, 0.5 review with a probability above 0.5, -3 real.
SYNTHETIC, REVIEW, REAL = 176, 136, 80
PHOTOS = {
    "Books/Negative/Review_1/IMG_1.png": REAL,
    "Books/Negative/Review_1/IMG_2.png": REAL,
    "Books/Negative/Review_2/IMG_1.png": REVIEW,
    "Books/Negative/Review_3/IMG_1.png": SYNTHETIC,
    "Books/Positive/Review_1/IMG_1.png": SYNTHETIC,
    "Books/DeepFake/gpt-image-2/Review_1/IMG_1.png": SYNTHETIC,
    "Books/DeepFake/gpt-image-2/Review_2/IMG_1.png": REVIEW,
    "Books/DeepFake/grok-imagine-image/Review_1/IMG_1.png": REAL,
    "Home & Kitchen/Negative/Review_1/IMG_1.png": REAL,
    "Home & Kitchen/Negative/Review_2/IMG_1.png": REAL,
    "Home & Kitchen/DeepFake/gpt-image-2/Review_1/IMG_1.png": SYNTHETIC,
    "Home & Kitchen/DeepFake/another-model/Review_1/IMG_1.png": REVIEW,
    "Toys/DeepFake/gpt-image-2/Review_1/IMG_1.png": REAL,
}


@pytest.fixture
def benchmark_root(tmp_path):
    for name, red in PHOTOS.items():
        path = tmp_path / "fraudbench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (red, 0, 128)).save(path)
    return tmp_path / "fraudbench"


@pytest.fixture
def judge(save_red_model, tmp_path):
    policy = Policy(
        1.0, -1.0, fpr=0.1, miss=0.1, negatives="damaged", photos={}, whole_photo_share=None
    )
    return save_red_model(tmp_path / "red.onnx", policy=policy)


def test_the_command_prints_the_averages_on_paper_beside_the_published_rows(
    run_command, benchmark_root, judge, tmp_path
):
    done = run_command(
        *("evaluate", "+benchmark=fraudbench", f"checkpoint={judge}"),
        *(f"data.root={benchmark_root}", "shortcuts=false", "workers=1"),
    )
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out/evaluate/metrics.json").read_text())["benchmark"]
    outcome, probability = found["rows"]
    # Books: 3 of 4 real ones kept, 1 of 3 edits found; Home & Kitchen: 2 of 2 and 1 of 2;
    # Toys: no real one, 0 of 1.
    assert outcome["name"] == "outcome synthetic"
    assert outcome["tnr"] == pytest.approx((3 / 4 + 1) / 2)
    assert outcome["tpr gpt-image-2"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert outcome["tpr grok-imagine-image"] == 0
    balanced = ((3 / 4 + 1 / 3) / 2 + (1 + 1 / 2) / 2) / 2
    assert outcome["balanced_accuracy"] == pytest.approx(balanced)
    # F1 of the edits: 2tp / (2tp + fn + fp)
    assert outcome["f1"] == pytest.approx((2 / (2 + 2 + 1) + 2 / (2 + 1) + 0) / 3)
    assert probability["name"] == "probability >= 0.5"
    assert probability["tnr"] == pytest.approx((2 / 4 + 1) / 2)
    assert probability["f1"] == pytest.approx((4 / (4 + 1 + 2) + 1 + 0) / 3)
    assert outcome["tpr nano-banana-2"] is None
    assert (found["n_categories"], found["n_negatives"], found["n_edits"]) == (3, 6, 6)
    assert len(found["published"]) == 20
    assert all(0 <= row[key] <= 1 for row in found["published"] for key in FIGURES)
    assert "ForgeLens [GenImage]" in done.out


@pytest.mark.parametrize(
    ("label", "kind", "code"),
    [("real", "damaged", "one_class"), ("synthetic", "ai_region", "other_layout")],
)
def test_predictions_of_another_set_are_refused(predictions_of, label, kind, code):
    table = predictions_of(
        label=["real", label], kind=["damaged", kind], score=[0.0, 1.0], group="shop/7"
    )
    with pytest.raises(RealDamageError) as error:
        fraudbench_figures(table)
    assert error.value.code == code
