"""The picture shows the heat where it is, and says the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realdamage.core.detector import Detector
from realdamage.core.overlay import caption, draw_overlay
from realdamage.core.tiles import read_photo
from realdamage.core.verdict import Region
from realdamage.errors import UsageError


@pytest.mark.parametrize("size", [(150, 100), (640, 320), (33, 400)])
def test_heat_and_boxes_lie_over_their_pixels(
    write_red_model: Callable[..., Path],
    blue_photo: Callable[..., np.ndarray],
    size: tuple[int, int],
) -> None:
    width, height = size
    rgb = blue_photo(width, height, (0, 0, width, height // 2))
    detector = Detector.load(write_red_model())
    limited = read_photo(rgb, detector.pixel_spec).rgb
    verdict = detector.predict(rgb)
    for photo in (rgb, limited):
        picture = np.asarray(draw_overlay(photo, verdict)).astype(int)
        rows, cols = photo.shape[:2]
        assert picture.shape[1] == cols
        assert picture.shape[0] > rows
        changed = np.abs(picture[:rows] - photo).sum(axis=2)
        hot, cold = changed[: int(0.35 * rows)], changed[int(0.85 * rows) :]
        assert hot.mean() > 60
        assert cold.mean() < 12


def test_the_box_has_its_colour_at_its_edge(
    write_red_model: Callable[..., Path], blue_photo: Callable[..., np.ndarray]
) -> None:
    rgb = blue_photo(160, 96, (32, 32, 96, 64))
    picture = np.asarray(draw_overlay(rgb, Detector.load(write_red_model()).predict(rgb)))
    assert picture[32, 32:96].tolist() == [[0, 200, 255]] * 64
    assert picture[63, 32:96].tolist() == [[0, 200, 255]] * 64
    assert picture[31, 40].tolist() != [0, 200, 255]


def test_the_caption(
    write_red_model: Callable[..., Path], blue_photo: Callable[..., np.ndarray]
) -> None:
    verdict = Detector.load(write_red_model(demo=True)).predict(blue_photo(64, 64))
    assert caption(verdict) == "real | score -4.00 | probability 0.002 | demo_model"
    assert caption(replace(verdict, probability=None, reasons=())) == "real | score -4.00"


def test_without_a_heat_map_there_is_nothing_to_draw(
    write_red_model: Callable[..., Path], blue_photo: Callable[..., np.ndarray]
) -> None:
    rgb = blue_photo(64, 64)
    verdict = Detector.load(write_red_model()).predict(rgb)
    with pytest.raises(UsageError, match="no heat map"):
        draw_overlay(rgb, replace(verdict, heatmap=None))


def test_a_region_narrower_than_a_pixel_of_the_thumbnail(
    write_red_model: Callable[..., Path], blue_photo: Callable[..., np.ndarray]
) -> None:
    rgb = blue_photo(129, 96)
    verdict = replace(
        Detector.load(write_red_model()).predict(rgb), regions=(Region((120, 0, 121, 96), 0.9),)
    )
    picture = np.asarray(draw_overlay(rgb[::8, ::8], verdict))
    assert (picture[:12] == [0, 200, 255]).all(axis=2).any(axis=1).all()
