"""Renders evidence.html: one file that loads nothing, runs no script and prints well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from realdamage.claims.decide import Claim
from realdamage.claims.policy import Recommendation
from realdamage.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment

    from realdamage.claims.evidence import PhotoPictures

TITLES: dict[Recommendation, str] = {
    "approve": "Approve: nothing found for which the policy asks more",
    "ask_photo": "Ask for another photo",
    "review": "Review: an agent should look at it",
    "escalate": "Escalate: a specialist should look at it and decide",
}


def render_page(
    claim: Claim, pictures: Sequence[PhotoPictures | None], json_sha256: str, kept: Sequence[str]
) -> str:
    """The page as HTML. Names, texts and metadata come from strangers' files: all are escaped.

    pictures: of each photo, None where it could not be read. json_sha256: of evidence.json. kept:
        originals in the folder. Raises MissingExtraError without jinja2.
    """
    notes = {"no_promise", "false_alarm_bound"}
    template = environment().get_template("evidence.html.j2")
    return template.render(
        claim=claim,
        title=TITLES[claim.recommendation],
        photos=list(zip(claim.photos, pictures, strict=True)),
        found=[one for one in claim.reasons if one.code not in notes],
        promise=[one for one in claim.reasons if one.code in notes],
        json_sha256=json_sha256,
        kept=kept,
    )


def render_statements(sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The part of the page with both sides. sides: the values of each statement.json under "buyer"
    and "merchant", with `received` as text and `pictures` as data URIs."""
    return environment().get_template("statements.html.j2").render(sides=sides)


@cache
def environment() -> Environment:
    """The templates of this room; all values are escaped."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingExtraError("the evidence page", "claims", error.name) from None
    return Environment(
        loader=PackageLoader("realdamage.claims", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
