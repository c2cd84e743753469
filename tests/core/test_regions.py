"""Boxes enclose what is hot, in pixels of the photo."""

from __future__ import annotations

import numpy as np
import pytest

from realdamage.core.verdict import find_regions


def heat(*rows: str) -> np.ndarray:
    """Digits are tenths of heat."""
    return np.array([[int(value) / 10 for value in row] for row in rows], dtype=np.float32)


def test_connected_areas_become_boxes_largest_heat_first() -> None:
    regions = find_regions(heat("900000", "000066", "000066", "000000"), 10.0, (60, 40))
    assert [region.box for region in regions] == [(40, 10, 60, 30), (0, 0, 10, 10)]
    assert [region.probability for region in regions] == pytest.approx([0.6, 0.9])


def test_corners_do_not_connect() -> None:
    assert len(find_regions(heat("90", "09"), 10.0, (20, 20))) == 2


def test_a_winding_area_is_one_region() -> None:
    regions = find_regions(heat("99999", "90000", "90999", "90009", "99999"), 10.0, (50, 50))
    assert [region.box for region in regions] == [(0, 0, 50, 50)]


def test_boxes_round_outwards_and_end_at_the_photo() -> None:
    assert find_regions(heat("00", "05"), 16.4, (30, 29))[0].box == (16, 16, 30, 29)


def test_nothing_hot_is_no_region() -> None:
    assert find_regions(heat("044", "404"), 10.0, (30, 20)) == ()


def test_at_most_so_many() -> None:
    checkerboard = (np.indices((10, 10)).sum(axis=0) % 2).astype(np.float32)
    assert len(find_regions(checkerboard, 1.0, (10, 10))) == 20
    assert len(find_regions(checkerboard, 1.0, (10, 10), limit=3)) == 3
