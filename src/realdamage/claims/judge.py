"""Judges a whole claim: each photo by itself, beside the listing, the claim's other photos and earlier claims."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from realdamage.claims.decide import Claim, ClaimPhoto, ListingPhoto, decide
from realdamage.claims.index import Fingerprint, repeats, take_fingerprint
from realdamage.claims.policy import ClaimPolicy
from realdamage.core.decode import MAX_PIXELS
from realdamage.core.tiles import Photo, read_photo
from realdamage.core.verdict import Verdict
from realdamage.errors import PhotoError, UsageError
from realdamage.phrases import Phrase, printable

if TYPE_CHECKING:
    from realdamage.claims.index import ClaimIndex
    from realdamage.core.detector import Detector
    from realdamage.provenance import TrustAnchors

MAX_TEXT = 20_000
"""Characters of a claim's text."""
_MAX_NAME = 120
_PACKAGES = (
    "realdamage",
    "numpy",
    "pillow",
    "onnxruntime",
    "opencv-python-headless",
    "c2pa-python",
    "imagehash",
)


def judge_claim(
    photos: Sequence[tuple[str, bytes]],
    *,
    detector: Detector,
    listings: Sequence[tuple[str, bytes]] = (),
    text: str = "",
    claim_id: str | None = None,
    policy: ClaimPolicy | None = None,
    index: ClaimIndex | None = None,
    verdicts: Callable[[Photo], Verdict] | None = None,
    max_pixels: int = MAX_PIXELS,
    trust_anchors: TrustAnchors | None = None,
) -> Claim:
    """Judge the photos of one claim: (name, bytes) each, as the buyer sent them; `listings` likewise, as they were on
    sale. A photo that cannot be read fails alone.

    text: what the buyer wrote; it is kept beside the result and decides nothing. claim_id: yours, or one is made up.
    policy: the default without one. index: of earlier claims; this claim's photos are put in *before* they are looked
    up, so that of two claims judged at once at least one sees the other. verdicts: how a read photo is judged; by
    default `detector.predict_photo`. max_pixels: of a photo, from its header; one with more counts as unreadable.
    trust_anchors: authorities that you trust to say who signed content credentials; without, no signer is trusted.

    Raises UsageError without photos, with more than the policy allows, or with a text or id that is too long;
    PhotoError when not one photo can be read; MissingExtraError without the packages of the extra "claims".
    """
    policy = policy or ClaimPolicy.default()
    claim_id = _checked_id(claim_id) if claim_id is not None else new_claim_id()
    _check_bounds(photos, listings, text, policy)
    looked = [
        _look_at(
            name, data, detector, verdicts or detector.predict_photo, max_pixels, trust_anchors
        )
        for name, (_, data) in zip(
            distinct_names([name for name, _ in photos]), photos, strict=True
        )
    ]
    judged = [photo for photo, _ in looked]
    if all(photo.error for photo in judged):
        raise PhotoError(
            f"none of the claim's {len(judged)} photos could be read; the first: {judged[0].error}"
        )
    judged, shown = _beside_the_listing(judged, [data for _, data in photos], listings, max_pixels)
    judged = _with_duplicates(claim_id, judged, [fingerprint for _, fingerprint in looked], index)
    model = model_facts(detector)
    recommendation, reasons = decide(judged, shown, policy, model)
    return Claim(
        claim_id=claim_id,
        text=printable(text, keep="\n\t"),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        photos=tuple(judged),
        listings=shown,
        recommendation=recommendation,
        reasons=reasons,
        policy=policy,
        model=model,
        versions=_versions(),
    )


def new_claim_id() -> str:
    """An id that no other claim has: the day and a random number."""
    return f"claim-{dt.datetime.now(dt.UTC):%Y%m%d}-{secrets.token_hex(5)}"


