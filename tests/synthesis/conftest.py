"""Diffusion pipelines with random weights, a few hundred kilobytes each, saved as the real ones
are: folders that the engines load with their own code."""

import json

import pytest

from realdamage.configuration import compose, plain

WIDTH = 16  # of the text encoders
VAE = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


@pytest.fixture(scope="session")
def prompts():
    """The `prompts` section that ships."""
    return plain(compose("synthesize", ["out=unused"]).prompts)


@pytest.fixture(scope="session")
def text_parts(tmp_path_factory):
    """A CLIP text encoder and a tokenizer that spells every word."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = [chr(code) for code in range(33, 127)]
    ends = [f"{letter}</w>" for letter in letters]
    tokens = [*letters, *ends, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        pad_token="<|endoftext|>",
        model_max_length=77,
    )
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
    )
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokenizer}


def stable_diffusion_parts(text_parts, channels):
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        in_channels=channels,
        sample_size=64,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, beta_schedule="scaled_linear"
    )
    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return {
        "unet": unet,
        "vae": AutoencoderKL(**VAE),
        "scheduler": scheduler,
        **text_parts,
        **unused,
    }


def saved(pipeline, channels):
    """A fixture: the folder of a pipeline of diffusers whose network has `channels` inputs."""

    @pytest.fixture(scope="session")
    def model(text_parts, tmp_path_factory):
        import diffusers

        folder = tmp_path_factory.mktemp("models") / f"tiny-{pipeline}"
        parts = stable_diffusion_parts(text_parts, channels)
        getattr(diffusers, pipeline)(**parts).save_pretrained(folder)
        return str(folder)

    return model


inpainting_model = saved("StableDiffusionInpaintPipeline", 9)  # as many as the real one has
text_to_image_model = saved("StableDiffusionPipeline", 4)  # it has a sibling that inpaints
editing_model = saved("StableDiffusionInstructPix2PixPipeline", 8)
