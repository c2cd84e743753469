"""What the diffusion engines share: settings with bounds, one process a GPU, pipelines read by their signature, and
errors that say what to do."""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realdamage.errors import MissingExtraError, SynthesisError
from realdamage.synthesis.diffusion import (
    DiffusionSettings,
    choose_device,
    choose_dtype,
    loading,
    rank_and_world,
)
from realdamage.synthesis.pipeline import Pipeline, call_settings, guidance_parameter, uses_negative
from realdamage.synthesis.prompts import Prompt

CRACK = Prompt("a crack", "intact", "en", "generic", "clear")
GREY = np.full((64, 64, 3), 127, np.uint8)
WHOLE = np.ones((64, 64), np.bool_)


def call_of(name: str) -> Any:
    import diffusers

    return inspect.signature(getattr(diffusers, name).__call__).parameters


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": ""}, "model=''"),
        ({"steps": 0}, "steps=0"),
        ({"guidance": -1.0}, "guidance=-1.0"),
        ({"strength": 1.5}, "strength=1.5"),
        ({"side": 500}, "side=500; allowed: a multiple of 16"),
        ({"side": 32}, "side=32"),
        ({"dtype": "half"}, "dtype='half'; allowed: one of auto, float32"),
        ({"languages": ()}, "languages=.*at least one"),
        ({"languages": "en"}, "languages='en'; allowed: list of texts"),
        ({"side": "512"}, "side='512'; allowed: int"),
        ({"steps": True}, "steps=True"),
        ({"blend": 1}, "blend=1; allowed: bool"),
        ({"guidance": "7"}, r"guidance='7'; allowed: float \| None"),
    ],
)
def test_settings_outside_their_range_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SynthesisError, match=message):
        DiffusionSettings(**({"model": "m/m"} | changed))


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert rank_and_world() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SynthesisError, match="RANK=3 with WORLD_SIZE=1"):
        rank_and_world()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert rank_and_world() == (3, 4)
    monkeypatch.setenv("WORLD_SIZE", "four")
    with pytest.raises(SynthesisError, match="WORLD_SIZE='four' is no number"):
        rank_and_world()


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto") == "cpu"
    with pytest.raises(SynthesisError, match="has 0 GPUs"):
        choose_device("cuda")
    with pytest.raises(SynthesisError, match="device=gpu: no device of torch"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == "cuda:1"
    assert choose_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SynthesisError, match="has 2 GPUs"):
        choose_device("auto")


def test_the_dtype_fits_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert choose_dtype("auto", "cpu") is torch.float32
    assert choose_dtype("float16", "cpu") is torch.float16
    for has, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has: has)
        assert choose_dtype("auto", "cuda:1") is dtype


@pytest.mark.parametrize(
    ("pipeline", "parameter", "negative"),
    [
        ("StableDiffusionInpaintPipeline", "guidance_scale", True),
        ("FluxFillPipeline", "guidance_scale", False),
        ("FluxKontextPipeline", "guidance_scale", False),
        ("QwenImageEditPlusPipeline", "true_cfg_scale", True),
        ("QwenImageInpaintPipeline", "true_cfg_scale", True),
    ],
)
def test_guidance_goes_where_the_pipeline_guides(
    pipeline: str, parameter: str, negative: bool
) -> None:
    call = call_of(pipeline)
    assert guidance_parameter(call) == parameter
    assert uses_negative(call, {}) == negative
    assert not uses_negative(call, {parameter: 1.0}), "a scale of 1 is no guidance"
    settings = DiffusionSettings("m/m", steps=8, guidance=2.5)
    assert call_settings(call, settings, pipeline, "k") == {
        "num_inference_steps": 8,
        parameter: 2.5,
    }


def test_a_setting_that_the_pipeline_does_not_take_is_named() -> None:
    settings = DiffusionSettings("m/m", strength=0.7)
    assert call_settings(call_of("FluxFillPipeline"), settings, "F", "k") == {"strength": 0.7}
    with pytest.raises(
        SynthesisError, match=r"generators\.q\.strength=0\.7: QwenImageEditPipeline takes no"
    ):
        call_settings(
            call_of("QwenImageEditPipeline"),
            settings,
            "QwenImageEditPipeline",
            "recipe.generators.q",
        )


@pytest.mark.parametrize("model", ["/nowhere/weights", "./weights", "weights", "a/b/c"])
def test_a_missing_folder_is_named(model: str) -> None:
    with pytest.raises(SynthesisError, match=rf"generator g: model {model}: no such folder"):
        Pipeline(DiffusionSettings(model), "g", masked=True)


