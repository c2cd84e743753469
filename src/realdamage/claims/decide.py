"""A judged claim, and the rules that turn its findings into one recommendation.

Each finding has its rule, and the most serious recommendation counts. Reasons say what was found in
photos and files, never what a person did or meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from realdamage.claims.policy import RECOMMENDATIONS, ClaimPolicy, Recommendation, message_to_buyer
from realdamage.core.verdict import Reason, Verdict
from realdamage.phrases import Phrase, phrase, said_of

if TYPE_CHECKING:
    from realdamage.claims.marks import Mark
    from realdamage.photo_pairs import Comparison
    from realdamage.photo_pairs.persist import DamageDiffers
    from realdamage.provenance import Provenance

SCHEMA_VERSION = 1
"""Of the claim's JSON (evidence.schema.json): every version keeps its keys."""
_UNFIT = ("too_small", "too_soft", "too_compressed")  # codes of the quality gate
_WHOLE = "whole_photo_processed"


@dataclass(frozen=True)
class Duplicate:
    """A photo that was seen before. photo: its name. of: the other photo, "photo N" for one of an
    earlier claim. claim_id, seen: of that claim, ISO 8601 in UTC; "" in this claim. distance: bits
    of 256 in which the perceptual hashes differ. exact: the same bytes."""

    photo: str
    of: str
    claim_id: str
    distance: int
    exact: bool
    seen: str
    mirrored: bool = False


