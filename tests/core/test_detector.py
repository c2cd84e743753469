"""From a photo to a verdict, with a network whose answers can be worked out by hand (conftest:
redness)."""

import itertools
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from PIL import Image

from realdamage.core import detector as detector_module
from realdamage.core.detector import Detector
from realdamage.core.model_file import write_model_file
from realdamage.core.pooling import pool
from realdamage.core.quality import Gate
from realdamage.core.scorer import OnnxScorer
from realdamage.core.tiles import cover, read_photo
from realdamage.errors import MissingExtraError, ModelFileError, PhotoError, UsageError
from realdamage.phrases import phrase

Photos = Callable[..., np.ndarray]


@pytest.fixture
def detector(write_red_model):
    return Detector(write_red_model())


def codes(verdict):
    return [reason.code for reason in verdict.reasons]


def test_an_intact_photo_is_real(detector, blue_photo):
    verdict = detector(blue_photo(150, 100))
    assert verdict.outcome == "real"
    assert verdict.score == pytest.approx(-4, abs=1e-5)
    assert verdict.probability == pytest.approx(1 / (1 + np.exp(4)), rel=1e-4)
    assert verdict.heatmap.shape == (7, 10)  # ceil(100 / 16), ceil(150 / 16)
    assert verdict.heatmap == pytest.approx(1 / (1 + np.exp(4)), rel=1e-4)
    assert (verdict.regions, verdict.reasons, verdict.cell) == ((), (), 16)
    assert (verdict.width, verdict.height, verdict.model_version) == (150, 100, "test-1")


def test_a_painted_region_is_found_where_it_is(detector, blue_photo):
    boxes = [(32, 48, 80, 80), (112, 0, 150, 32)]
    verdict = detector(blue_photo(150, 100, *boxes))
    assert verdict.outcome == "synthetic"
    assert sorted(region.box for region in verdict.regions) == boxes
    hot = np.zeros((7, 10), bool)
    hot[3:5, 2:5] = hot[:2, 7:10] = True
    assert np.array_equal(verdict.heatmap >= 0.5, hot)
    large = detector(blue_photo(640, 320, (128, 64, 384, 192)))  # above max_side
    assert (large.heatmap.shape, large.width, large.height) == ((5, 10), 640, 320)
    assert large.cell == pytest.approx(64)
    assert [region.box for region in large.regions] == [(128, 64, 384, 192)]


def test_the_score_is_the_pooling_of_all_tiles_in_batches(
    detector, red_network, blue_photo, monkeypatch
):
    sizes = []
    network, metadata = OnnxScorer(red_network), detector.metadata

    def scorer(tiles):
        sizes.append(len(tiles))
        return network(tiles)

    photo = read_photo(blue_photo(150, 100, (40, 40, 70, 90)), metadata.pixel_spec)
    tiles = cover(photo.rgb, metadata.pixel_spec).tiles
    expected = detector.predict_photo(photo)
    assert expected.score == pytest.approx(float(pool(*network(tiles), metadata.pooling)), abs=1e-5)
    monkeypatch.setattr(detector_module, "BATCH_TILES", 7)
    in_batches = Detector(scorer, metadata).predict_photo(photo)
    assert set(sizes[:-1]) == {7}
    assert sum(sizes) == len(tiles)
    assert in_batches.score == expected.score
    assert np.array_equal(in_batches.heatmap, expected.heatmap)


def test_runs_side_by_side_give_the_numbers_of_one_run(red_network):
    tiles = np.random.default_rng(0).integers(0, 256, (33, 32, 32, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(red_network)
    for given in (tiles[:1], tiles):
        expected = session.run(["logit", "evidence"], {"tiles": given})
        for threads in (1, 3):
            found = OnnxScorer(red_network, threads=threads)(given)
            assert all(map(np.array_equal, found, expected))


def test_every_kind_of_source_gets_the_same_verdict(detector, blue_photo, tmp_path):
    rgb, path = blue_photo(90, 60, (0, 0, 32, 32)), tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    sources = [path, str(path), path.read_bytes(), Image.fromarray(rgb), rgb]
    alone = [detector.predict(source) for source in sources]
    assert [verdict.score for verdict in detector.predict(sources)] == [alone[0].score] * 5
    assert [verdict.score for verdict in alone] == [alone[0].score] * 5
    assert alone[0].photo_sha256 == alone[2].photo_sha256
    assert alone[3].photo_sha256 == alone[4].photo_sha256 != alone[0].photo_sha256


def test_an_error_may_take_the_place_of_a_verdict(detector, blue_photo, tmp_path):
    photos = [b"", blue_photo(64, 64), tmp_path / "none.jpg", blue_photo(64, 64)]
    found = detector.predict(iter(photos), on_error="return")
    assert [isinstance(one, PhotoError) for one in found] == [True, False, True, False]
    assert str(found[0]).startswith("photo 0 of the list: the file is empty")
    assert str(tmp_path / "none.jpg") in str(found[2])
    assert isinstance(detector.predict(b"", on_error="return"), PhotoError)
    assert detector.predict([], on_error="return") == []
    with pytest.raises(PhotoError, match="photo 1 of the list"):
        detector.predict([photos[1], b""])
    with pytest.raises(UsageError, match="skip"):
        detector.predict(photos, on_error="skip")


def test_photos_are_read_one_ahead(detector, blue_photo):
    given = []

    def endless():
        for number in itertools.count():
            given.append(number)
            yield blue_photo(64, 64)

    verdicts = detector.predict_each(endless())
    assert given == []
    assert [next(verdicts).outcome for _ in range(3)] == ["real"] * 3
    assert len(given) <= 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"calibration": None}, "not_calibrated"),
        ({"policy": None}, "not_calibrated"),
        ({"demo": True}, "demo_model"),
    ],
)
def test_an_uncalibrated_or_demo_model_never_decides(write_red_model, blue_photo, changes, reason):
    path, photo = write_red_model(**changes), blue_photo(96, 96, (0, 0, 48, 48))
    verdict = Detector(path)(photo)
    assert (verdict.outcome, codes(verdict)) == ("review", [reason])
    assert (verdict.probability is None) == ("calibration" in changes)
    allowed = Detector(path, allow_demo=True)(photo)
    assert allowed.outcome == ("synthetic" if "demo" in changes else "review")
    assert allowed.score == verdict.score


