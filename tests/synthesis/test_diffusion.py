"""What the diffusion engines share: bounded settings, pipelines read by their signature, and errors
that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realdamage.errors import SynthesisError
from realdamage.synthesis.diffusion import Pipeline
from realdamage.synthesis.engine import GeneratorSettings
from realdamage.synthesis.prompts import Prompt

CRACK = Prompt("a crack", "intact")
GREY = np.full((64, 64, 3), 127, np.uint8)
WHOLE = np.ones((64, 64), np.bool_)


@pytest.fixture(scope="module")
def load(prompts: dict[str, Any]) -> Any:
    """`load(model, masked=True, **options)`: a Pipeline named tiny."""

    def load(model: str | Path, masked: bool = True, **options: Any) -> Pipeline:
        given = {"call": {"num_inference_steps": 1}} | options
        settings = GeneratorSettings(str(model), "sd", "inpaint", given)
        return Pipeline("tiny", settings, prompts, masked=masked)

    return load


@pytest.mark.parametrize(
    ("option", "value"),
    [("side", 500), ("languages", []), ("stpes", 3)],
)
def test_wrong_options_are_named(load: Any, option: str, value: Any) -> None:
    with pytest.raises(SynthesisError, match=option):
        load("m/m", **{option: value})


@pytest.mark.parametrize("model", ["/nowhere/weights", "weights"])
def test_a_missing_folder_is_named(load: Any, model: str) -> None:
    with pytest.raises(SynthesisError, match=model) as caught:
        load(model)
    assert caught.value.code == "no_weights"


def test_pipelines_that_do_something_else_are_named(
    load: Any, inpainting_model: str, text_to_image_model: str, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "TomorrowsPipeline"}')
    for model, masked, pipeline, said in (
        (inpainting_model, True, "AutoencoderKL", "no such pipeline"),
        (inpainting_model, False, None, "engine=inpaint"),
        (text_to_image_model, False, None, "StableDiffusionPipeline"),
        (text_to_image_model, True, "FluxPipeline", "mask_image"),
        (tmp_path, True, None, "TomorrowsPipeline"),
    ):
        with pytest.raises(SynthesisError, match=said):
            load(model, masked, pipeline=pipeline)
    for wrong in ({"offload": True}, {"call": {"steps": 3}}):
        with pytest.raises(SynthesisError, match=r"offload|steps"):
            load(inpainting_model, **wrong)


@pytest.fixture(scope="module")
def pipeline(load: Any, inpainting_model: str) -> Pipeline:
    made: Pipeline = load(inpainting_model)
    assert made._pipe.safety_checker is None  # it would blacken photos
    return made


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (ValueError("strength too low"), "pipeline_failed"),
    ],
)
def test_failures_of_a_pipeline_name_its_settings(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(pipeline._pipe), "__call__", fail)
    with pytest.raises(SynthesisError, match=r"tiny\.options") as caught:
        pipeline(GREY, CRACK, 0, WHOLE)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"images": [np.full((64, 64, 3), np.nan)]}, "NaN"),
        ({"images": [np.zeros((64, 64, 3))]}, "one colour"),
    ],
)
def test_unusable_pictures_are_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], said: str
) -> None:
    result = type("Answer", (), answer)()
    monkeypatch.setattr(type(pipeline._pipe), "__call__", lambda *_, **__: result)
    with pytest.raises(SynthesisError, match=said):
        pipeline(GREY, CRACK, 0, WHOLE)
