"""A verdict travels as JSON; its regions and its picture show the heat where it is."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realdamage import Verdict
from realdamage.core.detector import Detector
from realdamage.core.overlay import draw_overlay
from realdamage.core.quality import PhotoQuality
from realdamage.core.tiles import read_photo
from realdamage.core.verdict import Reason, Region, find_regions
from realdamage.errors import PhotoError, RealDamageError, UsageError

Models, Photos = Callable[..., Path], Callable[..., np.ndarray]
VERDICT = Verdict(
    outcome="review",
    score=-0.123456789,
    probability=0.25,
    heatmap=np.random.default_rng(0).random((5, 9), dtype=np.float32),
    cell=16.5,
    regions=(Region((0, 16, 48, 64), 0.75), Region((100, 0, 116, 16), 0.5)),
    reasons=(Reason("demo_model", "Nur ein Beispiel – nicht verläßlich."),),
    photo_sha256="ab" * 32,
    graph_sha256="cd" * 32,
    model_version="1.2",
    width=140,
    height=75,
    quality=PhotoQuality(75, 62.0, 0.0625),
    hot_share=0.125,
)


def same_but_heatmap(one, other):
    names = [field.name for field in fields(Verdict) if field.name != "heatmap"]
    return all(getattr(one, name) == getattr(other, name) for name in names)


def test_json_round_trip():
    again = Verdict.from_json(VERDICT.to_json())
    assert same_but_heatmap(again, VERDICT)
    assert again.heatmap is not None
    assert again.heatmap.dtype == np.float32
    assert np.abs(again.heatmap - VERDICT.heatmap).max() <= 1 / 510 + 1e-6
    assert Verdict.from_json(again.to_json()).to_json() == again.to_json()
    text = VERDICT.to_json(heatmap=False)
    assert "\n" not in text
    assert json.loads(text)["heatmap"] is None
    assert same_but_heatmap(Verdict.from_json(text), VERDICT)
    for other in ("", "[]", '{"outcome": "real"}'):
        with pytest.raises(RealDamageError) as caught:
            Verdict.from_json(other)
        assert caught.value.code == "not_a_verdict"
    assert repr(VERDICT) == "Verdict('review', score=-0.12, probability=0.250, 2 regions, 140x75)"


def test_real_verdicts_follow_the_schema(write_red_model, blue_photo):
    jsonschema = pytest.importorskip("jsonschema")
    schema = Verdict.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert set(schema["required"]) == set(schema["properties"]) == set(VERDICT.to_dict())
    photo = blue_photo(160, 96, (32, 32, 96, 64))
    for changes in ({}, {"demo": True}, {"calibration": None}):
        verdict = Detector(write_red_model(**changes)).predict(photo)
        validator.validate(verdict.to_dict())
        validator.validate(verdict.to_dict(heatmap=False))
    wrong = verdict.to_dict() | {"outcome": "fake"}
    assert not validator.is_valid(wrong)


def test_a_verdict_is_saved_as_json_or_as_a_picture(write_red_model, blue_photo, tmp_path):
    rgb, path = blue_photo(160, 96, (32, 32, 96, 64)), tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    detector = Detector(write_red_model())
    by_path, by_pixels = detector(path), detector(rgb)
    by_path.save(tmp_path / "new" / "verdict.json")
    assert Verdict.from_json((tmp_path / "new/verdict.json").read_text()).score == by_path.score
    by_path.save(tmp_path / "one.png")
    by_pixels.save(str(tmp_path / "two.PNG"), rgb)
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.PNG") as two:
        assert np.array_equal(np.asarray(one), np.asarray(two))
    with pytest.raises(UsageError) as caught:
        by_pixels.save(tmp_path / "three.png")
    assert caught.value.code == "no_photo"
    with pytest.raises(UsageError) as caught:
        by_path.save(tmp_path / "verdict.txt")
    assert caught.value.code == "unknown_ending"
    Image.fromarray(255 - rgb).save(path)
    with pytest.raises(PhotoError):
        by_path.overlay()


def heat(*rows):
    """Digits are tenths of heat."""
    return np.array([[int(value) / 10 for value in row] for row in rows], dtype=np.float32)


@pytest.mark.parametrize(
    ("rows", "cell", "size", "boxes"),
    [
        # The largest heat first; corners do not connect.
        (("660000", "660000", "660999"), 10.0, (60, 30), [(0, 0, 20, 30)]),
        (
            ("66600", "66600", "00099", "00099", "00099"),
            10.0,
            (50, 50),
            [(30, 20, 50, 50), (0, 0, 30, 20)],
        ),
        (("99999", "90000", "90999", "90009", "99999"), 10.0, (50, 50), [(0, 0, 50, 50)]),
        (("000", "055", "055", "055"), 16.4, (48, 64), [(16, 16, 48, 64)]),  # at the edge
        (("044444", "404444"), 10.0, (60, 20), []),  # cold
    ],
)
def test_regions(rows, cell, size, boxes):
    assert [region.box for region in find_regions(heat(*rows), cell, size)] == boxes


def test_at_most_twenty_regions():
    checkerboard = (np.indices((10, 10)).sum(axis=0) % 2).repeat(2, axis=0).repeat(3, axis=1)
    assert len(find_regions(checkerboard.astype(np.float32), 1.0, (30, 20))) == 20


@pytest.mark.parametrize("size", [(640, 320), (33, 400)])
def test_heat_and_boxes_lie_over_their_pixels(write_red_model, blue_photo, size):
    width, height = size
    rgb = blue_photo(width, height, (0, 0, width, height // 2))
    detector = Detector.load(write_red_model())
    verdict = detector.predict(rgb)
    for photo in (rgb, read_photo(rgb, detector.pixel_spec).rgb):
        picture = np.asarray(draw_overlay(photo, verdict)).astype(int)
        rows, cols = photo.shape[:2]
        assert picture.shape[1] == cols
        assert picture.shape[0] > rows
        changed = np.abs(picture[:rows] - photo).sum(axis=2)
        assert changed[: int(0.35 * rows)].mean() > 60
        assert changed[int(0.85 * rows) :].mean() < 12
    narrow = replace(verdict, regions=(Region((20, 0, 21, height), 0.9),))
    small = np.asarray(draw_overlay(rgb[::8, ::8], narrow))
    assert (small[: height // 8] == [0, 200, 255]).all(axis=2).any(axis=1).all()
    with pytest.raises(UsageError):
        draw_overlay(rgb, replace(verdict, heatmap=None))
