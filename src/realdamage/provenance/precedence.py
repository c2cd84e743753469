"""The one rule that turns several findings into what the file declares."""

from __future__ import annotations

from collections.abc import Iterable

from realdamage.core.verdict import Reason
from realdamage.phrases import Phrase, phrase
from realdamage.provenance.precedence import CAPTURES, Declared, Finding

_FIRM = ("ai_generated", "ai_edited")
_STRENGTH: tuple[Declared, ...] = (
    "ai_generated",
    "ai_edited",
    "ai_possible",
    "ai_suspected",
    "none",
)
# The harder to write by accident, the earlier; forms of one rank are one standard's.
_RANKS = (
    ("c2pa",),
    ("tc260_xmp", "tc260_png", "tc260_exif", "tc260_jpeg", "tc260_description"),
    ("iptc",),
    ("png_parameters", "comfyui"),
    ("generator_name",),
    ("platform_label",),
)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, that which decides first; equals stay as they came.

    A firm declaration (generated, edited) goes before a hedged one (possible, suspected), and that before none. Among
    those, the form decides: content credentials whose signature and hash hold (others declare nothing), the label of
    GB 45438, IPTC's source type, a recipe, a generator's name, a platform's label. Within a form the stronger goes
    first: generated before edited, possible before suspected. A finding of "none", such as a camera's credentials,
    never takes back what another declares.
    """
    return tuple(sorted(findings, key=_key))


def declared_by(findings: Iterable[Finding]) -> Declared:
    """What the first of the findings `in_order` declares; "none" without findings."""
    ordered = in_order(findings)
    return ordered[0].declares if ordered else "none"


def conflicts(findings: Iterable[Finding]) -> list[Reason]:
    """A note for declarations that cannot both hold: a capture by a camera and AI, or two firm ones that differ."""
    ordered = in_order(findings)
    if not ordered or ordered[0].declares == "none":
        return []
    first = ordered[0]
    notes: list[Phrase] = []
    for other in ordered[1:]:
        if other.fields.get("digital_source_type") in CAPTURES and other.declares == "none":
            notes.append(phrase("yet_camera", form=other.form))
        elif (
            first.declares in _FIRM and other.declares in _FIRM and other.declares != first.declares
        ):
            notes.append(phrase(f"yet_{other.declares}", form=other.form))
    declares = phrase(f"first_{first.declares}", form=first.form)
    distinct = [note for index, note in enumerate(notes) if note not in notes[:index]]
    return [Reason.of("declarations_conflict", declares, note) for note in distinct]


def _key(finding: Finding) -> tuple[int, int, int]:
    hedge = 0 if finding.declares in _FIRM else 2 if finding.declares == "none" else 1
    rank = next((index for index, forms in enumerate(_RANKS) if finding.form in forms), len(_RANKS))
    return hedge, rank, _STRENGTH.index(finding.declares)
