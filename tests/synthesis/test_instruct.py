"""The edit engine gives the whole photo back at its size, and says when a resize was needed for that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from realdamage.errors import ConfigError
from realdamage.synthesis.diffusion import DiffusionSettings
from realdamage.synthesis.instruct import Instruct
from realdamage.synthesis.prompts import PromptCatalogue

RGB = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)


def instruct(model: str, catalogue: PromptCatalogue, **settings: Any) -> Instruct:
    given = {"steps": 1, "device": "cpu"} | settings
    return Instruct(DiffusionSettings(model, **given), "tiny", "sd", catalogue)


@pytest.fixture(scope="module")
def engine(editing_model: str, catalogue: PromptCatalogue) -> Instruct:
    return instruct(editing_model, catalogue)


def test_the_whole_photo_is_made_anew_at_its_own_size(engine: Instruct) -> None:
    edit = engine.edit(RGB, "cracked", np.random.default_rng(0))
    assert edit.rgb.shape == RGB.shape
    assert edit.rgb.dtype == np.uint8
    assert edit.mask.shape == RGB.shape[:2]
    assert edit.mask.all()
    assert edit.damage == "cracked"
    assert (edit.rgb != RGB).any(axis=2).mean() > 0.95


def test_the_same_random_state_gives_the_same_edit(engine: Instruct) -> None:
    edits = [engine.edit(RGB, "torn", np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(edits[0].rgb, edits[1].rgb)
    assert edits[0].details == edits[1].details
    assert not np.array_equal(edits[0].rgb, edits[2].rgb)


def test_the_manifest_learns_how_it_was_made(engine: Instruct) -> None:
    details = engine.edit(RGB, "broken", np.random.default_rng(0)).details
    assert set(details) == {
        "model",
        "prompt",
        "negative_prompt",
        "seed",
        "guidance",
        "steps",
        "libraries",
    }
    assert details["model"] == "tiny-pix2pix"
    assert details["steps"] == "1"


def test_editors_get_instructions_and_image_to_image_gets_descriptions(
    engine: Instruct, text_to_image_model: str, catalogue: PromptCatalogue
) -> None:
    orders = tuple(
        template.split()[0]
        for template in catalogue.languages["en"].sentences["damaged"].instructions
    )
    for seed in range(3):
        assert (
            engine.edit(RGB, "cracked", np.random.default_rng(seed))
            .details["prompt"]
            .startswith(orders)
        )
    redraw = instruct(
        text_to_image_model,
        catalogue,
        pipeline="StableDiffusionImg2ImgPipeline",
        strength=0.5,
        steps=2,
    )
    details = redraw.edit(RGB, "cracked", np.random.default_rng(0)).details
    assert not details["prompt"].startswith(orders)
    assert details["strength"] == "0.5"


def test_kontext_keeps_to_the_size_of_the_photo(
    kontext_model: str, catalogue: PromptCatalogue
) -> None:
    edit = instruct(kontext_model, catalogue).edit(RGB, "stained", np.random.default_rng(0))
    assert edit.rgb.shape == RGB.shape
    assert "resized" not in edit.details
    assert "negative_prompt" not in edit.details, "Kontext has no use for it"


def test_an_answer_of_another_size_is_resized_and_said_to_be(
    engine: Instruct, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 224)[None, :, None], (160, 224, 3))
    answer = type("Answer", (), {"images": [ramp]})()
    monkeypatch.setattr(type(engine._pipeline._pipe), "__call__", lambda *_, **__: answer)
    edit = engine.edit(RGB, "cracked", np.random.default_rng(0))
    assert edit.details["resized"] == "224x160 to 112x80"
    assert edit.rgb.shape == RGB.shape
    expected = Image.fromarray(np.rint(ramp * 255).astype(np.uint8)).resize(
        (112, 80), Image.Resampling.BOX
    )
    assert np.abs(edit.rgb.astype(int) - np.asarray(expected)[:75, :101]).max() <= 3


def test_a_language_without_prompts_stops_before_the_model_is_loaded(
    catalogue: PromptCatalogue,
) -> None:
    with pytest.raises(ConfigError, match='"fr" is not among'):
        Instruct(DiffusionSettings("m/m", languages=("fr",)), "g", "f", catalogue)
