"""What a photo went through before it was handed in: named, repeatable chains of steps, for a photo and its mask.

A suite is data (`configs/robustness`): each perturbation a title and a list of steps, each step a name of `STEPS` with
its parameters. What a step draws depends on the seed, the perturbation and the pair alone, so both halves of a pair,
and both classes, go through the very same, and no trace of the laundering tells them apart.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

from realdamage.data import degradations
from realdamage.data.degradations import FILTERS, SUBSAMPLINGS
from realdamage.errors import ConfigError
from realdamage.evaluation import capture, steps
from realdamage.evaluation.steps import DrawnStep, Pixels

PlainStep = degradations.Jpeg | degradations.Webp | degradations.Blur | degradations.Resize

STEPS: Mapping[str, type] = {
    "jpeg": degradations.Jpeg,
    "webp": degradations.Webp,
    "double_jpeg": steps.DoubleJpeg,
    "resize": degradations.Resize,
    "resize_back": steps.ResizeBack,
    "crop": steps.Crop,
    "blur": degradations.Blur,
    "noise": steps.Noise,
    "sharpen": steps.Sharpen,
    "denoise": steps.Denoise,
    "screenshot": capture.Screenshot,
    "recapture": capture.Recapture,
}
"""The names that a suite's steps go by; their parameters are the fields of these classes."""

# A parameter means the same in every step that has it: (lowest, highest).
_RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("quality", "first", "second"), (1, 100)),
    **dict.fromkeys(("keep", "bar"), (0.05, 1)),
    **dict.fromkeys(("strength", "moire"), (0, 1)),
    **dict.fromkeys(("sigma", "noise"), (0, 100)),
    **dict.fromkeys(("radius", "chroma"), (0.1, 20)),
    "scale": (0.05, 4),
    "percent": (0, 500),
}
_CHOICES: Mapping[str, Mapping[str, Any]] = {"filter": FILTERS, "subsampling": SUBSAMPLINGS}
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
# How people and tables call the photo as it is.
_RESERVED = ("clean", "none")


@dataclass(frozen=True)
class Perturbation:
    """A chain of steps. name: in the predictions' column `perturbation`. title: for people."""

    name: str
    title: str
    steps: tuple[DrawnStep | PlainStep, ...]

    @property
    def file_quality(self) -> int | None:
        """Quality of the JPEG file that the chain hands in, as its tables tell it; None: another file, or no file."""
        last = self.steps[-1]
        if isinstance(last, steps.DoubleJpeg):
            return last.second
        if isinstance(last, degradations.Jpeg | capture.Screenshot | capture.Recapture):
            return last.quality
        return None

    def __call__(self, photo: Pixels, *, seed: int, key: str) -> Pixels:
        """The photo and its mask after all steps. What they draw depends on (seed, name, key) alone; give both halves
        of a pair the same `key`."""
        digest = hashlib.sha256(f"{seed}\0{self.name}\0{key}".encode()).digest()
        words = np.frombuffer(digest, dtype=np.uint32).tolist()
        for position, step in enumerate(self.steps):
            # A stream for each step, so that what one draws does not shift the next one's.
            photo = _apply(step, photo, np.random.default_rng([*words, position]))
        return photo


def _apply(step: DrawnStep | PlainStep, photo: Pixels, rng: np.random.Generator) -> Pixels:
    if isinstance(step, degradations.Resize):
        height, width = photo.rgb.shape[:2]
        return photo.resized(
            (max(1, round(height * step.scale)), max(1, round(width * step.scale))), step.filter
        )
    if isinstance(step, degradations.Jpeg | degradations.Webp | degradations.Blur):
        return photo._replace(rgb=step(photo.rgb))
    return step(photo, rng)


def suite_from_config(config: Mapping[str, Any]) -> tuple[Perturbation, ...]:
    """The perturbations of the section `robustness` of a configuration, as plain values: {"perturbations": {name:
    {"title": …, "steps": [{"step": name of STEPS, parameter: value, …}, …]}, or None for one taken out}}.

    Raises ConfigError naming the key, what was found there and what is allowed.
    """
    return tuple(
        _perturbation(str(name), entry)
        for name, entry in config["perturbations"].items()
        if entry is not None
    )


def _perturbation(name: str, entry: Any) -> Perturbation:
    where = f"robustness.perturbations.{name}"
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigError(
            f"{where}: give it a name of small letters, digits and _; {' and '.join(_RESERVED)} mean the photo as it is"
        )
    if not isinstance(entry, Mapping) or set(entry) - {"title", "steps"}:
        found = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else entry
        raise ConfigError(f"{where} has the keys title and steps; found {found}")
    chain = entry.get("steps")
    if not isinstance(chain, Sequence) or isinstance(chain, str) or not chain:
        raise ConfigError(
            f"{where}.steps={chain}: a list with at least one step of {', '.join(STEPS)}; or set {where}=null"
        )
    made = tuple(_step(f"{where}.steps[{index}]", values) for index, values in enumerate(chain))
    return Perturbation(name, str(entry.get("title") or name), made)


def _step(where: str, values: Any) -> DrawnStep | PlainStep:
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where}={values}: a step is written {{step: NAME, parameter: value, …}}"
        )
    given = {str(key): value for key, value in values.items()}
    kind = given.pop("step", None)
    if kind not in STEPS:
        raise ConfigError(
            f"{where}.step={kind}: unknown{_hint(str(kind), STEPS)}; allowed are {', '.join(STEPS)}"
        )
    known = {field.name: field for field in fields(STEPS[kind])}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"{where}.{name}={value}: the step {kind} has no such parameter{_hint(name, known)}; "
                f"its parameters are {', '.join(known)}"
            )
    missing = [
        name for name, field in known.items() if field.default is MISSING and name not in given
    ]
    if missing:
        raise ConfigError(
            f"{where}: the step {kind} needs {missing[0]}; found {', '.join(given) or 'no parameter'}"
        )
    hints = typing.get_type_hints(STEPS[kind])
    checked = {
        name: _value(f"{where}.{name}", name, value, hints[name]) for name, value in given.items()
    }
    made: DrawnStep | PlainStep = STEPS[kind](**checked)
    return made


def _value(where: str, name: str, value: Any, hint: type) -> Any:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ConfigError(f"{where}={value}: allowed are {', '.join(_CHOICES[name])}")
        return value
    low, high = _RANGES[name]
    allowed = int if hint is int else int | float
    if (
        isinstance(value, bool)
        or not isinstance(value, allowed)
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        sort = "whole number" if hint is int else "number"
        raise ConfigError(f"{where}={value}: must be a {sort} in {low:g}..{high:g}")
    return hint(value)


def _hint(word: str, choices: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
