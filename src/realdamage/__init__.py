"""Distinguishes real damage from AI-synthesized damage on product photos.

The names below load on first use, so that `import realdamage` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realdamage.core.detector import Detector
    from realdamage.core.verdict import Verdict
    from realdamage.errors import PhotoError, RealDamageError

    __version__: str

__all__ = ["Detector", "PhotoError", "RealDamageError", "Verdict", "__version__"]

_HOMES = {
    "Detector": "realdamage.core.detector",
    "PhotoError": "realdamage.errors",
    "RealDamageError": "realdamage.errors",
    "Verdict": "realdamage.core.verdict",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("realdamage")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
