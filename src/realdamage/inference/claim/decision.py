"""From what was found in a claim's photos to one recommendation, by the rules of the policy.

Nothing here weighs one finding against another: each has its rule, and the weightiest recommendation counts. Reasons
say what was found in photos and files; what a person did or meant is not theirs to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from realdamage.inference.claim.policy import RECOMMENDATIONS, ClaimPolicy
from realdamage.inference.claim.values import ClaimPhoto, ListingPhoto
from realdamage.inference.claim.wording import Recommendation
from realdamage.inference.verdict import Reason

if TYPE_CHECKING:
    from realdamage.inference.comparison import Comparison

_UNFIT = ("too_small", "too_blurred", "too_compressed")  # codes of the model's own gate
_WHOLE = "whole_photo_processed"


class Finding(NamedTuple):
    """One thing that was found: the rule it falls under (the reason's code), a sentence, what it recommends."""

    rule: str
    sentence: str
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
    found = [finding for photo in photos for finding in _of_photo(photo, policy, model, _judged(photos))]
    found += _of_claim(photos, listings, policy)
    found.sort(key=lambda finding: -RECOMMENDATIONS.index(finding.recommends))
    reasons = [Reason(finding.rule, finding.sentence) for finding in found]
    reasons.append(false_alarm_bound(_judged(photos), model))
    return (found[0].recommends if found else "approve"), tuple(reasons)


def false_alarm_bound(photos: int, model: Mapping[str, Any]) -> Reason:
    """What the model promises for an honest claim with so many photos, or that it promises nothing."""
    accused = (model["guarantee"] or {}).get("accused")
    if accused is None:
        return Reason(
            "no_promise",
            "The model makes no promise about how often photos of real damage are called synthetic, so its outcome "
            "alone proves nothing; `realdamage calibrate` on your own photos can give one.",
        )
    confidence, share = 1 - model["guarantee"]["delta"], accused["share"]
    return Reason(
        "false_alarm_bound",
        f"With {confidence:.0%} confidence at most {_percent(share)} of photos with real damage are called synthetic. "
        f"With {photos} judged photo{'s' * (photos != 1)} that is up to {_percent(min(1.0, photos * share))} of honest "
        f"claims like this one ({photos} × {_percent(share)}). It holds for photos drawn like the "
        f"{accused['photos']} that it rests on.",
    )


def _judged(photos: Sequence[ClaimPhoto]) -> int:
    return sum(photo.verdict is not None for photo in photos)


def _of_photo(photo: ClaimPhoto, policy: ClaimPolicy, model: Mapping[str, Any], judged: int) -> Iterator[Finding]:
    def finding(rule: str, sentence: str) -> Finding:
        return Finding(rule, f"{photo.name}: {sentence}", getattr(policy.rules, rule))

    if photo.error:
        yield finding("photo_unreadable", f"could not be read ({_without_name(photo)}).")
        return
    if photo.verdict is not None:
        yield from _of_verdict(photo, policy, model, judged)
    if photo.provenance is not None:
        if photo.provenance.declared != "none":
            sentences = [one.sentence for one in photo.provenance.findings if one.declares == photo.provenance.declared]
            yield finding(f"declared_{photo.provenance.declared}", f"the file says so itself. {' '.join(sentences)}")
        if photo.provenance.camera.thumbnail == "differs":
            yield finding("preview_differs", "the small preview inside the file shows another picture than the photo.")
    yield from (finding(rule, sentence) for rule, sentence in _of_comparisons(photo.comparisons, policy))
    told = set()
    for seen in photo.duplicates:
        if seen.claim_id and seen.claim_id in told:
            continue  # nearest first: one sentence for each earlier claim
        told.add(seen.claim_id)
        how = ("the same file as " if seen.exact else "the same picture as ") + seen.of
        how += f" of claim {seen.claim_id}, seen {seen.seen}" if seen.claim_id else ", in this claim"
        detail = "" if seen.exact else f" ({seen.distance} of 256 bits differ{', mirrored' * seen.mirrored})"
        yield finding("reused_in_other_claim" if seen.claim_id else "repeated_in_claim", f"{how}{detail}.")


def _of_verdict(photo: ClaimPhoto, policy: ClaimPolicy, model: Mapping[str, Any], judged: int) -> Iterator[Finding]:
    verdict, rules = photo.verdict, policy.rules
    assert verdict is not None
    if min(verdict.width, verdict.height) < policy.photos.min_side:
        size = f"{verdict.width}x{verdict.height} pixels, the shorter side should have {policy.photos.min_side}"
        yield Finding("photo_too_small", f"{photo.name}: {size}.", rules.photo_too_small)
    codes = {reason.code: reason.sentence for reason in verdict.reasons}
    for code in _UNFIT:
        if code in codes:
            yield Finding("photo_unfit", f"{photo.name}: {codes[code]}", rules.photo_unfit)
    score = f"score {verdict.score:+.2f}"
    if verdict.outcome == "synthetic":
        recommends, why = _by_verdict(policy, model, judged)
        sentence = f"{photo.name}: the model finds traces of synthesis in the pixels ({score}).{why}"
        yield Finding("verdict_synthetic", sentence, recommends)
    elif _WHOLE in codes:
        yield Finding(_WHOLE, f"{photo.name}: {codes[_WHOLE]}", rules.whole_photo_processed)
    elif verdict.outcome == "review" and not any(code in codes for code in _UNFIT):
        sentence = f"{photo.name}: the model cannot tell ({score}). {' '.join(codes.values())}".rstrip()
        yield Finding("verdict_review", sentence, rules.verdict_review)


def _by_verdict(policy: ClaimPolicy, model: Mapping[str, Any], judged: int) -> tuple[Recommendation, str]:
    """What an outcome `synthetic` recommends: never `escalate` without a calibrated model that is no demonstration, nor
    above the share of false alarms that the policy allows."""
    recommends = policy.rules.verdict_synthetic
    if recommends != "escalate":
        return recommends, ""
    if model["demo"] or not model["calibrated"]:
        kind = "a demonstration model" if model["demo"] else "not calibrated"
        return "review", f" The model is {kind}: its word alone does not escalate."
    accused = (model["guarantee"] or {}).get("accused")
    if policy.escalate_up_to is not None and (accused is None or judged * accused["share"] > policy.escalate_up_to):
        bound = "nothing" if accused is None else f"{_percent(judged * accused['share'])} for {judged} photos"
        limit = (
            f"the policy escalates up to {_percent(policy.escalate_up_to)} of false alarms, the model promises {bound}"
        )
        return "review", f" It does not escalate: {limit}."
    return recommends, ""


def _of_comparisons(comparisons: Sequence[tuple[str, Comparison]], policy: ClaimPolicy) -> Iterator[tuple[str, str]]:
    """(rule, sentence): a photo is compared with several listing photos, and each same capture is told."""
    limits = policy.comparison
    for listing, found in comparisons:
        if found.outcome != "same_capture" or found.overlap < limits.min_overlap:
            continue
        if found.agreement < limits.min_agreement:
            continue
        if found.changes and found.changed >= limits.min_changed:
            areas = "1 area differs" if len(found.changes) == 1 else f"{len(found.changes)} areas differ"
            sentence = f"the same shot as the listing photo {listing}, but {areas} ({found.changed:.1%} of it)."
            yield "same_capture_changed", sentence
        else:
            yield "listing_photo_itself", f"the same shot as the listing photo {listing}; nothing differs."
    if comparisons and all(found.outcome == "unrelated" for _, found in comparisons):
        count = len(comparisons)
        shows = "does not resemble the listing photo" if count == 1 else f"resembles none of the {count} listing photos"
        yield "listing_unrelated", f"{shows}; that is so of many close-ups too."


def _of_claim(photos: Sequence[ClaimPhoto], listings: Sequence[ListingPhoto], policy: ClaimPolicy) -> Iterator[Finding]:
    readable = sum(not photo.error for photo in photos)
    if readable < policy.photos.at_least:
        sentence = f"{readable} readable photo{'s' * (readable != 1)}; the policy asks for {policy.photos.at_least}."
        yield Finding("too_few_photos", sentence, policy.rules.too_few_photos)
    for listing in listings:
        if listing.error:
            yield Finding("listing_unreadable", f"not compared: {listing.error}", "approve")


def _without_name(photo: ClaimPhoto) -> str:
    return photo.error.removeprefix(f"{photo.name}: ")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
