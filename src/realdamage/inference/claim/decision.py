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
    from realdamage.inference.provenance import Provenance

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


def recommended_by(code: str, photos: Sequence[ClaimPhoto], policy: ClaimPolicy, model: Mapping[str, Any]) -> str:
    """What the finding behind a reason recommended: its rule's word, unless the model's promise held that back."""
    if code == "verdict_synthetic":
        return _by_verdict(policy, model, _judged(photos))[0]
    return str(getattr(policy.rules, code, "approve"))


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
        f"{accused['photos']} that it rests on, and for the model's outcome only, not for the other findings.",
    )


def _judged(photos: Sequence[ClaimPhoto]) -> int:
    return sum(photo.verdict is not None for photo in photos)


def _of_photo(photo: ClaimPhoto, policy: ClaimPolicy, model: Mapping[str, Any], judged: int) -> Iterator[Finding]:
    def finding(rule: str, sentence: str) -> Finding:
        return Finding(rule, f"{photo.name}: {sentence}", getattr(policy.rules, rule))

    if photo.error:
        yield finding("photo_unreadable", f"could not be read: {_without_name(photo)}.")
        return
    if photo.verdict is not None:
        yield from _of_verdict(photo, policy, model, judged)
    if photo.provenance is not None:
        if photo.provenance.declared != "none":
            yield finding(f"declared_{photo.provenance.declared}", _of_declaration(photo.provenance))
        if photo.provenance.camera.thumbnail == "differs":
            sentence = (
                "the small preview inside the file shows another picture than the photo, as it does after a crop, a "
                "filter or an edit by a program that leaves the preview as it was."
            )
            yield finding("preview_differs", sentence)
    compared = list(_of_comparisons(photo.comparisons, policy))
    yield from (finding(rule, sentence) for rule, sentence in compared)
    of_listing = any(rule == "listing_photo_itself" for rule, _ in compared)
    told = set()
    for seen in photo.duplicates:
        if seen.claim_id and (of_listing or seen.claim_id in told):
            continue  # nearest first, one sentence for each earlier claim; and anybody may send in the listing's photo
        told.add(seen.claim_id)
        how = ("the same file as " if seen.exact else "looks the same as ") + seen.of
        how += f" of claim {seen.claim_id}, seen {seen.seen}" if seen.claim_id else ", in this claim"
        if not seen.exact:
            how += f" ({seen.distance} of the 256 bits of their perceptual hashes differ{', mirrored' * seen.mirrored})"
            how += ": a copy, or another shot that comes as close" if seen.claim_id else ""
        yield finding("reused_in_other_claim" if seen.claim_id else "repeated_in_claim", f"{how}.")


def _of_declaration(provenance: Provenance) -> str:
    deciding = [one for one in provenance.findings if one.declares == provenance.declared]
    said = " ".join(one.sentence for one in deciding)
    if any(one.fields.get("validation") == "trusted" for one in deciding):
        return f"the file says so itself. {said}"
    return f"the file says so itself. {said} Whoever had the file can have written this; no trusted signature is on it."


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
        sentence = f"{photo.name}: the model finds what it takes for traces of synthesis in the pixels ({score}).{why}"
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
            yield (
                "same_capture_changed",
                f"the same shot as the listing photo {listing}, or another by a camera that stood still in unchanged "
                f"light, but {areas} ({found.changed:.1%} of what they share). Which of the two photos was changed, "
                "and whether by hand or in front of the camera, this does not tell; a logo or a sticker counts too.",
            )
        elif found.claim_sha256 == found.listing_sha256:
            yield "listing_photo_itself", f"the same file as the listing photo {listing}, byte for byte."
        else:
            much = "nothing differs by more than noise"
            if found.changes:
                much = f"what differs ({found.changed:.2%}) is less than the policy counts"
            yield (
                "listing_photo_itself",
                f"the same shot as the listing photo {listing}, or another by a camera that stood still in unchanged "
                f"light; {much}.",
            )
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
