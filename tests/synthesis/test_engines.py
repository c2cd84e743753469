"""The engines that ask a diffusion model: they edit what they should, say where and how, keep every
other byte, and name what is wrong with their settings."""

from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from realdamage.errors import SynthesisError
from realdamage.synthesis.diffusion import Editor, Inpaint
from realdamage.synthesis.engine import ENGINES, GeneratorSettings, engine_class

RGB = np.random.default_rng(0).integers(0, 256, (131, 150, 3), dtype=np.uint8)
SMALL = RGB[:75, :101]
CALL = {"num_inference_steps": 1}
DETAILS = {"model", "prompt", "negative_prompt", "seed", "call", "libraries"}


def box(top, bottom, left, right):
    region = np.zeros(RGB.shape[:2], np.bool_)
    region[top:bottom, left:right] = True
    return region


REGION = box(40, 60, 70, 90)


def load(engine, model, prompts, **options):
    given = {"call": CALL, "side": 128} | options
    return engine("tiny", GeneratorSettings(str(model), "sd", options=given), prompts)


@pytest.fixture(scope="module")
def inpaint(inpainting_model, prompts):
    made = load(Inpaint, inpainting_model, prompts)
    assert made.pipeline._pipe.safety_checker is None  # it would blacken photos
    return made


@pytest.fixture(scope="module")
def edit(editing_model, prompts):
    return load(Editor, editing_model, prompts)


def answer_with(engine, answer, monkeypatch):
    """Its pipeline answers with a picture, or raises an error."""
    pipe = type(engine.pipeline._pipe)
    if isinstance(answer, Exception):
        stub = Mock(side_effect=answer)
    else:
        stub = Mock(return_value=Mock(images=[answer]))
    monkeypatch.setattr(pipe, "__call__", stub)


def test_engines_are_found_by_name_and_by_import_path():
    for name, path in ENGINES.items():
        assert engine_class(name) is engine_class(path)
    for engine in ("paint", "nowhere:Engine", "realdamage.synthesis.codec:Nothing"):
        with pytest.raises(SynthesisError, match="codec, inpaint, edit") as caught:
            engine_class(engine)
        assert caught.value.code == "unknown_engine"


def test_outside_of_the_blend_every_byte_stays(inpaint):
    made = inpaint.regenerate(RGB, REGION, "cracked", np.random.default_rng(0))
    assert (made.rgb.shape, made.rgb.dtype, made.damage) == (RGB.shape, np.uint8, "cracked")
    assert set(made.details) == DETAILS
    # The folder's name, not its path on this machine.
    assert made.details["model"] == "tiny-StableDiffusionInpaintPipeline"
    assert made.details["call"] == '{"num_inference_steps": 1}'
    assert made.mask[REGION].all()
    assert 400 < made.mask.sum() < 1400
    changed = (made.rgb != RGB).any(axis=2)
    assert not changed[~box(40 - 24, 60 + 24, 70 - 24, 90 + 24)].any()
    assert changed[made.mask].mean() > 0.95
    assert np.abs(made.rgb[REGION].astype(int) - RGB[REGION]).mean() > 5


