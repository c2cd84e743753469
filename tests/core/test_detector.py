"""From a photo to a verdict, with a network whose answers can be worked out by hand (conftest: redness)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from PIL import Image

from realdamage.core import detector as detector_module
from realdamage.core.detector import Detector, OnnxScorer
from realdamage.core.model_file import ModelMetadata, write_model_file
from realdamage.core.pooling import pool
from realdamage.core.quality import Gate
from realdamage.core.tiles import PixelSpec, cover, read_photo
from realdamage.errors import ModelFileError, PhotoError, UsageError

Photos = Callable[..., np.ndarray]
Models = Callable[..., Path]


def codes(verdict: Any) -> list[str]:
    return [reason.code for reason in verdict.reasons]


def test_an_intact_photo_is_real(write_red_model: Models, blue_photo: Photos) -> None:
    verdict = Detector.load(write_red_model()).predict(blue_photo(150, 100))
    assert verdict.outcome == "real"
    assert verdict.score == pytest.approx(-4, abs=1e-5)
    assert verdict.probability == pytest.approx(1 / (1 + np.exp(6.5)), rel=1e-4)
    assert verdict.heatmap.shape == (7, 10)  # ceil(100 / 16), ceil(150 / 16)
    assert verdict.heatmap == pytest.approx(1 / (1 + np.exp(4)), rel=1e-4)
    assert (verdict.regions, verdict.reasons, verdict.cell) == ((), (), 16)
    assert (verdict.width, verdict.height, verdict.model_version) == (150, 100, "test-1")


def test_a_painted_region_is_found_where_it_is(write_red_model: Models, blue_photo: Photos) -> None:
    verdict = Detector.load(write_red_model()).predict(
        blue_photo(150, 100, (32, 48, 80, 80), (128, 0, 150, 16))
    )
    assert verdict.outcome == "synthetic"
    assert [region.box for region in verdict.regions] == [(32, 48, 80, 80), (128, 0, 150, 16)]
    hot = np.zeros((7, 10), bool)
    hot[3:5, 2:5] = hot[0, 8:10] = True
    assert np.array_equal(verdict.heatmap >= 0.5, hot)


def test_the_score_is_the_pooling_of_all_tiles(
    write_red_model: Models, red_network: bytes, metadata: ModelMetadata, blue_photo: Photos
) -> None:
    photo = read_photo(blue_photo(150, 100, (32, 48, 80, 80)), metadata.pixel_spec)
    logit, evidence = OnnxScorer(red_network)(cover(photo.rgb, metadata.pixel_spec).tiles)
    score = Detector.load(write_red_model()).predict_photo(photo).score
    assert score == pytest.approx(float(pool(logit, evidence, metadata.pooling)), abs=1e-5)


def test_batches_bound_the_scorer_and_change_nothing(
    red_network: bytes, metadata: ModelMetadata, blue_photo: Photos
) -> None:
    sizes: list[int] = []
    network = OnnxScorer(red_network)

    def scorer(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(tiles))
        return network(tiles)

    photo = blue_photo(150, 100, (40, 40, 70, 90))
    in_batches = Detector(scorer, metadata, batch_tiles=7).predict(photo)
    assert set(sizes[:-1]) == {7}
    assert 1 <= sizes[-1] <= 7
    at_once = Detector(scorer, metadata, batch_tiles=1000).predict(photo)
    assert in_batches.score == at_once.score
    assert np.array_equal(in_batches.heatmap, at_once.heatmap)


@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_runs_side_by_side_give_the_numbers_of_one_run_in_the_order_of_the_tiles(
    red_network: bytes, metadata: ModelMetadata, count: int
) -> None:
    side = metadata.pixel_spec.tile
    tiles = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    expected = onnxruntime.InferenceSession(red_network).run(
        ["logit", "evidence"], {"tiles": tiles}
    )
    for threads in (1, 2, 3):
        found = OnnxScorer(red_network, threads=threads)(tiles)
        assert all(
            np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True)
        )


def test_boxes_of_a_photo_above_max_side_are_in_its_own_pixels(
    write_red_model: Models, blue_photo: Photos
) -> None:
    verdict = Detector.load(write_red_model()).predict(blue_photo(640, 320, (128, 64, 384, 192)))
    assert verdict.heatmap.shape == (5, 10)
    assert verdict.cell == pytest.approx(64)
    assert [region.box for region in verdict.regions] == [(128, 64, 384, 192)]
    assert (verdict.width, verdict.height) == (640, 320)


def test_every_kind_of_source_gets_the_same_verdict_alone_and_in_a_list(
    write_red_model: Models, blue_photo: Photos, tmp_path: Path
) -> None:
    rgb = blue_photo(90, 60, (0, 0, 32, 32))
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    detector = Detector.load(write_red_model())
    sources = [path, str(path), path.read_bytes(), Image.fromarray(rgb), rgb]
    alone = [detector.predict(source) for source in sources]
    assert [verdict.score for verdict in detector.predict(sources)] == [alone[0].score] * 5
    assert [verdict.score for verdict in alone] == [alone[0].score] * 5
    assert alone[0].photo_sha256 == alone[2].photo_sha256
    assert alone[3].photo_sha256 == alone[4].photo_sha256 != alone[0].photo_sha256


def test_a_rotated_phone_photo_is_judged_upright(
    write_red_model: Models, blue_photo: Photos
) -> None:
    rgb = blue_photo(96, 64, (64, 0, 96, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.rot90(rgb))).save(buffer, "PNG", exif=exif)
    verdict = Detector.load(write_red_model()).predict(buffer.getvalue())
    assert (verdict.width, verdict.height) == (96, 64)
    assert [region.box for region in verdict.regions] == [(64, 0, 96, 32)]


def test_an_unreadable_photo_in_a_list_is_named(
    write_red_model: Models, blue_photo: Photos
) -> None:
    with pytest.raises(PhotoError, match=r"^photo 1 of the list: the file is empty"):
        Detector.load(write_red_model()).predict([blue_photo(64, 64), b""])


def test_an_unreadable_photo_may_stand_in_the_place_of_its_verdict(
    write_red_model: Models, blue_photo: Photos, tmp_path: Path
) -> None:
    detector = Detector.load(write_red_model())
    photos = [b"", blue_photo(64, 64), tmp_path / "none.jpg", blue_photo(64, 64)]
    found = detector.predict(photos, on_error="return")
    assert [type(one).__name__ for one in found] == [
        "PhotoError",
        "Verdict",
        "PhotoError",
        "Verdict",
    ]
    assert str(found[0]).startswith("photo 0 of the list: the file is empty")
    assert str(tmp_path / "none.jpg") in str(found[2])
    assert isinstance(detector.predict(b"", on_error="return"), PhotoError)
    assert detector.predict([], on_error="return") == []
    with pytest.raises(UsageError, match="on_error='skip' must be 'raise' or 'return'"):
        detector.predict(photos, on_error="skip")  # type: ignore[call-overload]


def test_between_the_thresholds_a_person_looks(
    write_red_model: Models, metadata: ModelMetadata, blue_photo: Photos
) -> None:
    policy = replace(metadata.policy, t_real=-10.0)
    verdict = Detector.load(write_red_model(policy=policy)).predict(blue_photo(64, 64))
    assert (verdict.outcome, codes(verdict)) == ("review", ["between_thresholds"])


@pytest.mark.parametrize("missing", ["calibration", "policy"])
def test_an_uncalibrated_model_never_decides(
    write_red_model: Models, blue_photo: Photos, missing: str
) -> None:
    verdict = Detector.load(write_red_model(**{missing: None})).predict(
        blue_photo(64, 64, (0, 0, 64, 64))
    )
    assert (verdict.outcome, codes(verdict)) == ("review", ["not_calibrated"])
    assert (verdict.probability is None) == (missing == "calibration")


def test_a_demo_model_says_synthetic_only_when_allowed(
    write_red_model: Models, blue_photo: Photos
) -> None:
    path = write_red_model(demo=True)
    photo = blue_photo(96, 96, (0, 0, 48, 48))
    verdict, allowed = (
        Detector.load(path, allow_demo=allow).predict(photo) for allow in (False, True)
    )
    assert (verdict.outcome, codes(verdict)) == ("review", ["demo_model"])
    assert (allowed.outcome, codes(allowed)) == ("synthetic", [])
    assert verdict.score == allowed.score


@pytest.mark.parametrize(
    ("width", "outcome", "reasons"),
    [
        (144, "review", ["whole_photo_processed"]),
        (128, "synthetic", []),
    ],  # 90% and 80% of the patches
)
def test_uniform_evidence_goes_to_review(
    write_red_model: Models, blue_photo: Photos, width: int, outcome: str, reasons: list[str]
) -> None:
    photo = blue_photo(160, 64, (0, 0, width, 64))
    verdict = Detector.load(write_red_model()).predict(photo)
    assert (verdict.outcome, codes(verdict)) == (outcome, reasons)


def test_the_whole_photo_rule_can_be_switched_off(
    write_red_model: Models, metadata: ModelMetadata, blue_photo: Photos
) -> None:
    policy = replace(metadata.policy, whole_photo_share=None)
    assert (
        Detector.load(write_red_model(policy=policy))
        .predict(blue_photo(64, 64, (0, 0, 64, 64)))
        .outcome
        == "synthetic"
    )


def test_a_prior_moves_the_probability_and_nothing_else(
    write_red_model: Models, metadata: ModelMetadata, blue_photo: Photos
) -> None:
    path, photo = write_red_model(), blue_photo(64, 64)
    plain, rare = (
        Detector.load(path).predict(photo),
        Detector.load(path, prior=0.001).predict(photo),
    )
    assert (
        rare.probability == metadata.calibration.probability(plain.score, 0.001) < plain.probability
    )
    assert (rare.outcome, rare.score) == (plain.outcome, plain.score)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"prior": 1.0}, {}, r"prior=1\.0 must be above 0 and below 1"),
        ({"prior": 0.1}, {"calibration": None}, "a prior needs a calibrated model"),
        ({"threads": 0}, {}, "threads=0 must be at least 1"),
        (
            {"providers": ["AbacusExecutionProvider"]},
            {},
            "no provider 'AbacusExecutionProvider'; it has .*CPU",
        ),
    ],
)
def test_wrong_options_are_refused(
    write_red_model: Models, options: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Detector.load(write_red_model(**changes), **options)


def test_without_a_packaged_model_the_error_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_red_model: Models
) -> None:
    monkeypatch.setattr(detector_module, "PACKAGED_MODEL", tmp_path / "no.onnx")
    with pytest.raises(ModelFileError, match=r"no reference model.*realdamage-export"):
        Detector.load()
    monkeypatch.setattr(detector_module, "PACKAGED_MODEL", write_red_model())
    assert Detector.load().metadata.model_version == "test-1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tiles", "images", "breaks the contract: input tiles uint8"),
        ("logit", "score", "breaks the contract: input tiles uint8"),
        ("Sub", "Subtract", r"onnxruntime .* cannot load the graph"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(
    tmp_path: Path, metadata: ModelMetadata, red_network: bytes, old: str, new: str, message: str
) -> None:
    text = re.sub(rf"\b{old}\b", new, onnx.printer.to_text(onnx.load_from_string(red_network)))
    path = tmp_path / "broken.onnx"
    write_model_file(path, onnx.parser.parse_model(text).SerializeToString(), metadata)
    with pytest.raises(ModelFileError, match=rf"broken\.onnx: .*{message}"):
        Detector.load(path)


def test_a_graph_for_other_tiles_is_an_error(write_red_model: Models, blue_photo: Photos) -> None:
    with pytest.raises(ModelFileError, match=r"the model fails on tiles \[1, 64, 64, 3\]"):
        Detector.load(write_red_model(pixel_spec=PixelSpec(tile=64, max_side=64))).predict(
            blue_photo(64, 64)
        )


@pytest.mark.parametrize(
    ("side", "value", "message"),
    [
        (2, np.nan, "not finite numbers"),
        (4, 0.0, r"evidence \[\d+, 4, 4\], but its metadata says 2x2"),
    ],
)
def test_a_network_that_answers_nonsense_is_an_error_and_not_a_verdict(
    metadata: ModelMetadata, blue_photo: Photos, side: int, value: float, message: str
) -> None:
    def scorer(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(tiles), np.float32), np.full(
            (len(tiles), side, side), value, np.float32
        )

    with pytest.raises(ModelFileError, match=message):
        Detector(scorer, metadata).predict(blue_photo(64, 64))


def test_a_verdict_says_how_much_detail_the_photo_has(
    write_red_model: Models, blue_photo: Photos
) -> None:
    rgb = blue_photo(640, 320, (160, 96, 416, 224))
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=40)
    detector = Detector.load(write_red_model())
    verdict, as_array = detector.predict(buffer.getvalue()), detector.predict(rgb)
    assert verdict.quality is not None
    assert verdict.quality.short_side == 320
    assert verdict.quality.compression == 40
    assert as_array.quality is not None
    assert as_array.quality.compression == 100
    assert as_array.quality.sharpness > 0.4
    assert as_array.hot_share == pytest.approx(np.mean(as_array.heatmap >= 0.5))
    assert 0.1 < as_array.hot_share < 0.4


@pytest.mark.parametrize(
    ("gate", "reasons"),
    [
        (Gate(min_side=65), ["too_small"]),
        (Gate(min_side=65, min_quality=100, min_sharpness=0.99), ["too_small", "too_blurred"]),
        (Gate(min_fine_detail=10.0), ["too_soft"]),
        (Gate(min_side=64, min_quality=100), []),
    ],
)
@pytest.mark.parametrize("boxes", [(), ((0, 0, 32, 32),)])
def test_a_gate_sends_poor_photos_to_review_whatever_they_look_like(
    write_red_model: Models,
    metadata: ModelMetadata,
    blue_photo: Photos,
    gate: Gate,
    reasons: list[str],
    boxes: tuple[tuple[int, int, int, int], ...],
) -> None:
    assert metadata.policy is not None
    photo = blue_photo(96, 64, *boxes)
    free = Detector.load(write_red_model()).predict(photo)
    gated = Detector.load(write_red_model(policy=replace(metadata.policy, gate=gate))).predict(
        photo
    )
    assert free.outcome == ("synthetic" if boxes else "real")
    assert (gated.outcome, codes(gated)) == ("review" if reasons else free.outcome, reasons)
    assert (gated.score, gated.quality) == (free.score, free.quality)


def test_a_gate_stays_behind_the_other_reasons(
    write_red_model: Models, metadata: ModelMetadata, blue_photo: Photos
) -> None:
    policy = replace(metadata.policy, t_real=-10.0, gate=Gate(min_side=65))
    verdict = Detector.load(write_red_model(policy=policy)).predict(blue_photo(64, 64))
    assert (verdict.outcome, codes(verdict)) == ("review", ["between_thresholds", "too_small"])
    uncalibrated = Detector.load(write_red_model(policy=policy, calibration=None)).predict(
        blue_photo(64, 64)
    )
    assert codes(uncalibrated) == ["not_calibrated"]
