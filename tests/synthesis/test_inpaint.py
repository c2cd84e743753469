"""The inpaint engine paints where it is told to, says where that was, and leaves every other byte alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from realdamage.errors import ConfigError, SynthesisError
from realdamage.synthesis.diffusion import DiffusionSettings
from realdamage.synthesis.inpaint import CONTEXT, Inpaint
from realdamage.synthesis.prompts import PromptCatalogue

RGB = np.random.default_rng(0).integers(0, 256, (131, 150, 3), dtype=np.uint8)


def box(top: int, bottom: int, left: int, right: int) -> npt.NDArray[np.bool_]:
    region = np.zeros(RGB.shape[:2], np.bool_)
    region[top:bottom, left:right] = True
    return region


REGION = box(40, 60, 70, 90)


def inpaint(model: str, catalogue: PromptCatalogue, **settings: Any) -> Inpaint:
    given = {"steps": 1, "side": 128, "device": "cpu"} | settings
    return Inpaint(DiffusionSettings(model, **given), "tiny", "sd", catalogue)


@pytest.fixture(scope="module")
def engine(inpainting_model: str, catalogue: PromptCatalogue) -> Inpaint:
    return inpaint(inpainting_model, catalogue)


@pytest.fixture
def windows(engine: Inpaint, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Width, height and painted pixels of every window that the pipeline was given; it answers with noise."""
    seen: list[tuple[int, int, int]] = []

    def noise(self: Any, **given: Any) -> Any:
        width, height = given["image"].size
        assert given["mask_image"].size == (width, height) == (given["width"], given["height"])
        seen.append((width, height, int((np.asarray(given["mask_image"]) == 255).sum())))
        picture = np.random.default_rng(given["generator"].initial_seed()).random(
            (height, width, 3)
        )
        return type("Answer", (), {"images": [picture]})()

    # The engine reads the signature when it is made, so the stub needs none.
    monkeypatch.setattr(type(engine._pipeline._pipe), "__call__", noise)
    return seen


def test_outside_of_the_blend_every_byte_stays(engine: Inpaint) -> None:
    edit = engine.regenerate(RGB, REGION, "cracked", np.random.default_rng(0))
    assert edit.rgb.shape == RGB.shape
    assert edit.rgb.dtype == np.uint8
    assert edit.damage == "cracked"
    assert edit.mask[REGION].all()
    assert 400 < edit.mask.sum() < 1400
    changed = (edit.rgb != RGB).any(axis=2)
    near = box(40 - 24, 60 + 24, 70 - 24, 90 + 24)
    assert not changed[~near].any()
    assert changed[edit.mask].mean() > 0.95
    assert np.abs(edit.rgb[REGION].astype(int) - RGB[REGION]).mean() > 5


def test_without_blending_the_window_is_the_mask(
    inpainting_model: str, catalogue: PromptCatalogue
) -> None:
    engine = inpaint(inpainting_model, catalogue, blend=False)
    edit = engine.regenerate(RGB, REGION, "torn", np.random.default_rng(0))
    assert edit.mask.sum() == 128 * 128
    assert edit.mask[REGION].all()
    changed = (edit.rgb != RGB).any(axis=2)
    assert not changed[~edit.mask].any()
    assert changed[edit.mask].mean() > 0.95


