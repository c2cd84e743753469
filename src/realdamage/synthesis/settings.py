"""What a recipe may say, checked before anything is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from realdamage.data.vocabulary import CONDITIONS, DAMAGES
from realdamage.errors import SynthesisError
from realdamage.synthesis.generators import GeneratorSettings
from realdamage.synthesis.group import DERIVED


@dataclass(frozen=True)
class SourceSettings:
    """Where the real photos come from. `kind`: "studio" (rendered, needs no files) or "manifest" (the real photos of
    `root`); `splits`: a split table (`realdamage split --output`) for these photos, which then says who is locked away;
    `groups`: how many scenes the studio renders; `damaged_share`: of the studio's scenes, in 0..1; `per_source`: at
    most so many photos of each source of the manifest (None: all), drawn at random, with `damaged_first` the really
    damaged ones before the others; `max_side`: larger photos are resized to it, in pixels; `crop`: then a random square
    of this side is cut from larger photos (None: none is), which keeps a camera's own pixels and saves codecs time;
    `more`: further folders of real photos, used like `root`."""

    kind: str = "studio"
    root: str | None = None
    more: Sequence[str] = ()
    splits: str | None = None
    groups: int = 200
    damaged_share: float = 0.5
    per_source: int | None = None
    damaged_first: bool = False
    max_side: int = 2048
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 64:
            raise SynthesisError(
                f"recipe.source.crop={self.crop}: must be at least 64 pixels, or null"
            )


@dataclass(frozen=True)
class WriterSettings:
    """`quality`: range of JPEG qualities to draw from; None: the quantisation tables of the source photos."""

    quality: tuple[int, int] | None = (90, 97)


@dataclass(frozen=True)
class IncludeSettings:
    """A finished set that becomes a part of this one: photos of real generators, say. `root`: its folder; `splits`: a
    split table for it; `fractions`: its splits where neither the table nor the set says them; `exceptions`: shortcut
    tests of the audit that it cannot pass, and why. Photos that the recipe edits are not included a second time."""

    name: str
    root: str | None = None
    splits: str | None = None
    fractions: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2}
    )
    exceptions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What to make. `shares`: how many photos of each derived kind a real photo gets on average, for each condition of
    the product ("default" for those not named); `paint_share`: of the AI edits that add damage, in 0..1, None: as many
    as keep damage equally frequent in both classes, so that "damaged" does not mean synthetic; `overlay_share`: of the
    edits that get honest annotations on top; `damages`: types to draw from (None: as often as on the real photos)."""

    name: str = "custom"
    seed: int = 0
    source: SourceSettings = field(default_factory=SourceSettings)
    shares: Mapping[str, Mapping[str, float]] = field(
        default_factory=lambda: {
            "damaged": {"annotated": 0.5, "ai_region": 0.4, "ai_whole": 0.1},
            "default": {"annotated": 0.1, "ai_region": 1.5, "ai_whole": 0.4, "pasted": 0.2},
        }
    )
    paint_share: float | None = None
    overlay_share: float = 0.1
    damages: Sequence[str] | None = None
    generators: Sequence[GeneratorSettings] = (GeneratorSettings("house", "house", "house"),)
    prompts: Mapping[str, Any] = field(default_factory=dict)
    include: Sequence[IncludeSettings] = ()
    writer: WriterSettings = field(default_factory=WriterSettings)
    fractions: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.6, "val": 0.2, "test": 0.2}
    )
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.source.kind not in ("studio", "manifest"):
            raise SynthesisError(
                f"recipe.source.kind={self.source.kind}: allowed are studio, manifest"
            )
        if self.source.kind == "manifest" and not self.source.root:
            raise SynthesisError("recipe.source.root is empty: give the folder of the real photos")
        for condition, shares in self.shares.items():
            if condition not in (*CONDITIONS, "default"):
                raise SynthesisError(
                    f"recipe.shares.{condition}: allowed are {', '.join(CONDITIONS)}, default"
                )
            for kind, share in shares.items():
                if kind not in DERIVED or not 0.0 <= share <= 100.0:
                    raise SynthesisError(
                        f"recipe.shares.{condition}.{kind}={share}: kinds are {', '.join(DERIVED)}, in 0..100"
                    )
        for name in ("paint_share", "overlay_share"):
            share = getattr(self, name)
            if share is not None and not 0.0 <= share <= 1.0:
                raise SynthesisError(f"recipe.{name}={share}: a share lies in 0..1")
        unknown = sorted(set(self.damages or ()) - set(DAMAGES))
        if unknown or (self.damages is not None and not self.damages):
            raise SynthesisError(
                f"recipe.damages={list(self.damages or ())}: allowed are {', '.join(DAMAGES)}"
            )
        for each in self.include:
            key = f"recipe.include.{each.name}"
            if each.name in ("photos", "masks") or not each.name.replace("_", "").isalnum():
                raise SynthesisError(
                    f"{key}: it becomes a folder; give it a name of letters, digits and _, not photos"
                )
            if not each.root:
                raise SynthesisError(
                    f"{key}.root is empty: give its folder, or leave that part out with {key}=null"
                )
        for kind, engines in (("ai_region", ("codec", "inpaint")), ("ai_whole", ("codec", "edit"))):
            wanted = any(shares.get(kind) for shares in self.shares.values())
            if wanted and not any(each.engine in engines for each in self.generators):
                raise SynthesisError(
                    f"recipe.generators has none with engine {' or '.join(engines)}, but {kind} photos are asked for"
                )

    def share(self, condition: str, kind: str) -> float:
        """How many photos of a derived kind a real photo of that condition gets on average."""
        return float(self.shares.get(condition, self.shares.get("default", {})).get(kind, 0.0))

    def digest(self) -> str:
        """SHA-256 of all that decides what is made; the number of workers does not, and the prompts only where a
        generator reads them."""
        talks = any(each.engine != "codec" for each in self.generators)
        shares = {
            condition: {k: v for k, v in kinds.items() if v}
            for condition, kinds in self.shares.items()
        }
        content = {
            **asdict(self),
            "shares": shares,
            "workers": None,
            "prompts": self.prompts if talks else None,
        }
        return hashlib.sha256(
            json.dumps(content, sort_keys=True, default=list).encode()
        ).hexdigest()


def recipe_from_config(recipe: Mapping[str, Any], prompts: Mapping[str, Any]) -> Recipe:
    """A Recipe from the sections `recipe` and `prompts` of a configuration of `synthesize`, as plain values.

    Raises SynthesisError: a value that is not allowed.
    """
    quality = recipe["writer"]["quality"]
    damages = recipe["damages"]
    values = {
        **recipe,
        "source": SourceSettings(**recipe["source"]),
        "damages": None if damages is None else tuple(damages),
        "generators": tuple(
            GeneratorSettings(name, **each)
            for name, each in recipe["generators"].items()
            if each and each["weights"]
        ),
        "include": tuple(
            IncludeSettings(name, **each) for name, each in recipe["include"].items() if each
        ),
        "writer": WriterSettings(quality and (quality[0], quality[1])),
    }
    return Recipe(**values, prompts=prompts)
