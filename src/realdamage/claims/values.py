"""What a claim is once it has been judged: its photos with all that was found, one recommendation, and its reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from realdamage.claims.policy import ClaimPolicy, Recommendation, message_to_buyer
from realdamage.core.verdict import Reason, Verdict
from realdamage.phrases import Phrase

if TYPE_CHECKING:
    from realdamage.photo_pairs import Comparison
    from realdamage.provenance import Provenance

SCHEMA_VERSION = 1
"""Of the claim's JSON (evidence.schema.json): a reader may rely on every key of its version."""


@dataclass(frozen=True)
class Duplicate:
    """A photo that was seen before, in this claim or in an earlier one.

    photo: name of the claim's photo. of: what it repeats: a photo's name in this claim, "photo N" of an earlier one.
    claim_id: of the earlier claim; "" for this one. distance: bits of 256 in which the perceptual hashes differ.
    exact: the same bytes. seen: when the other was seen, ISO 8601 in UTC; "" in this claim. mirrored: left and right
    are swapped.
    """

    photo: str
    of: str
    claim_id: str
    distance: int
    exact: bool
    seen: str
    mirrored: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class ClaimPhoto:
    """One photo of a claim and all that was found about it.

    verdict, provenance: None where the photo could not be read; `error` then says why, and is "" otherwise.
    comparisons: (name of the listing photo, result), in the order of the listing. sha256: hex digest of the bytes.
    error_phrases: what the error says after the photo's name, as in `Reason`.
    """

    name: str
    verdict: Verdict | None
    provenance: Provenance | None
    comparisons: tuple[tuple[str, Comparison], ...]
    duplicates: tuple[Duplicate, ...]
    error: str
    sha256: str
    error_phrases: tuple[Phrase, ...] = ()

    def to_dict(self, heatmaps: bool = True) -> dict[str, Any]:
        """The values as plain JSON types; without heat maps and change maps unless `heatmaps`."""
        comparisons = [{"listing": name, **found.to_dict()} for name, found in self.comparisons]
        if not heatmaps:
            comparisons = [{**values, "change_map": None} for values in comparisons]
        return {
            "name": self.name,
            "sha256": self.sha256,
            "error": self.error,
            "error_phrases": [one.to_dict() for one in self.error_phrases],
            "verdict": json.loads(self.verdict.to_json(heatmap=heatmaps)) if self.verdict else None,
            "provenance": self.provenance.to_dict() if self.provenance else None,
            "comparisons": comparisons,
            "duplicates": [found.to_dict() for found in self.duplicates],
        }


@dataclass(frozen=True)
class ListingPhoto:
    """A photo of the listing: its name, the digest of its bytes, and why it could not be read ("" when it could).

    error_phrases: what the error says after the photo's name, as in `Reason`.
    """

    name: str
    sha256: str
    error: str = ""
    error_phrases: tuple[Phrase, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        phrases = [one.to_dict() for one in self.error_phrases]
        return {
            "name": self.name,
            "sha256": self.sha256,
            "error": self.error,
            "error_phrases": phrases,
        }


@dataclass(frozen=True)
class Claim:
    """A judged claim.

    text: what the buyer wrote. created: ISO 8601, UTC. recommendation: what to do next; it is about the claim's photos
    and never says what a person did. reasons: why, the weightiest first, then the notes that change nothing.
    model: model_version, graph_sha256, policy_sha256, demo, calibrated, prior (None: the calibration's), thresholds,
    guarantee.
    versions: of the packages that judged.
    """

    claim_id: str
    text: str
    created: str
    photos: tuple[ClaimPhoto, ...]
    listings: tuple[ListingPhoto, ...]
    recommendation: Recommendation
    reasons: tuple[Reason, ...]
    policy: ClaimPolicy
    model: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def message_to_buyer(self) -> dict[str, str]:
        """The text for the buyer under "en" and "zh"; it asks for the whole item alone where that is all that lacks."""
        asking = {
            one.code
            for one in self.reasons
            if getattr(self.policy.rules, one.code, "") == "ask_photo"
        }
        return message_to_buyer(
            self.recommendation, whole_item=asking == {"no_photo_matches_listing"}
        )

    def to_dict(self, heatmaps: bool = True) -> dict[str, Any]:
        """The claim as plain JSON types, as evidence.schema.json describes them; heat maps as PNG in base64."""
        return {
            "schema_version": SCHEMA_VERSION,
            "claim_id": self.claim_id,
            "created": self.created,
            "text": self.text,
            "recommendation": self.recommendation,
            "reasons": [reason.to_dict() for reason in self.reasons],
            "message_to_buyer": self.message_to_buyer,
            "photos": [photo.to_dict(heatmaps) for photo in self.photos],
            "listings": [listing.to_dict() for listing in self.listings],
            "policy": self.policy.to_dict(),
            "model": dict(self.model),
            "versions": dict(self.versions),
        }