def test_without_a_network_the_download_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import LocalEntryNotFoundError

    def blocked(*_: Any, **__: Any) -> None:
        try:
            raise ConnectionError("Name or service not known")
        except ConnectionError as error:
            raise OSError(
                "m/m does not appear to have a file named model_index.json"
            ) from LocalEntryNotFoundError(str(error))

    monkeypatch.setattr(DiffusionPipeline, "load_config", blocked)
    with pytest.raises(
        SynthesisError, match=r"could not be loaded.*can't be reached.*hf download m/m --local-dir"
    ):
        Pipeline(DiffusionSettings("m/m"), "g", masked=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [("GatedRepoError", "Accept its licence"), ("RepositoryNotFoundError", "no such model")],
)
def test_what_the_hub_refuses_is_told_apart(name: str, message: str) -> None:
    kind = type(name, (OSError,), {})
    with pytest.raises(SynthesisError, match=message), loading("model", "m/m"):
        raise kind("401 Client Error")


def test_folders_that_hold_no_pipeline_are_named(inpainting_model: str, tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match=r"could not be loaded.*save_pretrained"):
        Pipeline(DiffusionSettings(str(tmp_path)), "g", masked=True)
    copy = tmp_path / "copy"
    shutil.copytree(inpainting_model, copy)
    with pytest.raises(SynthesisError, match="of this variant if one is set"):
        Pipeline(DiffusionSettings(str(copy), variant="fp16"), "g", masked=True)
    (copy / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(SynthesisError, match="could not be loaded"):
        Pipeline(DiffusionSettings(str(copy)), "g", masked=True)


def test_pipelines_that_do_something_else_are_named(
    inpainting_model: str, text_to_image_model: str, tmp_path: Path
) -> None:
    def refused(model: str, masked: bool, message: str, pipeline: str | None = None) -> None:
        with pytest.raises(SynthesisError, match=message):
            Pipeline(DiffusionSettings(model, pipeline=pipeline), "g", masked=masked)

    misspelt = r"g\.options\.pipeline=FluxFilPipeline: diffusers .* has no such pipeline\. Did you mean FluxFillPipeline\?"
    refused(inpainting_model, True, misspelt, "FluxFilPipeline")
    refused(inpainting_model, True, "has no such pipeline", "AutoencoderKL")
    refused(inpainting_model, False, "is an inpainting pipeline; use it with engine=inpaint")
    refused(text_to_image_model, False, "StableDiffusionPipeline edits no photo")
    refused(text_to_image_model, True, "FluxPipeline inpaints nothing", "FluxPipeline")
    index = tmp_path / "model_index.json"
    index.write_text('{"_class_name": "TomorrowsPipeline"}')
    refused(
        str(tmp_path), True, "the model is a TomorrowsPipeline: diffusers .* has no such pipeline"
    )


def test_offloading_needs_a_gpu(inpainting_model: str) -> None:
    with pytest.raises(SynthesisError, match="no GPU to offload"):
        Pipeline(DiffusionSettings(inpainting_model, offload=True, device="cpu"), "g", masked=True)


def test_the_missing_package_is_named(
    inpainting_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(
        MissingExtraError, match=r"accelerate is not installed.*realdamage\[synth\]"
    ):
        Pipeline(DiffusionSettings(inpainting_model), "g", masked=True)


@pytest.fixture(scope="module")
def pipeline(inpainting_model: str) -> Pipeline:
    return Pipeline(DiffusionSettings(inpainting_model, steps=1, device="cpu"), "tiny", masked=True)


def failing(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_needs_less(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(type(pipeline._pipe), "__call__", failing(error))
    message = r"ran out of memory.*g.*tiny\.options\.side.*offload=true.*dtype=bfloat16.*run the same command to go on"
    with pytest.raises(SynthesisError, match=message):
        pipeline(GREY, CRACK, 0, WHOLE)


def test_other_failures_keep_their_words(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(pipeline._pipe), "__call__", failing(ValueError("strength too low")))
    with pytest.raises(
        SynthesisError, match=r"failed \(ValueError: strength too low\); check the settings of"
    ):
        pipeline(GREY, CRACK, 0, WHOLE)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"images": [np.full((64, 64, 3), np.nan)]},
            "picture with NaN.*tiny.options.dtype=bfloat16",
        ),
        ({"images": [np.zeros((64, 64, 3))]}, "picture of one colour"),
        (
            {"images": [np.zeros((64, 64, 3))], "nsfw_content_detected": [True]},
            "withheld its picture",
        ),
        ({"frames": []}, "gives no images; name another class"),
    ],
)
def test_pictures_that_are_none_are_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], message: str
) -> None:
    result = type("Answer", (), answer)()
    monkeypatch.setattr(type(pipeline._pipe), "__call__", lambda *_, **__: result)
    with pytest.raises(SynthesisError, match=message):
        pipeline(GREY, CRACK, 0, WHOLE)


def test_the_safety_checker_is_left_out(pipeline: Pipeline) -> None:
    assert pipeline._pipe.safety_checker is None
