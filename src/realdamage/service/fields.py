"""Reads the text fields of a form into values, or says which one is wrong and what would be right."""

from __future__ import annotations

import math
from collections.abc import Mapping

from realdamage.service.refusals import Refusal


def flag(fields: Mapping[str, str], name: str, default: bool) -> bool:
    """true or false. Raises Refusal 422 on anything else."""
    text = fields.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise Refusal(422, "invalid_field", f"{name}={text[:40]!r}: write true or false")
    return text == "true"


def prior_of(fields: Mapping[str, str]) -> float | None:
    """The share of synthetic photos among the caller's, above 0 and below 1; None when not given."""
    text = fields.get("prior")
    if text is None:
        return None
    try:
        prior = float(text)
    except ValueError:
        prior = math.nan
    if not 0 < prior < 1:
        raise Refusal(
            422,
            "invalid_field",
            f"prior={text[:40]!r} must be a number above 0 and below 1: the share of synthetic photos",
        )
    return prior
