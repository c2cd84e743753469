"""Perturbations move the mask with the photo, and draw the same for both halves of a pair."""

import numpy as np
import pytest
import yaml

from realdamage.configuration import compose, config_folder, plain
from realdamage.data.degradations import Jpeg
from realdamage.errors import ConfigError
from realdamage.evaluation.perturbations import Pixels, suite_from_config


def suite(name, *overrides):
    config = compose("evaluate", ["checkpoint=x", "data.root=x", f"robustness={name}", *overrides])
    return {each.name: each for each in suite_from_config(plain(config.robustness))}


@pytest.fixture(scope="module")
def standard():
    return suite("standard")


def marked(height=240, width=320):
    """A grey photo with a green square, which the mask covers."""
    mask = np.zeros((height, width), dtype=np.float32)
    mask[height // 2 - 40 : height // 2 + 30, width // 2 - 50 : width // 2 + 20] = 1
    rgb = np.where(mask[..., None] > 0, (20, 220, 30), (128, 128, 128)).astype(np.uint8)
    return Pixels(rgb, mask)


def middle(weights):
    places = np.stack(np.nonzero(weights)) + 0.5
    return np.asarray((places * weights[np.nonzero(weights)]).sum(axis=1) / weights.sum())


def test_the_mask_stays_on_what_it_marks(standard):
    photo = marked()
    for name, perturbation in standard.items():
        found = perturbation(photo, seed=1, key="a")
        assert found.mask is not None
        assert (found.rgb.dtype, found.mask.dtype) == (np.uint8, np.float32), name
        assert found.mask.shape == found.rgb.shape[:2], name
        assert 0 <= found.mask.min() <= found.mask.max() <= 1, name
        rgb = found.rgb.astype(int)
        green = rgb[..., 1] - np.maximum(rgb[..., 0], rgb[..., 2]) > 60
        assert np.abs(middle(green) - middle(found.mask)).max() < 1, name
        assert green.sum() == pytest.approx(found.mask.sum(), rel=0.1), name


def test_what_is_drawn_depends_on_seed_name_and_pair_alone(standard):
    photo = marked()
    for name in ("crop_50", "noise_3", "screenshot", "recapture"):
        once, again, other_pair, other_seed = (
            standard[name](photo, seed=seed, key=key).rgb
            for seed, key in ((0, "a"), (0, "a"), (0, "b"), (1, "a"))
        )
        assert np.array_equal(once, again), name
        assert not np.array_equal(once, other_pair), name
        assert not np.array_equal(once, other_seed), name


def test_both_halves_of_a_pair_get_the_same(photo_factory, standard):
    """They differ after it where they differed before, and nowhere else."""
    original = photo_factory(160, 200, 1)
    edit = original.copy()
    edit[60:90, 70:110] = photo_factory(30, 40, 2)
    for name, reach in (("noise_8", 0), ("blur_noise_jpeg", 24), ("recapture", 32)):
        one, other = (
            standard[name](Pixels(rgb, None), seed=3, key="a").rgb for rgb in (original, edit)
        )
        rows, columns = np.nonzero((one != other).any(axis=-1))
        assert 60 - reach <= rows.min() <= rows.max() < 90 + reach
        assert 70 - reach <= columns.min() <= columns.max() < 110 + reach


def test_every_suite_builds(standard):
    suites = {"standard": list(standard.values())}  # the others are one file each
    for path in (config_folder() / "robustness").glob("*.yaml"):
        if path.stem != "standard":
            suites[path.stem] = list(suite_from_config(yaml.safe_load(path.read_text("utf-8"))))
    assert [name for name, built in suites.items() if not built] == ["none"]
    for name, built in suites.items():
        assert all(each.title and each.steps for each in built), name
        assert len({each.title for each in built}) == len(built), name


def test_a_command_line_takes_one_out_changes_one_or_adds_one():
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
        ({"step": "jpeg"}, r"steps\[0\]\.quality.* needs quality"),
        (
            {"step": "recapture", "seed": 1},
            r"steps\[0\]\.seed: the step recapture takes [a-z, ]+\.$",
        ),
        ({"step": "jpeg", "quality": 0}, r"steps\[0\]\.quality=0: .*1\.\.100"),
        ({"step": "resize", "scale": 0.5, "filter": "cubic"}, r"steps\[0\]\.filter=cubic"),
    ],
)
def test_a_wrong_step_is_named(step, where):
    with pytest.raises(ConfigError, match=r"robustness\.perturbations\.mine\." + where):
        suite_from_config({"perturbations": {"mine": {"title": "Mine", "steps": [step]}}})
