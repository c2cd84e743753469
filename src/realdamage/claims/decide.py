"""From what was found in a claim's photos to one recommendation, by the rules of the policy.

Nothing here weighs one finding against another: each has its rule, and the weightiest recommendation counts. Reasons
say what was found in photos and files; what a person did or meant is not theirs to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from realdamage.claims.decide import ClaimPhoto, Duplicate, ListingPhoto
from realdamage.claims.policy import RECOMMENDATIONS, ClaimPolicy, Recommendation
from realdamage.core.verdict import Reason, Verdict
from realdamage.phrases import Phrase, phrase, said_of

if TYPE_CHECKING:
    from realdamage.photo_pairs import Comparison
    from realdamage.provenance import Provenance

_UNFIT = ("too_small", "too_blurred", "too_soft", "too_compressed")  # codes of the model's own gate
_WHOLE = "whole_photo_processed"


class Finding(NamedTuple):
    """One thing that was found: the rule it falls under (the reason's code), its sentence, what it recommends."""

    rule: str
    phrases: Sequence[Phrase]
    recommends: Recommendation


def decide(
    photos: Sequence[ClaimPhoto],
    listings: Sequence[ListingPhoto],
    policy: ClaimPolicy,
    model: Mapping[str, Any],
) -> tuple[Recommendation, tuple[Reason, ...]]:
    """The recommendation, and all findings as reasons: the weightiest first, then notes, then what the model promises.

    model: `Claim.model`.
    """
    found = [
        finding for photo in photos for finding in _of_photo(photo, policy, model, _judged(photos))
    ]
    found += _of_claim(photos, listings, policy)
    found.sort(key=lambda finding: -RECOMMENDATIONS.index(finding.recommends))
    reasons = [Reason.of(finding.rule, *finding.phrases) for finding in found]
    reasons.append(false_alarm_bound(_judged(photos), model))
    return (found[0].recommends if found else "approve"), tuple(reasons)


def recommended_by(
    code: str, photos: Sequence[ClaimPhoto], policy: ClaimPolicy, model: Mapping[str, Any]
) -> str:
    """What the finding behind a reason recommended: its rule's word, unless the model's promise held that back."""
    if code == "verdict_synthetic":
        return _by_verdict(policy, model, _judged(photos))[0]
    return str(getattr(policy.rules, code, "approve"))


def false_alarm_bound(photos: int, model: Mapping[str, Any]) -> Reason:
    """What the model promises for an honest claim with so many photos, or that it promises nothing."""
    accused = (model["guarantee"] or {}).get("accused")
    if accused is None:
        return Reason.of("no_promise", phrase("no_promise"))
    share, bound = _percent(accused["share"]), _percent(min(1.0, photos * accused["share"]))
    return Reason.of(
        "false_alarm_bound",
        phrase(
            "false_alarm_bound", confidence=f"{1 - model['guarantee']['delta']:.0%}", share=share
        ),
        phrase(
            "bound_of_one" if photos == 1 else "bound_of_several",
            photos=photos,
            bound=bound,
            share=share,
        ),
        phrase("bound_rests_on", calibrated=accused["photos"]),
    )


def _judged(photos: Sequence[ClaimPhoto]) -> int:
    return sum(photo.verdict is not None for photo in photos)


def _of_photo(
    photo: ClaimPhoto, policy: ClaimPolicy, model: Mapping[str, Any], judged: int
) -> Iterator[Finding]:
    name = phrase("about", name=photo.name)

    def finding(rule: str, *phrases: Phrase) -> Finding:
        return Finding(rule, (name, *phrases), getattr(policy.rules, rule))

    if photo.error:
        why = photo.error_phrases or [
            phrase("verbatim", text=photo.error.removeprefix(f"{photo.name}: "))
        ]
        yield finding("photo_unreadable", phrase("could_not_be_read"), *why, phrase("full_stop"))
        return
    if photo.verdict is not None:
        for rule, phrases, recommends in _of_verdict(photo.verdict, policy, model, judged):
            yield Finding(rule, (name, *phrases), recommends)
    if photo.provenance is not None:
        if photo.provenance.declared != "none":
            yield finding(
                f"declared_{photo.provenance.declared}", *_of_declaration(photo.provenance)
            )
        if photo.provenance.camera.thumbnail == "differs":
            yield finding("preview_differs", phrase("preview_differs"))
        for note in photo.provenance.notes:
            if note.code == "c2pa_invalid":
                yield finding("credentials_broken", *said_of(note))
    compared = list(_of_comparisons(photo.comparisons, policy))
    yield from (finding(rule, *phrases) for rule, phrases in compared)
    of_listing = any(rule == "listing_photo_itself" for rule, _ in compared)
    told = set()
    for seen in photo.duplicates:
        if seen.claim_id and (of_listing or seen.claim_id in told):
            continue  # nearest first, one sentence for each earlier claim; and anybody may send in the listing's photo
        told.add(seen.claim_id)
        yield finding(
            "reused_in_other_claim" if seen.claim_id else "repeated_in_claim", _of_duplicate(seen)
        )


def _of_duplicate(seen: Duplicate) -> Phrase:
    of: dict[str, str | int] = {"of": seen.of}
    if seen.claim_id:
        of |= {"claim": seen.claim_id, "seen": seen.seen}
    when = "reused" if seen.claim_id else "repeated"
    if seen.exact:
        return phrase(f"{when}_file", **of)
    return phrase(
        f"{when}_look_mirrored" if seen.mirrored else f"{when}_look", **of, distance=seen.distance
    )


def _of_declaration(provenance: Provenance) -> list[Phrase]:
    deciding = [one for one in provenance.findings if one.declares == provenance.declared]
    said = [phrase(f"declared_{provenance.declared}")]
    for one in deciding:
        said += said_of(one)
    if any(one.fields.get("validation") == "trusted" for one in deciding):
        return said
    return [*said, phrase("nobody_vouches")]


def _of_verdict(
    verdict: Verdict, policy: ClaimPolicy, model: Mapping[str, Any], judged: int
) -> Iterator[tuple[str, Sequence[Phrase], Recommendation]]:
    """(rule, what is said of the photo, what it recommends)."""
    rules = policy.rules
    if min(verdict.width, verdict.height) < policy.photos.min_side:
        size = {"width": verdict.width, "height": verdict.height, "limit": policy.photos.min_side}
        yield "photo_too_small", [phrase("photo_too_small", **size)], rules.photo_too_small
    codes = {reason.code: said_of(reason) for reason in verdict.reasons}
    for code in _UNFIT:
        if code in codes:
            yield "photo_unfit", codes[code], rules.photo_unfit
    score = f"{verdict.score:+.2f}"
    if verdict.outcome == "synthetic":
        recommends, why = _by_verdict(policy, model, judged)
        yield "verdict_synthetic", [phrase("verdict_synthetic", score=score), *why], recommends
    elif _WHOLE in codes:
        yield _WHOLE, codes[_WHOLE], rules.whole_photo_processed
    elif verdict.outcome == "review" and not any(code in codes for code in _UNFIT):
        why = [one for phrases in codes.values() for one in phrases]
        yield "verdict_review", [phrase("verdict_review", score=score), *why], rules.verdict_review


def _by_verdict(
    policy: ClaimPolicy, model: Mapping[str, Any], judged: int
) -> tuple[Recommendation, list[Phrase]]:
    """What an outcome `synthetic` recommends: never `escalate` without a calibrated model that is no demonstration, nor
    above the share of false alarms that the policy allows. And why it was held back."""
    recommends = policy.rules.verdict_synthetic
    if recommends != "escalate":
        return recommends, []
    if model["demo"] or not model["calibrated"]:
        return "review", [phrase("held_by_demo" if model["demo"] else "held_uncalibrated")]
    limit = policy.escalate_up_to
    if limit is None:
        return recommends, []
    accused = (model["guarantee"] or {}).get("accused")
    if accused is None:
        return "review", [phrase("held_without_promise", limit=_percent(limit))]
    if judged * accused["share"] > limit:
        bound = _percent(judged * accused["share"])
        return "review", [
            phrase("held_by_bound", limit=_percent(limit), bound=bound, photos=judged)
        ]
    return recommends, []


def _of_comparisons(
    comparisons: Sequence[tuple[str, Comparison]], policy: ClaimPolicy
) -> Iterator[tuple[str, Sequence[Phrase]]]:
    """(rule, what is said): a photo is compared with several listing photos, and each same capture is told. One that
    is a listing photo as it stands is not held against the others: shops show a picture with and without their logo."""
    limits = policy.comparison
    same = [
        (listing, found)
        for listing, found in comparisons
        if found.outcome == "same_capture"
        and found.overlap >= limits.min_overlap
        and found.agreement >= limits.min_agreement
    ]
    unchanged = [(listing, found) for listing, found in same if not _is_changed(found, policy)]
    for listing, found in unchanged or same:
        if found.claim_sha256 == found.listing_sha256:
            yield "listing_photo_itself", [phrase("listing_same_file", listing=listing)]
            continue
        shot = phrase("listing_same_shot", listing=listing)
        if unchanged:
            little = phrase("shot_little_changed", share=f"{found.changed:.2%}")
            yield (
                "listing_photo_itself",
                [shot, little if found.changes else phrase("shot_unchanged")],
            )
        else:
            areas: dict[str, str | int] = {"share": f"{found.changed:.1%}"}
            much = phrase("shot_changed_area", **areas)
            if len(found.changes) != 1:
                much = phrase("shot_changed_areas", count=len(found.changes), **areas)
            yield "same_capture_changed", [shot, much, phrase("shot_unexplained")]
    if comparisons and all(found.outcome == "unrelated" for _, found in comparisons):
        count = len(comparisons)
        none = (
            phrase("listing_not_alike") if count == 1 else phrase("listings_not_alike", count=count)
        )
        yield "listing_unrelated", [none]


def _is_changed(found: Comparison, policy: ClaimPolicy) -> bool:
    return bool(found.changes) and found.changed >= policy.comparison.min_changed


def _of_claim(
    photos: Sequence[ClaimPhoto], listings: Sequence[ListingPhoto], policy: ClaimPolicy
) -> Iterator[Finding]:
    readable = sum(not photo.error for photo in photos)
    if readable < policy.photos.at_least:
        few = "too_few_photos_one" if readable == 1 else "too_few_photos"
        said = phrase(few, count=readable, least=policy.photos.at_least)
        yield Finding("too_few_photos", [said], policy.rules.too_few_photos)
    compared = [found for photo in photos for _, found in photo.comparisons]
    if compared and all(found.outcome == "unrelated" for found in compared):
        said = phrase("no_photo_matches_listing")
        yield Finding("no_photo_matches_listing", [said], policy.rules.no_photo_matches_listing)
    for listing in listings:
        if listing.error:
            why = [phrase("about", name=listing.name), *listing.error_phrases]
            if not listing.error_phrases:
                why = [phrase("verbatim", text=listing.error)]
            yield Finding("listing_unreadable", [phrase("not_compared"), *why], "approve")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
