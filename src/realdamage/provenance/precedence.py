"""What a photo's file declares, as typed values, and the rule that makes one declaration of
several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from realdamage.core.verdict import Reason
from realdamage.phrases import Phrase, in_english, phrase

# "none" proves nothing: most chats drop metadata, and anyone can remove them.
Declared: TypeAlias = Literal["ai_generated", "ai_edited", "ai_possible", "ai_suspected", "none"]
ThumbnailState: TypeAlias = Literal["none", "matches", "differs"]
Said: TypeAlias = Sequence[Phrase]

_FIRM = ("ai_generated", "ai_edited")
_STRENGTH = (*_FIRM, "ai_possible", "ai_suspected", "none")
# The harder to write by accident, the earlier; one row is one standard.
_RANKS = (
    ("c2pa",),
    ("tc260_xmp", "tc260_png", "tc260_exif", "tc260_jpeg", "tc260_description", "tc260_video"),
    ("iptc",),
    ("png_parameters", "comfyui"),
    ("generator_name",),
)
# IPTC's digital source types (XMP and C2PA use them) that declare AI, or may. All other codes
# declare no AI. https://cv.iptc.org/newscodes/digitalsourcetype/
DECLARING: dict[str, Declared] = {
    "trainedAlgorithmicMedia": "ai_generated",
    "compositeWithTrainedAlgorithmicMedia": "ai_edited",
    "compositeSynthetic": "ai_possible",  # a synthetic element, made by a network or by hand
    "algorithmicMedia": "ai_possible",  # by an algorithm without training, such as a fractal
    "trainedAlgorithmicData": "ai_possible",  # C2PA's own: data from a model, perhaps no picture
}
# Those of pictures that a lens or a scanner made.
CAPTURES = frozenset(
    {"digitalCapture", "computationalCapture", "compositeCapture"}
    | {"negativeFilm", "positiveFilm", "print"}
)
_BY_LOWER = {name.lower(): name for name in (*DECLARING, *CAPTURES)}


@dataclass(frozen=True)
class Finding:
    """One thing in the file that says where the picture comes from.

    form: stable code: c2pa, iptc, tc260_xmp, tc260_png, tc260_exif, tc260_jpeg, tc260_description,
        tc260_video, png_parameters, comfyui, generator_name.
    declares: "none" for a finding without AI, such as a camera's content credentials.
    where: block and byte in the file. fields: what was read. phrases: as in `Reason`.
    """

    form: str
    declares: Declared
    where: str
    fields: dict[str, str]
    sentence: str
    phrases: tuple[Phrase, ...] = ()

    @classmethod
    def of(
        cls, form: str, declares: Declared, where: str, fields: dict[str, str], phrases: Said
    ) -> Finding:
        """A finding whose sentence is these phrases in English."""
        return cls(form, declares, where, fields, in_english(phrases), tuple(phrases))

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        phrases = [one.to_dict() for one in self.phrases]
        return {**asdict(replace(self, phrases=())), "phrases": phrases}


@dataclass(frozen=True)
class CameraFacts:
    """What EXIF says about the camera, "" where it says nothing; anyone can write it.

    taken: as 2026-01-31T12:30:00, with the file's offset. gps: whether there is a position.
    """

    make: str = ""
    model: str = ""
    software: str = ""
    taken: str = ""
    gps: bool = False
    thumbnail: ThumbnailState = "none"


@dataclass(frozen=True)
class Provenance:
    """All that a file says about its origin. findings: in the order of `in_order`.

    notes: limits of the reading, and contradictions.
    trust_anchors_sha256: of the list of authorities that signers were checked against, or "".
    """

    declared: Declared
    findings: tuple[Finding, ...]
    camera: CameraFacts
    notes: tuple[Reason, ...]
    photo_sha256: str
    trust_anchors_sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        values = asdict(replace(self, findings=(), notes=()))
        values["findings"] = [finding.to_dict() for finding in self.findings]
        values["notes"] = [note.to_dict() for note in self.notes]
        return values


def source_type_code(value: str) -> str:
    """The short code of a source type given as a full address, with a prefix, or as the code."""
    code = value.strip().rstrip("/").rpartition("/")[2].rpartition(":")[2].strip()
    return _BY_LOWER.get(code.lower(), code)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, the deciding one first; equals keep their order.

    A firm declaration (generated, edited) comes before a hedged one (possible, suspected), and that
    before none; then the form decides (`_RANKS`), then the stronger declaration.
    """
    return tuple(sorted(findings, key=_key))


def _key(finding: Finding) -> tuple[int, int, int]:
    hedge = 0 if finding.declares in _FIRM else 2 if finding.declares == "none" else 1
    ranks = [index for index, forms in enumerate(_RANKS) if finding.form in forms]
    return hedge, ranks[0] if ranks else len(_RANKS), _STRENGTH.index(finding.declares)


def conflicts(ordered: Sequence[Finding]) -> list[Reason]:
    """A note for declarations that exclude each other: a camera's capture and AI, or two firm ones.

    ordered: as from `in_order`.
    """
    if not ordered or ordered[0].declares == "none":
        return []
    first = ordered[0]
    notes: dict[Phrase, None] = {}  # each once, in order
    for other in ordered[1:]:
        if other.declares == "none" and other.fields.get("digital_source_type") in CAPTURES:
            notes[phrase("yet_camera", form=other.form)] = None
        elif {first.declares, other.declares} == set(_FIRM):
            notes[phrase(f"yet_{other.declares}", form=other.form)] = None
    declares = phrase(f"first_{first.declares}", form=first.form)
    return [Reason.of("declarations_conflict", declares, note) for note in notes]
