"""A judged claim as a terminal shows it."""

from __future__ import annotations

import textwrap

from realdamage.claims.decide import Claim

_WIDTH = 118


def format_claim(claim: Claim) -> str:
    """A line a photo, the recommendation with its reasons, and the texts for the buyer."""
    width = max(len(photo.name) for photo in claim.photos)
    lines = [f"claim {claim.claim_id}: {claim.recommendation}", ""]
    for photo in claim.photos:
        found = [photo.error.removeprefix(f"{photo.name}: ")] if photo.error else []
        if photo.verdict is not None:
            found.append(f"{photo.verdict.outcome} {photo.verdict.score:+.2f}")
        if photo.provenance is not None and photo.provenance.declared != "none":
            found.append(f"declares {photo.provenance.declared}")
        found += [
            f"{one.outcome} as {name}"
            for name, one in photo.comparisons
            if one.outcome != "unrelated"
        ]
        for one in photo.duplicates:
            of_claim = f" of {one.claim_id}" if one.claim_id else ""
            found.append(f"{'same file' if one.exact else 'looks the same'} as {one.of}{of_claim}")
        lines.append(f"  {photo.name:<{width}}  {', '.join(found)}")
    lines.append("")
    lines += [
        line for reason in claim.reasons for line in _wrapped(f"{reason.code}: {reason.sentence}")
    ]
    lines += ["", "for the buyer"]
    lines += [line for text in claim.message_to_buyer.values() for line in _wrapped(text)]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False
    )
