"""What a photo's file says of itself, as typed values that travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from realdamage.core.verdict import Reason
from realdamage.errors import RealDamageError
from realdamage.phrases import Phrase, in_english, read_phrases

# What the file itself says. "none" proves nothing: metadata is lost in most chats, and easily removed.
Declared: TypeAlias = Literal["ai_generated", "ai_edited", "ai_possible", "ai_suspected", "none"]
ThumbnailState: TypeAlias = Literal["none", "matches", "differs"]


@dataclass(frozen=True)
class Finding:
    """One thing in the file that says where the picture comes from.

    form: stable code: c2pa, iptc, tc260_xmp, tc260_png, tc260_exif, tc260_jpeg, tc260_description, png_parameters,
        comfyui, generator_name, platform_label (a platform's own label, which is none of a standard).
    declares: what this one says; "none" when it was found but declares no AI, as the credentials of a camera do.
    where: block and byte in the file. fields: what was read, at most 32 values of at most 300 characters.
    phrases: what the sentence is made of, as in `Reason`.
    """

    form: str
    declares: Declared
    where: str
    fields: dict[str, str]
    sentence: str
    phrases: tuple[Phrase, ...] = ()

    @classmethod
    def of(
        cls,
        form: str,
        declares: Declared,
        where: str,
        fields: dict[str, str],
        phrases: Sequence[Phrase],
    ) -> Finding:
        """A finding whose sentence is these phrases in English."""
        return cls(form, declares, where, fields, in_english(phrases), tuple(phrases))

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        values = {
            name: getattr(self, name)
            for name in ("form", "declares", "where", "fields", "sentence")
        }
        return {**values, "phrases": [one.to_dict() for one in self.phrases]}


@dataclass(frozen=True)
class CameraFacts:
    """What EXIF says of the camera, "" where it says nothing; anyone can write it.

    taken: as 2026-01-31T12:30:00, with the offset when the file has one. gps: whether a position is there; the position
    itself is never read out. thumbnail: "differs" when the small picture inside the file shows something else.
    """

    make: str = ""
    model: str = ""
    software: str = ""
    taken: str = ""
    gps: bool = False
    thumbnail: ThumbnailState = "none"


@dataclass(frozen=True)
class Provenance:
    """All that a file says of itself.

    declared: by the rule in `precedence.declared_by`. findings: in the order of that rule.
    notes: what limits the reading (broken_metadata, metadata_limit, file_cut_off, not_a_photo, c2pa_unavailable,
        c2pa_invalid, c2pa_untrusted, c2pa_remote, declarations_conflict, label_unclear, thumbnail_differs,
        absence_proves_nothing).
    photo_sha256: hex digest of the file's bytes. trust_anchors_sha256: of the list of authorities that signers were
        checked against, "" without one.
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
        findings, notes = (
            [one.to_dict() for one in found] for found in (self.findings, self.notes)
        )
        return {**values, "findings": findings, "notes": notes}

    @classmethod
    def from_dict(cls, values: Any) -> Provenance:
        """Read what `to_dict` wrote. Raises RealDamageError on anything else."""
        try:
            findings = tuple(
                Finding(
                    _text(v["form"]),
                    _one_of(get_args(Declared), v["declares"]),
                    _text(v["where"]),
                    {_text(key): _text(value) for key, value in _mapping(v["fields"]).items()},
                    _text(v["sentence"]),
                    read_phrases(v.get("phrases")),
                )
                for v in values["findings"]
            )
            camera = CameraFacts(**_mapping(values["camera"]))
            for name in ("make", "model", "software", "taken"):
                _text(getattr(camera, name))
            if not isinstance(camera.gps, bool):
                raise TypeError(f"gps is {camera.gps!r}, neither true nor false")
            _one_of(get_args(ThumbnailState), camera.thumbnail)
            notes = tuple(Reason.from_dict(v) for v in values["notes"])
            for note in notes:
                _text(note.code)
                _text(note.sentence)
            declared: Declared = _one_of(get_args(Declared), values["declared"])
            anchors = _text(
                values.get("trust_anchors_sha256", "")
            )  # older versions knew no such list
            return cls(declared, findings, camera, notes, _text(values["photo_sha256"]), anchors)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RealDamageError(
                f"not a provenance in JSON ({type(error).__name__}: {error}); expected what Provenance.to_dict gave"
            ) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, found {value!r}")
    return value


def _one_of(allowed: tuple[Any, ...], value: Any) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return value