def test_the_same_random_state_gives_the_same_edit(engine: Inpaint) -> None:
    edits = [engine.regenerate(RGB, REGION, "", np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(edits[0].rgb, edits[1].rgb)
    assert edits[0].details == edits[1].details
    assert not np.array_equal(edits[0].rgb, edits[2].rgb)
    assert edits[0].details["seed"] != edits[2].details["seed"]


def test_the_manifest_learns_how_it_was_made(engine: Inpaint) -> None:
    details = engine.regenerate(RGB, REGION, "stained", np.random.default_rng(0)).details
    assert set(details) == {
        "model", "prompt", "negative_prompt", "seed", "guidance", "strength", "steps", "libraries"
    }  # fmt: skip
    assert details["model"] == "tiny-inpainting", "the folder's name, not its path on this machine"
    assert (details["steps"], details["guidance"], details["strength"]) == ("1", "7.5", "1")
    assert "diffusers 0." in details["libraries"]
    assert "torch 2." in details["libraries"]


@pytest.mark.parametrize(
    ("region", "side", "expected"),
    [
        (REGION, 128, (128, 128)),
        (REGION, 160, (160, 160)),  # larger than the photo: mirrored beyond it
        (box(10, 60, 20, 40), 64, (128, 128)),  # with its context two steps of 64
        (box(0, 131, 0, 150), 64, (192, 192)),  # the whole photo
        (box(0, 1, 149, 150), 64, (64, 64)),  # a corner
    ],
)
def test_windows_hold_the_region_at_native_size(
    engine: Inpaint,
    windows: list[tuple[int, int, int]],
    monkeypatch: pytest.MonkeyPatch,
    region: npt.NDArray[np.bool_],
    side: int,
    expected: tuple[int, int],
) -> None:
    monkeypatch.setattr(engine, "settings", DiffusionSettings("m/m", side=side))
    for seed in range(5):
        edit = engine.regenerate(RGB, region, "cracked", np.random.default_rng(seed))
        assert edit.mask[region].all()
        assert (edit.rgb != RGB).any(axis=2)[region].mean() > 0.95
    assert {size[:2] for size in windows} == {expected}


def test_the_region_lies_anywhere_in_the_window(
    engine: Inpaint, windows: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "settings", DiffusionSettings("m/m", side=128, blend=False))
    corners = set()
    for seed in range(20):
        mask = engine.regenerate(RGB, REGION, "cracked", np.random.default_rng(seed)).mask
        top, left = (int(np.flatnonzero(mask.any(axis=axis))[0]) for axis in (1, 0))
        assert mask.sum() == 128 * 128
        assert 40 - CONTEXT >= top >= 0
        assert 70 - CONTEXT + 10 >= left >= 90 + CONTEXT - 112 - 10
        corners.add((top, left))
    assert len(corners) > 10


def test_a_thin_line_covers_whole_latents(
    engine: Inpaint, windows: list[tuple[int, int, int]]
) -> None:
    engine.regenerate(RGB, box(50, 51, 60, 100), "cracked", np.random.default_rng(0))
    painted = windows[0][2]
    assert painted % 256 == 0
    assert painted >= 256 * 3


def test_a_pipeline_that_answers_another_size_is_named(
    engine: Inpaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = type("Answer", (), {"images": [np.random.default_rng(0).random((192, 192, 3))]})()
    monkeypatch.setattr(type(engine._pipeline._pipe), "__call__", lambda *_, **__: answer)
    with pytest.raises(
        SynthesisError,
        match=r"answers a window of 128x128 pixels with 192x192: set .*tiny\.options\.side",
    ):
        engine.regenerate(RGB, REGION, "cracked", np.random.default_rng(0))


def test_an_empty_region_is_refused(engine: Inpaint) -> None:
    with pytest.raises(SynthesisError, match="region is empty"):
        engine.regenerate(RGB, ~box(0, 131, 0, 150), "cracked", np.random.default_rng(0))


def test_a_language_without_prompts_stops_before_the_model_is_loaded(
    catalogue: PromptCatalogue,
) -> None:
    with pytest.raises(ConfigError, match='"fr" is not among'):
        Inpaint(DiffusionSettings("m/m", languages=("fr",)), "g", "f", catalogue)


def test_a_text_to_image_model_inpaints_with_the_class_beside_its_own(
    text_to_image_model: str, catalogue: PromptCatalogue
) -> None:
    engine = inpaint(text_to_image_model, catalogue, steps=2, strength=0.5, guidance=1.0)
    edit = engine.regenerate(RGB, REGION, "dented", np.random.default_rng(0))
    assert engine._pipeline.name == "StableDiffusionInpaintPipeline"
    assert edit.details["strength"] == "0.5"
    assert "negative_prompt" not in edit.details, "no guidance, no negative prompt"


def test_flux_fill(flux_fill_model: str, catalogue: PromptCatalogue) -> None:
    engine = inpaint(flux_fill_model, catalogue, languages=("zh",))
    edit = engine.regenerate(RGB, REGION, "holed", np.random.default_rng(0))
    assert engine._pipeline.name == "FluxFillPipeline"
    assert (edit.details["guidance"], edit.details["strength"]) == ("30", "1")
    assert edit.mask[REGION].all()
    assert not (edit.rgb != RGB).any(axis=2)[~box(0, 100, 30, 130)].any()