SMALL, LARGE = Gate(min_side=64, min_quality=100), Gate(min_side=65)


@pytest.mark.parametrize(
    ("changes", "boxes", "outcome", "reasons"),
    [
        ({"t_real": -10.0}, [], "review", ["between_thresholds"]),
        ({}, [(0, 0, 144, 64)], "review", ["whole_photo_processed"]),  # 90% of the patches
        ({}, [(0, 0, 128, 64)], "synthetic", []),
        ({"whole_photo_share": None}, [(0, 0, 160, 64)], "synthetic", []),
        ({"gate": LARGE}, [(0, 0, 32, 32)], "review", ["too_small"]),
        ({"gate": SMALL}, [], "real", []),
        ({"gate": LARGE, "t_real": -10.0}, [], "review", ["between_thresholds", "too_small"]),
    ],
)
def test_the_policy_decides(
    write_red_model, red_metadata, blue_photo, changes, boxes, outcome, reasons
):
    policy, photo = replace(red_metadata.policy, **changes), blue_photo(160, 64, *boxes)
    verdict = Detector(write_red_model(policy=policy)).predict(photo)
    assert (verdict.outcome, codes(verdict)) == (outcome, reasons)
    assert verdict.score == Detector(write_red_model()).predict(photo).score


def test_a_photo_that_was_shrunk_much_is_not_called_synthetic(
    write_red_model, red_metadata, blue_photo
):
    """Photos are judged at 160 pixels here: 80% of 200, half of 320."""
    detector = Detector(write_red_model(policy=replace(red_metadata.policy, min_scale=0.75)))
    little = detector.predict(blue_photo(200, 100, (40, 20, 100, 50)))
    assert (little.outcome, codes(little)) == ("synthetic", [])
    much = detector.predict(blue_photo(320, 160, (64, 32, 160, 80)))
    assert (much.outcome, codes(much)) == ("review", ["shrunk"])


@pytest.mark.parametrize(
    ("options", "changes", "found"),
    [
        ({"prior": 1.0}, {}, r"prior=1\.0"),
        ({"prior": 0.1}, {"calibration": None}, "calibrate"),
        ({"threads": 0}, {}, "threads=0"),
        ({"device": "cuda"}, {}, "onnxruntime-gpu"),
        ({"device": "tpu"}, {}, "device='tpu'"),
    ],
)
def test_wrong_options_are_refused(write_red_model, options, changes, found):
    with pytest.raises(UsageError, match=found):
        Detector(write_red_model(**changes), **options)


def test_cuda_never_falls_back_to_the_cpu_silently(red_network, monkeypatch):
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    on_cpu = Mock(get_providers=lambda: both[1:])  # what it makes when it finds no CUDA driver
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: on_cpu)
    with pytest.raises(UsageError) as caught:
        OnnxScorer(red_network, device="cuda")
    assert caught.value.code == "no_cuda"


@pytest.mark.parametrize(("old", "new"), [("tiles", "images"), ("logit", "score"), ("Sub", "Add2")])
def test_a_graph_that_breaks_the_contract_is_refused(tmp_path, red_metadata, red_network, old, new):
    text = re.sub(rf"\b{old}\b", new, onnx.printer.to_text(onnx.load_from_string(red_network)))
    path = tmp_path / "broken.onnx"
    write_model_file(path, onnx.parser.parse_model(text).SerializeToString(), red_metadata)
    with pytest.raises(ModelFileError, match=r"broken\.onnx: "):
        Detector(path)


@pytest.mark.parametrize(("side", "value"), [(2, np.nan), (4, 0.0)])
def test_a_network_that_answers_nonsense_is_an_error_and_not_a_verdict(
    red_metadata, blue_photo, side, value
):
    def scorer(tiles):
        evidence = np.full((len(tiles), side, side), value, np.float32)
        return np.zeros(len(tiles), np.float32), evidence

    with pytest.raises(ModelFileError):
        Detector(scorer, red_metadata).predict(blue_photo(64, 64))
    with pytest.raises(UsageError):
        Detector(scorer)


def test_the_packaged_model_is_the_default(monkeypatch, write_red_model):
    monkeypatch.setattr(detector_module, "PACKAGED_MODEL", write_red_model())
    for detector in (Detector(), Detector.load(), Detector(write_red_model())):
        assert detector.metadata.model_version == "test-1"
        assert len(detector.policy_sha256) == 64
    assert repr(detector) == f"Detector('test-1', graph {detector.graph_sha256[:12]}, calibrated)"


def test_detectors_and_errors_can_be_pickled(write_red_model, blue_photo):
    detector = Detector(write_red_model(), threads=2, prior=0.1)
    again = pickle.loads(pickle.dumps(detector))
    photo = blue_photo(96, 64, (0, 0, 32, 32))
    assert again.predict(photo).to_json() == detector.predict(photo).to_json()
    for error in (MissingExtraError("a command", "claims"), PhotoError("b", [phrase("absence")])):
        found = pickle.loads(pickle.dumps(error))
        assert (type(found), str(found)) == (type(error), str(error))
        assert vars(found) == vars(error)
