"""A marked region that another photo of the object shows, or does not show."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from realdamage.photo_pairs import Prepared, prepare
from realdamage.photo_pairs.persist import compare_regions, find_differing_damage

RGB = NDArray[np.uint8]
BOX = (180, 140, 260, 200)
SHIFT = (12, 7)


def textured(seed: int) -> RGB:
    """A print with shapes of many sizes, as on a package."""
    rng = np.random.default_rng(seed)
    found = np.full((360, 480, 3), 128, np.uint8)
    for _ in range(400):
        centre = (int(rng.integers(480)), int(rng.integers(360)))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.circle(found, centre, int(rng.integers(3, 16)), colour, -1)
    return found


def scratched(rgb: RGB) -> RGB:
    """With a field of dark and bright lines in BOX."""
    left, top, right, bottom = BOX
    found = rgb.copy()
    found[top:bottom, left:right] = 60
    for step in range(0, right - left, 5):
        end = (left + step, bottom - 1)
        cv2.line(found, (right - 1 - step, top), end, (230, 225, 220), 2)
    return found


def second_shot(rgb: RGB) -> RGB:
    """The same object a little lower and further right, brighter, under other noise."""
    moved = np.roll(rgb, SHIFT, axis=(1, 0)).astype(np.float64)
    noise = np.random.default_rng(9).normal(0, 3, rgb.shape)
    return np.clip(moved * 1.08 + 6 + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photo() -> Prepared:
    return prepare(scratched(textured(1)), "claim")


def test_damage_in_one_photo_only_differs_and_damage_in_both_persists(photo: Prepared) -> None:
    intact, damaged = (
        prepare(second_shot(one), "listing") for one in (textured(1), scratched(textured(1)))
    )
    (found,) = find_differing_damage(photo, intact, [BOX])
    assert found.box == BOX
    assert found.inside < 0.4
    assert found.around > 0.7
    moved = [value + SHIFT[side % 2] for side, value in enumerate(BOX)]
    assert np.abs(np.subtract(found.other_box, moved)).max() <= 2
    assert found.to_dict()["other_box"] == list(found.other_box)
    (compared,) = compare_regions(photo, damaged, [BOX])
    assert compared.inside > 0.7
    assert not compared.is_different


@pytest.mark.parametrize(
    ("other", "boxes"),
    [
        (textured(2), [BOX]),
        (second_shot(textured(1)), []),
        (second_shot(textured(1))[:, 300:], [BOX]),
    ],
    ids=["another object", "nothing marked", "out of the frame"],
)
def test_nothing_is_said_where_nothing_can_be_compared(
    photo: Prepared, other: RGB, boxes: list[tuple[int, int, int, int]]
) -> None:
    listed = prepare(np.ascontiguousarray(other), "listing")
    assert compare_regions(photo, listed, boxes) == ()
