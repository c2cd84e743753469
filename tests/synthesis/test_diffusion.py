"""What the diffusion engines share: bounded settings, one process a GPU, pipelines read by their
signature, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realdamage.errors import SynthesisError
from realdamage.synthesis.diffusion import Pipeline, choose_device
from realdamage.synthesis.engine import GeneratorSettings
from realdamage.synthesis.prompts import Prompt
from realdamage.synthesis.runner import rank_and_world

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
    [
        ("side", 500),
        ("dtype", "half"),
        ("languages", []),
        ("side", "wide"),
        ("stpes", 3),
    ],
)
def test_wrong_options_are_named(load: Any, option: str, value: Any) -> None:
    with pytest.raises(SynthesisError, match=option):
        load("m/m", **{option: value})


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert rank_and_world() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SynthesisError, match="RANK=3 with WORLD_SIZE=1"):
        rank_and_world()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert rank_and_world() == (3, 4)


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device() == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device() == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device() == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SynthesisError, match="2 GPUs"):
        choose_device()


@pytest.mark.parametrize("model", ["/nowhere/weights", "./weights", "weights", "a/b/c"])
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
    return made


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
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


def test_the_safety_checker_is_left_out(pipeline: Pipeline) -> None:
    assert pipeline._pipe.safety_checker is None
