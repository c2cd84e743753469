"""Renders the pages of this room: one HTML file each, which loads nothing from a network or from other files."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

NOTHING = "–"
"""Stands where a figure is missing; the reason stands beside it."""


def render(template: str, **values: Any) -> str:
    """The page as HTML. Every name and message comes from a user's files, so all of them are escaped."""
    return _environment().get_template(template).render(**values)


def figure(value: float | int | None, digits: int = 3) -> str:
    """A number as people read it: counts whole, figures with `digits` decimals, – where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in 0..1 as people read it; small ones with two digits more than none."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{100 * value:.1f}%" if value >= 0.001 or value == 0 else f"{100 * value:.2f}%"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign; a true minus, so that columns line up."""
    if value is None:
        return NOTHING
    return f"{value:+.{digits}f}".replace("-", "−")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("realdamage.rendering", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "signed": signed}
    return environment