def model_facts(detector: Detector) -> dict[str, Any]:
    """What a claim records of the model that judged it: `Claim.model`."""
    metadata = detector.metadata
    policy = metadata.policy
    return {
        "model_version": metadata.model_version,
        "graph_sha256": detector.graph_sha256,
        "policy_sha256": detector.policy_sha256,
        "demo": metadata.demo,
        "calibrated": policy is not None and metadata.calibration is not None,
        "prior": detector.prior,
        "thresholds": {
            key: getattr(policy, key) for key in ("t_synthetic", "t_real", "fpr", "miss")
        }
        if policy
        else None,
        "guarantee": policy.guarantee.to_dict() if policy and policy.guarantee else None,
    }


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names as they are shown: printable, of bounded length, and each once."""
    found: list[str] = []
    for number, given in enumerate(names, start=1):
        name = base = printable(given)[-_MAX_NAME:].strip() or f"photo {number}"
        repeat = 1
        while name in found:
            repeat += 1
            name = f"{base} ({repeat})"
        found.append(name)
    return found


def _look_at(
    name: str,
    data: bytes,
    detector: Detector,
    verdict_on: Callable[[Photo], Verdict],
    max_pixels: int,
    trust_anchors: TrustAnchors | None,
) -> tuple[ClaimPhoto, Fingerprint | None]:
    from realdamage.provenance import read_provenance

    sha256 = hashlib.sha256(data).hexdigest()
    try:
        photo = read_photo(data, detector.pixel_spec, name=name, max_pixels=max_pixels)
    except PhotoError as error:
        return ClaimPhoto(name, None, None, (), (), str(error), sha256, error.phrases), None
    provenance = read_provenance(
        data, name=name, trust_anchors=trust_anchors, max_pixels=max_pixels
    )
    judged = ClaimPhoto(name, verdict_on(photo), provenance, (), (), "", sha256)
    return judged, take_fingerprint(photo.rgb, sha256)


def _beside_the_listing(
    judged: Sequence[ClaimPhoto],
    files: Sequence[bytes],
    listings: Sequence[tuple[str, bytes]],
    max_pixels: int,
) -> tuple[list[ClaimPhoto], tuple[ListingPhoto, ...]]:
    """The photos with their comparisons, and the listing's photos; one of these that cannot be read is left out of the
    comparison, which the claim then says. The large listing photos are held one at a time."""
    if not listings:
        return list(judged), ()
    from realdamage.photo_pairs import Comparison, compare, prepare

    ready = [
        None if one.error else prepare(data, "claim", max_pixels=max_pixels)
        for one, data in zip(judged, files, strict=True)
    ]
    compared: list[list[tuple[str, Comparison]]] = [[] for _ in judged]
    shown = []
    no_phrases: tuple[Phrase, ...] = ()
    for name, (_, data) in zip(
        distinct_names([name for name, _ in listings]), listings, strict=True
    ):
        error, phrases = "", no_phrases
        try:
            listing = prepare(data, "listing", max_pixels=max_pixels)
            for photo, found in zip(ready, compared, strict=True):
                if photo is not None:
                    found.append((name, compare(photo, listing)))
        except PhotoError as wrong:
            error, phrases = f"{name}: {str(wrong).removeprefix('listing photo: ')}", wrong.phrases
        shown.append(ListingPhoto(name, hashlib.sha256(data).hexdigest(), error, phrases))
    return [
        replace(one, comparisons=tuple(found)) for one, found in zip(judged, compared, strict=True)
    ], tuple(shown)


def _with_duplicates(
    claim_id: str,
    judged: Sequence[ClaimPhoto],
    fingerprints: Sequence[Fingerprint | None],
    index: ClaimIndex | None,
) -> list[ClaimPhoto]:
    prints = [
        (photo.name, one)
        for photo, one in zip(judged, fingerprints, strict=True)
        if one is not None
    ]
    found = repeats(prints)
    if index is not None:
        index.add_fingerprints(claim_id, [fingerprint for _, fingerprint in prints])
        for name, fingerprint in prints:
            found += index.find_fingerprint(fingerprint, name=name, other_than=claim_id)
    return [
        replace(photo, duplicates=tuple(one for one in found if one.photo == photo.name))
        for photo in judged
    ]


def _check_bounds(
    photos: Sequence[tuple[str, bytes]],
    listings: Sequence[tuple[str, bytes]],
    text: str,
    policy: ClaimPolicy,
) -> None:
    if not photos:
        raise UsageError("a claim needs at least one photo")
    limits = policy.photos
    for what, given, key in (
        ("photos", photos, "at_most"),
        ("listing photos", listings, "listings_at_most"),
    ):
        if len(given) > getattr(limits, key):
            raise UsageError(
                f"{len(given)} {what}, the policy {policy.name!r} takes at most {getattr(limits, key)}: "
                f"leave some out, or raise photos.{key} in the policy"
            )
    if len(text) > MAX_TEXT:
        raise UsageError(
            f"the claim's text has {len(text)} characters, at most {MAX_TEXT} are taken: shorten it"
        )


def _checked_id(claim_id: str) -> str:
    if not claim_id.strip() or len(claim_id) > _MAX_NAME or claim_id != printable(claim_id):
        raise UsageError(
            f"claim_id {claim_id[:_MAX_NAME]!r}: must be 1 to {_MAX_NAME} printable characters"
        )
    return claim_id


def _versions() -> Mapping[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional one, or a checkout that is not installed
    return found
