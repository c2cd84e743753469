"""Perturbations move the mask with the photo, and draw the same for both halves of a pair."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from realdamage.configuration import compose, config_folder, plain
from realdamage.data.degradations import Jpeg
from realdamage.errors import ConfigError
from realdamage.evaluation.perturbations import (
    Perturbation,
    Pixels,
    suite_from_config,
)

SUITES = sorted(path.stem for path in (config_folder() / "robustness").glob("*.yaml"))
RGB = npt.NDArray[np.uint8]
PhotoFactory = Callable[[int, int, int], RGB]


@cache  # a suite of all takes half a second to compose
def suite(name: str, *overrides: str) -> dict[str, Perturbation]:
    config = compose("evaluate", ["checkpoint=x", "data.root=x", f"robustness={name}", *overrides])
    return {each.name: each for each in suite_from_config(plain(config.robustness))}


def of_steps(*steps: dict[str, Any]) -> Perturbation:
    return suite_from_config({"perturbations": {"mine": {"title": "Mine", "steps": list(steps)}}})[
        0
    ]


STANDARD = suite("standard")


def marked(height: int = 240, width: int = 320) -> Pixels:
    """A grey photo with a green square, which the mask covers."""
    mask = np.zeros((height, width), dtype=np.float32)
    mask[height // 2 - 40 : height // 2 + 30, width // 2 - 50 : width // 2 + 20] = 1
    rgb = np.where(mask[..., None] > 0, (20, 220, 30), (128, 128, 128)).astype(np.uint8)
    return Pixels(rgb, mask)


def middle(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    places = np.stack(np.nonzero(weights)) + 0.5
    return np.asarray((places * weights[np.nonzero(weights)]).sum(axis=1) / weights.sum())


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_the_mask_stays_on_what_it_marks(name: str) -> None:
    found = STANDARD[name](marked(), seed=1, key="a")
    assert found.mask is not None
    assert found.rgb.dtype == np.uint8
    assert found.mask.dtype == np.float32
    assert found.mask.shape == found.rgb.shape[:2]
    assert 0 <= found.mask.min() <= found.mask.max() <= 1
    rgb = found.rgb.astype(int)
    green = rgb[..., 1] - np.maximum(rgb[..., 0], rgb[..., 2]) > 60
    assert np.abs(middle(green) - middle(found.mask)).max() < 1
    assert green.sum() == pytest.approx(found.mask.sum(), rel=0.1)


def test_what_is_drawn_depends_on_seed_name_and_pair_alone() -> None:
    photo = marked()
    for name in ("crop_50", "noise_3", "screenshot", "recapture"):
        once = STANDARD[name](photo, seed=0, key="a").rgb
        assert np.array_equal(once, STANDARD[name](photo, seed=0, key="a").rgb)
        for changed in ([(0, f"b{i}") for i in range(4)], [(1 + i, "a") for i in range(4)]):
            others = [STANDARD[name](photo, seed=seed, key=key).rgb for seed, key in changed]
            assert any(not np.array_equal(once, other) for other in others)


def test_both_halves_of_a_pair_get_the_same(photo_factory: PhotoFactory) -> None:
    """They differ after it where they differed before, and nowhere else."""
    original = photo_factory(160, 200, 1)
    edit = original.copy()
    edit[60:90, 70:110] = photo_factory(30, 40, 2)
    for name, reach in (("noise_8", 0), ("blur_noise_jpeg", 24), ("recapture", 32)):
        one, other = (
            STANDARD[name](Pixels(rgb, None), seed=3, key="a").rgb for rgb in (original, edit)
        )
        rows, columns = np.nonzero((one != other).any(axis=-1))
        assert 60 - reach <= rows.min() <= rows.max() < 90 + reach
        assert 70 - reach <= columns.min() <= columns.max() < 110 + reach


def test_a_recapture_shows_what_the_photo_showed() -> None:
    photo = marked()
    found = STANDARD["recapture"](photo, seed=0, key="a")
    assert found.mask is not None
    assert 0.75 < found.mask.sum() / photo.mask.sum() < 1
    assert found.rgb[:3, :3].mean() < 90  # the viewer around the photo


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_composes_and_builds(name: str) -> None:
    built = suite(name)
    assert (len(built) == 0) == (name == "none")
    assert all(each.title and each.steps for each in built.values())
    assert len({each.title for each in built.values()}) == len(built)


def test_a_command_line_takes_one_out_changes_one_or_adds_one() -> None:
    mine = "{title: Mine, steps: [{step: blur, sigma: 3}, {step: jpeg, quality: 40}]}"
    built = suite(
        "chat",
        "robustness.perturbations.chat_twice=null",
        "robustness.perturbations.chat_50_50.steps=[{step: jpeg, quality: 11}]",
        f"+robustness.perturbations.mine={mine}",
    )
    assert list(built) == ["chat_full_75", "chat_75_70", "chat_50_60", "chat_50_50", "mine"]
    assert built["chat_50_50"].steps == (Jpeg(11),)
    assert built["mine"].title == "Mine"
    assert len(built["mine"].steps) == 2


@pytest.mark.parametrize(
    ("step", "where"),
    [
        ({"step": "jpg", "quality": 30}, r"steps\[0\].*Did you mean 'jpeg'"),
        ({"step": "jpeg", "qualty": 30}, r"steps\[0\]\.qualty.*Did you mean 'quality'"),
        ({"step": "jpeg"}, r"steps\[0\]\.quality"),
        ({"step": "jpeg", "quality": 0}, r"steps\[0\]\.quality=0: .*1\.\.100"),
        ({"step": "resize", "scale": 0.5, "filter": "cubic"}, r"filter=cubic: .*nearest"),
    ],
)
def test_a_wrong_step_is_named(step: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=r"robustness\.perturbations\.mine.*" + where):
        of_steps(step)
