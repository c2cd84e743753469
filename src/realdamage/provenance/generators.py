"""Names of generators as they stand in the metadata of what they made, and the few that are known by their handwriting.

A photo editor is no generator: what Photoshop, Lightroom, Snapseed or PicsArt did to a photo, their name does not say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from realdamage.provenance.precedence import Declared


@dataclass(frozen=True)
class Generator:
    """A generator and the words that give it away, matched as whole words whatever their case.

    anywhere: whether the words are rare enough to count as an author, a credit, a maker or a model too; else they count
        as software only (Dalle is a surname, 豆包 a nickname).
    shared: words that other programs and devices bear too (Firefly is a camera, Grok a codec of JPEG 2000, Gemini a
        phone): as software, they declare that it may be AI, no more.
    """

    name: str
    words: tuple[str, ...] = ()
    declares: Declared = "ai_generated"
    anywhere: bool = False
    shared: tuple[str, ...] = ()


# The first that matches counts: the particular before the general.
GENERATORS = (
    Generator("Google AI (edited)", ("Edited with Google AI",), "ai_edited", anywhere=True),
    Generator(
        "Google AI",
        ("Made with Google AI", "Created with Google AI", "Generated with Google AI"),
        anywhere=True,
    ),
    Generator("Midjourney", ("Midjourney",), anywhere=True),
    Generator("DALL·E", ("DALL·E", "DALL-E"), anywhere=True),
    Generator("DALL·E", ("DALLE", "DALL E")),
    Generator(
        "OpenAI",
        ("OpenAI", "ChatGPT", "GPT-4o", "gpt-image", "gpt-image-1", "gpt-image-2"),
        anywhere=True,
    ),
    Generator("Sora", ("OpenAI Sora", "Sora 2"), shared=("Sora",)),
    Generator(
        "Stable Diffusion",
        ("Stable Diffusion", "StableDiffusion", "SDXL", "Stability AI"),
        anywhere=True,
    ),
    Generator(
        "Stable Diffusion web UI",
        ("AUTOMATIC1111", "SD.Next", "stable-diffusion-webui", "Forge WebUI"),
    ),
    Generator("ComfyUI", ("ComfyUI",), anywhere=True),
    Generator("InvokeAI", ("InvokeAI", "Invoke AI"), anywhere=True),
    Generator("Fooocus", ("Fooocus",), anywhere=True),
    Generator("Draw Things", ("Draw Things",)),
    Generator("DreamStudio", ("DreamStudio",), anywhere=True),
    Generator("NovelAI", ("NovelAI", "NovelAI Diffusion"), anywhere=True),
    Generator("Adobe Firefly", ("Adobe Firefly", "Adobe_Firefly"), shared=("Firefly",)),
    Generator(
        "Google Imagen",
        ("Google Imagen", "imagen-3.0", "imagen-4.0"),
        shared=("Imagen 2", "Imagen 3", "Imagen 4"),
    ),
    Generator(
        "Google Gemini",
        ("Google Gemini", "Nano Banana", "nano-banana", "gemini-2.5-flash-image"),
        shared=("Gemini",),
    ),
    Generator("Grok", ("Grok Imagine", "grok-imagine-image"), shared=("Grok", "xAI")),
    Generator(
        "FLUX",
        ("Black Forest Labs", "FLUX.1", "FLUX.2", "flux-dev", "flux-pro"),
        shared=("FLUX 1", "FLUX 2", "Flux"),
    ),
    Generator("Qwen-Image", ("Qwen-Image", "Qwen Image", "qwen-image-edit", "Qwen", "通义千问")),
    Generator(
        "Tongyi Wanxiang",
        ("Tongyi Wanxiang", "通义万相", "Wan2.7-image", "wan2.7-image-pro"),
        shared=("Wanxiang",),
    ),
    Generator("Doubao", ("Doubao", "豆包")),
    Generator("Jimeng", ("Jimeng", "即梦", "Dreamina"), anywhere=True),
    Generator("Seedream", ("Seedream", "SeedEdit", "BytePlus"), anywhere=True),
    Generator("Kling", ("Kling AI", "KlingAI", "可灵"), shared=("Kling",)),
    Generator("Kolors", ("可图",), shared=("Kolors",)),
    Generator("Hunyuan", ("Hunyuan", "Hunyuan Image", "HunyuanImage", "混元")),
    Generator("ERNIE", ("ERNIE-ViLG", "ERNIE Image", "文心一格", "文心一言")),
    Generator("CogView", ("CogView", "智谱清言"), anywhere=True),
    Generator("MiniMax", ("Hailuo AI", "海螺AI"), shared=("MiniMax",)),
    Generator("LiblibAI", ("LiblibAI", "哩布哩布"), anywhere=True),
    Generator("Ideogram", ("Ideogram AI", "Ideogram"), anywhere=True),
    Generator("Leonardo.Ai", ("Leonardo.Ai", "Leonardo AI"), anywhere=True),
    Generator("Recraft", ("Recraft AI", "recraft.ai"), shared=("Recraft",)),
    Generator("Reve", ("reve.com", "Reve Image")),
    Generator("Krea", ("krea.ai", "Krea AI"), shared=("Krea",)),
    Generator("Runway", ("RunwayML", "Runway Gen-4"), shared=("Runway",)),
    Generator("Playground AI", ("Playground AI", "playgroundai", "Playground v2.5")),
    Generator("NightCafe", ("NightCafe",), anywhere=True),
    Generator("Craiyon", ("Craiyon",), anywhere=True),
    Generator(
        "Bing Image Creator", ("Bing Image Creator", "Microsoft Image Creator"), anywhere=True
    ),
    Generator("Microsoft Designer", ("Microsoft Designer", "Microsoft Copilot"), "ai_possible"),
    Generator(
        "Amazon Titan",
        ("Amazon Titan", "Titan Image Generator", "Amazon Nova Canvas", "Nova Canvas"),
    ),
    Generator("Meta AI", ("Imagined with AI", "Made with Meta AI", "Meta AI"), anywhere=True),
    Generator("Aphrodite AI", ("Aphrodite AI",), anywhere=True),
    Generator("PixAI", ("PixAI",), anywhere=True),
    Generator("Civitai", ("Civitai",), anywhere=True),
)

_MAX_NAME_TEXT = 2000
_JOB = re.compile(r"\bJob ID: ?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SIGNATURE = re.compile(r"Signature: [A-Za-z0-9+/=]{64,}")


def find_generator(text: str, *, author: bool = False) -> Generator | None:
    """The generator that a short text names, or None; only the first 2000 characters are looked at.

    author: whether the text names a person, a firm or a model rather than software, so that only rare names count.
    """
    start = text[:_MAX_NAME_TEXT]
    for generator, pattern in _patterns("words"):
        if (generator.anywhere or not author) and pattern.search(start):
            return generator
    for generator, pattern in () if author else _patterns("shared"):
        if pattern.search(start):
            return replace(generator, declares="ai_possible")
    return None


def find_handwriting(texts: dict[str, str]) -> str:
    """The generator known by how it fills several fields, or "". texts: by the names of EXIF or PNG fields.

    Midjourney ends its description with a job; Grok signs in ImageDescription and writes an identifier as the Artist.
    """
    description = texts.get("ImageDescription", "") or texts.get("Description", "")
    if _JOB.search(description[-_MAX_NAME_TEXT:]):
        return "Midjourney"
    if _SIGNATURE.match(description[:_MAX_NAME_TEXT]) and _UUID.fullmatch(
        texts.get("Artist", "").strip()
    ):
        return "Grok"
    return ""


@cache
def _patterns(which: str) -> tuple[tuple[Generator, re.Pattern[str]], ...]:
    # Between letters of scripts without spaces there is no word boundary to ask for.
    def word(text: str) -> str:
        escaped = re.escape(text)
        return rf"(?<![^\W_]){escaped}(?![^\W_])" if text.isascii() or "·" in text else escaped

    listed = ((generator, getattr(generator, which)) for generator in GENERATORS)
    return tuple(
        (g, re.compile("|".join(map(word, words)), re.IGNORECASE)) for g, words in listed if words
    )