@dataclass(frozen=True)
class ClaimPhoto:
    """One photo of a claim. verdict, provenance: None for an unreadable photo, see `error`.
    comparisons: (name of the listing photo, result). differs: (name of another photo of this claim,
    a marked region that it does not show)."""

    name: str
    verdict: Verdict | None
    provenance: Provenance | None
    comparisons: tuple[tuple[str, Comparison], ...]
    duplicates: tuple[Duplicate, ...]
    error: str
    sha256: str
    error_phrases: tuple[Phrase, ...] = ()
    marks: tuple[Mark, ...] = ()
    differs: tuple[tuple[str, DamageDiffers], ...] = ()

    def to_dict(self, heatmaps: bool = True) -> dict[str, Any]:
        """Plain JSON types; without heat maps and change maps unless `heatmaps`."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "error": self.error,
            "error_phrases": [one.to_dict() for one in self.error_phrases],
            "verdict": self.verdict.to_dict(heatmaps) if self.verdict else None,
            "provenance": self.provenance.to_dict() if self.provenance else None,
            "comparisons": [
                {"listing": name, **found.to_dict(heatmaps)} for name, found in self.comparisons
            ],
            "duplicates": [asdict(found) for found in self.duplicates],
            "marks": [mark.to_dict() for mark in self.marks],
            "differs": [{"other": name, **found.to_dict()} for name, found in self.differs],
        }


@dataclass(frozen=True)
class ListingPhoto:
    """A listing photo. error: why it could not be read, or "". error_phrases: without its name."""

    name: str
    sha256: str
    error: str = ""
    error_phrases: tuple[Phrase, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"error_phrases": [one.to_dict() for one in self.error_phrases]}


@dataclass(frozen=True)
class Claim:
    """A judged claim. created: ISO 8601, UTC. text: what the buyer wrote. reasons: the most serious
    first, then notes. model, versions, videos: as in evidence.schema.json."""

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
    videos: tuple[Mapping[str, Any], ...] = ()

    @property
    def message_to_buyer(self) -> dict[str, str]:
        """The text for the buyer under "en" and "zh"."""
        rules = self.policy.rules
        asking = {one.code for one in self.reasons if getattr(rules, one.code, "") == "ask_photo"}
        whole_item = asking == {"no_photo_matches_listing"}
        return message_to_buyer(self.recommendation, whole_item=whole_item)

    def to_dict(self, heatmaps: bool = True) -> dict[str, Any]:
        """Plain JSON types, as in evidence.schema.json; heat maps as PNG in base64."""
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
            "videos": [dict(video) for video in self.videos],
        }


class Finding(NamedTuple):
    """One thing that was found: its rule (the reason's code), what is said, what it recommends."""

    rule: str
    said: Sequence[Phrase]
    recommends: Recommendation


def decide(
    photos: Sequence[ClaimPhoto],
    listings: Sequence[ListingPhoto],
    policy: ClaimPolicy,
    model: Mapping[str, Any],
    more: Sequence[Finding] = (),
) -> tuple[Recommendation, tuple[Reason, ...]]:
    """The recommendation, and all findings as reasons: the most serious first, then notes, then
    the model's guarantee. model: `Claim.model`. more: what was found outside the photos."""
    rules = _Rules(policy, model, judged=_judged(photos))
    found = [finding for photo in photos for finding in rules.of_photo(photo)]
    found += [*rules.of_claim(photos, listings), *more]
    found.sort(key=lambda finding: -RECOMMENDATIONS.index(finding.recommends))
    reasons = [Reason.of(finding.rule, *finding.said) for finding in found]
    reasons.append(false_alarm_bound(_judged(photos), model))
    return (found[0].recommends if found else "approve"), tuple(reasons)


def found_elsewhere(matches: Sequence[tuple[str, str]], policy: ClaimPolicy) -> list[Finding]:
    """The findings of (shop, kind) matches with hashes that other shops share."""
    recommends, unchecked = policy.rules.seen_at_other_shop, phrase("elsewhere_unchecked")
    return [
        Finding(
            "seen_at_other_shop", (phrase(f"elsewhere_{kind}", shop=shop), unchecked), recommends
        )
        for shop, kind in matches
    ]


def false_alarm_bound(photos: int, model: Mapping[str, Any]) -> Reason:
    """What the model guarantees for an honest claim with this many photos, or that it guarantees
    nothing."""
    accused = (model["guarantee"] or {}).get("accused")
    if accused is None:
        return Reason.of("no_promise", phrase("no_promise"))
    share, bound = _percent(accused["share"]), _percent(min(1.0, photos * accused["share"]))
    confidence = f"{1 - model['guarantee']['delta']:.0%}"
    many = "bound_of_one" if photos == 1 else "bound_of_several"
    return Reason.of(
        "false_alarm_bound",
        phrase("false_alarm_bound", confidence=confidence, share=share),
        phrase(many, photos=photos, bound=bound, share=share),
        phrase("bound_rests_on", calibrated=accused["photos"]),
    )


def _judged(photos: Sequence[ClaimPhoto]) -> int:
    return sum(photo.verdict is not None for photo in photos)


class _Rules:
    """The policy applied to one claim; judged: number of photos with a verdict."""

    def __init__(self, policy: ClaimPolicy, model: Mapping[str, Any], judged: int) -> None:
        self.policy, self.model, self.judged = policy, model, judged

    def finding(self, rule: str, *said: Phrase) -> Finding:
        return Finding(rule, said, getattr(self.policy.rules, rule))

    def of_photo(self, photo: ClaimPhoto) -> Iterator[Finding]:
        name = phrase("about", name=photo.name)
        for rule, said, recommends in self._about_photo(photo):
            yield Finding(rule, (name, *said), recommends)

    def _about_photo(self, photo: ClaimPhoto) -> Iterator[Finding]:
        if photo.error:
            text = photo.error.removeprefix(f"{photo.name}: ")
            why = photo.error_phrases or [phrase("verbatim", text=text)]
            said = (phrase("could_not_be_read"), *why, phrase("full_stop"))
            yield self.finding("photo_unreadable", *said)
            return
        if photo.verdict is not None:
            yield from self._of_verdict(photo.verdict)
        if photo.provenance is not None:
            yield from self._of_file(photo.provenance)
        for mark in photo.marks:
            yield self.finding("visible_ai_mark", mark.said)
        for other, found in photo.differs:
            yield self.finding("damage_differs", found.said(other))
        compared = list(self._of_comparisons(photo.comparisons))
        yield from compared
        of_listing = any(finding.rule == "listing_photo_itself" for finding in compared)
        reported = set()
        for seen in photo.duplicates:
            if not seen.claim_id:
                yield self.finding("repeated_in_claim", _of_duplicate(seen))
            elif not of_listing and seen.claim_id not in reported:
                # Nearest first, one for each earlier claim; anyone may send in the listing photo.
                reported.add(seen.claim_id)
                yield self.finding("reused_in_other_claim", _of_duplicate(seen))

    def _of_file(self, provenance: Provenance) -> Iterator[Finding]:
        declared = provenance.declared
        if declared != "none":
            deciding = [one for one in provenance.findings if one.declares == declared]
            said = [phrase(f"declared_{declared}")]
            said += [one for finding in deciding for one in said_of(finding)]
            if not any(one.fields.get("validation") == "trusted" for one in deciding):
                said.append(phrase("nobody_vouches"))
            yield self.finding(f"declared_{declared}", *said)
        if provenance.camera.thumbnail == "differs":
            yield self.finding("preview_differs", phrase("preview_differs"))
        for note in provenance.notes:
            if note.code == "c2pa_invalid":
                yield self.finding("credentials_broken", *said_of(note))

    def _of_verdict(self, verdict: Verdict) -> Iterator[Finding]:
        limit = self.policy.photos.min_side
        if min(verdict.width, verdict.height) < limit:
            size = {"width": verdict.width, "height": verdict.height}
            yield self.finding("photo_too_small", phrase("photo_too_small", **size, limit=limit))
        codes = {reason.code: said_of(reason) for reason in verdict.reasons}
        unfit = [code for code in _UNFIT if code in codes]
        for code in unfit:
            yield self.finding("photo_unfit", *codes[code])
        score = f"{verdict.score:+.2f}"
        if verdict.outcome == "synthetic":
            recommends, why = self.by_verdict()
            said = [phrase("verdict_synthetic", score=score), *why]
            yield Finding("verdict_synthetic", said, recommends)
        elif _WHOLE in codes:
            yield self.finding(_WHOLE, *codes[_WHOLE])
        elif verdict.outcome == "review" and not unfit:
            why = [one for said in codes.values() for one in said]
            yield self.finding("verdict_review", phrase("verdict_review", score=score), *why)

    def by_verdict(self) -> tuple[Recommendation, list[Phrase]]:
        """What an outcome `synthetic` recommends, and why it is not `escalate`, which needs a
        calibrated model with a guarantee within the policy's limit."""
        recommends, limit = self.policy.rules.verdict_synthetic, self.policy.escalate_up_to
        if recommends != "escalate":
            return recommends, []
        if self.model["demo"] or not self.model["calibrated"]:
            why = "held_by_demo" if self.model["demo"] else "held_uncalibrated"
            return "review", [phrase(why)]
        if limit is None:
            return recommends, []
        accused = (self.model["guarantee"] or {}).get("accused")
        if accused is None:
            return "review", [phrase("held_without_promise", limit=_percent(limit))]
        bound = self.judged * accused["share"]
        if bound <= limit:
            return recommends, []
        values = {"limit": _percent(limit), "bound": _percent(bound)}
        return "review", [phrase("held_by_bound", **values, photos=self.judged)]

    def _of_comparisons(self, comparisons: Sequence[tuple[str, Comparison]]) -> Iterator[Finding]:
        """Each same capture among the comparisons with listing photos. A photo that equals one is
        not held against the others: shops show a picture with and without their logo."""
        limits = self.policy.comparison
        same = [
            (listing, found)
            for listing, found in comparisons
            if found.outcome == "same_capture"
            and found.overlap >= limits.min_overlap
            and found.agreement >= limits.min_agreement
        ]
        changed = [bool(one.changes) and one.changed >= limits.min_changed for _, one in same]
        unchanged = [pair for pair, differs in zip(same, changed, strict=True) if not differs]
        for listing, found in unchanged or same:
            shot = phrase("listing_same_shot", listing=listing)
            if found.claim_sha256 == found.listing_sha256:
                said = [phrase("listing_same_file", listing=listing)]
                yield self.finding("listing_photo_itself", *said)
            elif unchanged:
                little = phrase("shot_little_changed", share=f"{found.changed:.2%}")
                what = little if found.changes else phrase("shot_unchanged")
                yield self.finding("listing_photo_itself", shot, what)
            else:
                share, count = f"{found.changed:.1%}", len(found.changes)
                much = phrase("shot_changed_area", share=share)
                if count != 1:
                    much = phrase("shot_changed_areas", count=count, share=share)
                said = [shot, much, phrase("shot_unexplained")]
                yield self.finding("same_capture_changed", *said)
        if comparisons and all(found.outcome == "unrelated" for _, found in comparisons):
            none = phrase("listing_not_alike")
            if len(comparisons) > 1:
                none = phrase("listings_not_alike", count=len(comparisons))
            yield self.finding("listing_unrelated", none)

    def of_claim(
        self, photos: Sequence[ClaimPhoto], listings: Sequence[ListingPhoto]
    ) -> Iterator[Finding]:
        readable, least = sum(not photo.error for photo in photos), self.policy.photos.at_least
        if readable < least:
            few = "too_few_photos_one" if readable == 1 else "too_few_photos"
            yield self.finding("too_few_photos", phrase(few, count=readable, least=least))
        compared = [found for photo in photos for _, found in photo.comparisons]
        if compared and all(found.outcome == "unrelated" for found in compared):
            rule = "no_photo_matches_listing"
            yield self.finding(rule, phrase(rule))
        for listing in listings:
            if listing.error:
                why = [phrase("about", name=listing.name), *listing.error_phrases]
                if not listing.error_phrases:
                    why = [phrase("verbatim", text=listing.error)]
                said = [phrase("not_compared"), *why]
                yield Finding("listing_unreadable", said, "approve")


def _of_duplicate(seen: Duplicate) -> Phrase:
    of: dict[str, str | int] = {"of": seen.of}
    if seen.claim_id:
        of |= {"claim": seen.claim_id, "seen": seen.seen}
    when = "reused" if seen.claim_id else "repeated"
    if seen.exact:
        return phrase(f"{when}_file", **of)
    look = f"{when}_look_mirrored" if seen.mirrored else f"{when}_look"
    return phrase(look, **of, distance=seen.distance)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