@pytest.mark.parametrize("name", ["inpaint", "edit"])
def test_one_random_state_gives_one_edit(name, request):
    engine = request.getfixturevalue(name)
    kind = engine.kinds[0]
    first, again, other = (
        engine.apply(SMALL, kind, "torn", np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.rgb, again.rgb)
    assert first.details == again.details
    assert not np.array_equal(first.rgb, other.rgb)
    assert set(first.details) == DETAILS
    assert (first.rgb.shape, first.mask.shape) == (SMALL.shape, SMALL.shape[:2])
    assert first.mask.all() == (name == "edit")


def test_windows_hold_the_region_at_native_size(inpaint, monkeypatch):
    """The pipeline answers with noise."""
    seen = set()

    def noise(self, **given):
        width, height = given["image"].size
        assert given["mask_image"].size == (width, height) == (given["width"], given["height"])
        seen.add((width, height))
        rng = np.random.default_rng(given["generator"].initial_seed())
        return Mock(images=[rng.random((height, width, 3))])

    # The engine reads the signature when it is made, so the stub needs none.
    monkeypatch.setattr(type(inpaint.pipeline._pipe), "__call__", noise)
    for region, side, expected in (
        (REGION, 160, (160, 160)),  # larger than the photo: mirrored beyond it
        (box(10, 60, 20, 40), 64, (128, 128)),  # with its context two steps of 64
        (box(0, 1, 149, 150), 64, (64, 64)),  # a corner
    ):
        monkeypatch.setattr(inpaint.pipeline.settings, "side", side)
        seen.clear()
        for seed in range(5):
            made = inpaint.regenerate(RGB, region, "cracked", np.random.default_rng(seed))
            assert made.mask[region].all()
            assert (made.rgb != RGB).any(axis=2)[region].mean() > 0.95
        assert seen == {expected}


def test_an_editor_that_resizes_says_so(edit, monkeypatch):
    ramp = np.broadcast_to(np.linspace(0, 1, 224)[None, :, None], (160, 224, 3))
    answer_with(edit, ramp, monkeypatch)
    made = edit.apply(SMALL, "ai_whole", "cracked", np.random.default_rng(0))
    assert made.details["resized"] == "224x160 to 112x80"
    picture = Image.fromarray(np.rint(ramp * 255).astype(np.uint8))
    expected = np.asarray(picture.resize((112, 80), Image.Resampling.BOX))[:75, :101]
    assert np.abs(made.rgb.astype(int) - expected).max() <= 3


def test_a_text_to_image_model_inpaints_through_its_sibling(text_to_image_model, prompts):
    engine = load(Inpaint, text_to_image_model, prompts)
    made = engine.regenerate(RGB, REGION, "dented", np.random.default_rng(0))
    assert engine.pipeline.name == "StableDiffusionInpaintPipeline"
    assert made.mask[REGION].all()


def test_wrong_settings_and_models_are_named(
    inpainting_model, text_to_image_model, prompts, tmp_path
):
    (tmp_path / "model_index.json").write_text('{"_class_name": "TomorrowsPipeline"}')
    wrong = [
        (Inpaint, "m/m", {"side": 500}, "side"),
        (Inpaint, "m/m", {"languages": []}, "languages"),
        (Inpaint, "m/m", {"stpes": 3}, "stpes"),
        (Inpaint, "/nowhere/weights", {}, "/nowhere/weights: no such folder"),
        (Inpaint, "weights", {}, "weights: no such folder"),
        (Inpaint, inpainting_model, {"pipeline": "AutoencoderKL"}, "no such pipeline"),
        (Editor, inpainting_model, {}, "engine=inpaint"),
        (Inpaint, text_to_image_model, {"pipeline": "FluxPipeline"}, "mask_image"),
        (Inpaint, tmp_path, {}, "TomorrowsPipeline"),
        (Inpaint, inpainting_model, {"offload": True}, "offload"),
        (Inpaint, inpainting_model, {"call": {"steps": 3}}, "steps"),
    ]
    for engine, model, options, said in wrong:
        with pytest.raises(SynthesisError, match=said):
            load(engine, model, prompts, **options)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (RuntimeError("CUDA out of memory. Tried 2 GiB"), "out_of_memory", r"tiny\.options"),
        (ValueError("strength too low"), "pipeline_failed", r"tiny\.options"),
        (np.full((128, 128, 3), np.nan), "synthesis", "NaN"),
        (np.zeros((128, 128, 3)), "synthesis", "one colour"),
        (
            np.random.default_rng(0).random((192, 192, 3)),
            "synthesis",
            r"128x128 .* 192x192: set .*tiny\.options\.side",
        ),
    ],
)
def test_failures_and_unusable_pictures_are_named(inpaint, monkeypatch, answer, code, said):
    answer_with(inpaint, answer, monkeypatch)
    with pytest.raises(SynthesisError, match=said) as caught:
        inpaint.regenerate(RGB, REGION, "cracked", np.random.default_rng(0))
    assert caught.value.code == code
