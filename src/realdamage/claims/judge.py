"""Judges a whole claim: each photo by itself, against the listing photos, the claim's other photos
and earlier claims. Every photo is decoded once."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from realdamage.claims.decide import (
    Claim,
    ClaimPhoto,
    Finding,
    ListingPhoto,
    decide,
    found_elsewhere,
)
from realdamage.claims.index import ClaimIndex, Fingerprint, repeats, take_fingerprint
from realdamage.claims.marks import find_marks
from realdamage.claims.policy import ClaimPolicy
from realdamage.core.decode import MAX_PIXELS
from realdamage.core.spans import span
from realdamage.core.tiles import read_photo
from realdamage.errors import PhotoError, UsageError
from realdamage.phrases import printable

if TYPE_CHECKING:
    from realdamage.core.detector import Detector
    from realdamage.photo_pairs import Comparison, Prepared
    from realdamage.photo_pairs.persist import DamageDiffers
    from realdamage.provenance import TrustAnchors

Files: TypeAlias = Sequence[tuple[str, bytes]]
MAX_TEXT = 20_000
"""Characters of a claim's text."""
_MAX_NAME = 120
_MAX_PAIRS = 60  # of a claim's own photos that are compared; each takes about a second
_PACKAGES = (
    *("realdamage", "numpy", "pillow", "onnxruntime"),
    *("opencv-python-headless", "c2pa-python", "imagehash"),
)


def judge_claim(
    photos: Files,
    *,
    detector: Detector,
    listings: Files = (),
    text: str = "",
    claim_id: str | None = None,
    policy: ClaimPolicy | None = None,
    index: ClaimIndex | None = None,
    max_pixels: int = MAX_PIXELS,
    trust_anchors: TrustAnchors | None = None,
    more: Sequence[Finding] = (),
) -> Claim:
    """Judge the photos of one claim: (name, bytes) each. An unreadable one fails alone.

    listings: the shop's photos. text: what the buyer wrote; it decides nothing.
    index: of earlier claims. This claim's photos are added *before* they are looked up, so that of
        two claims judged at the same time at least one finds the other.
    max_pixels: a photo with more, by its header, counts as unreadable.
    trust_anchors: authorities that you trust to say who signed content credentials.
    more: what the caller found outside the photos.
    Raises UsageError for too many photos, none, or a wrong text or id; PhotoError when none can be
        read; MissingExtraError without the extra "claims".
    """
    policy = policy or ClaimPolicy()
    claim_id = new_claim_id() if claim_id is None else claim_id
    _check_bounds(photos, listings, text, claim_id, policy)
    compared = bool(listings) or len(photos) > 1
    looked = [
        _look_at(name, data, detector, max_pixels, trust_anchors, compared)
        for name, data in _named(photos)
    ]
    errors = [one.photo.error for one in looked if one.photo.error]
    if len(errors) == len(looked):
        raise PhotoError(
            f"none of the claim's {len(looked)} photos can be read; the first: {errors[0]}"
        )
    with span("compare"):
        shown = _compare_with_listings(looked, listings, max_pixels)
        judged = _with_differences(_with_duplicates(claim_id, looked, index), looked)
        if index is not None:
            prints = [one.fingerprint for one in looked if one.fingerprint is not None]
            more = [*more, *found_elsewhere(index.elsewhere(prints), policy)]
    model = _model_facts(detector)
    recommendation, reasons = decide(judged, shown, policy, model, more)
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
    """A unique id: the day and a random number."""
    return f"claim-{dt.datetime.now(dt.UTC):%Y%m%d}-{secrets.token_hex(5)}"


def _model_facts(detector: Detector) -> dict[str, Any]:
    """`Claim.model`."""
    metadata, policy = detector.metadata, detector.metadata.policy
    keys = ("t_synthetic", "t_real", "fpr", "miss")
    thresholds = {key: getattr(policy, key) for key in keys} if policy else None
    guarantee = policy.guarantee.to_dict() if policy and policy.guarantee else None
    return {
        "model_version": metadata.model_version,
        "graph_sha256": detector.graph_sha256,
        "policy_sha256": detector.policy_sha256,
        "demo": metadata.demo,
        "calibrated": policy is not None and metadata.calibration is not None,
        "prior": detector.prior,
        "thresholds": thresholds,
        "guarantee": guarantee,
    }


def _named(files: Files) -> list[tuple[str, bytes]]:
    """The files with their names as shown: printable, of limited length, and each once."""
    found: dict[str, bytes] = {}
    for number, (given, data) in enumerate(files, start=1):
        name = base = printable(given)[-_MAX_NAME:].strip() or f"photo {number}"
        repeat = 1
        while name in found:
            repeat += 1
            name = f"{base} ({repeat})"
        found[name] = data
    return list(found.items())


@dataclass(frozen=True)
class _Looked:
    """A photo with what is kept of its pixels: for duplicates, and for the comparison."""

    photo: ClaimPhoto
    fingerprint: Fingerprint | None
    prepared: Prepared | None
    comparisons: list[tuple[str, Comparison]]


def _look_at(
    name: str,
    data: bytes,
    detector: Detector,
    max_pixels: int,
    trust_anchors: TrustAnchors | None,
    compared: bool,
) -> _Looked:
    from realdamage.photo_pairs import prepare
    from realdamage.provenance import read_provenance

    sha256 = hashlib.sha256(data).hexdigest()
    try:
        photo = read_photo(data, detector.pixel_spec, name=name, max_pixels=max_pixels)
    except PhotoError as error:
        found = ClaimPhoto(name, None, None, (), (), str(error), sha256, error.phrases)
        return _Looked(found, None, None, [])
    given: dict[str, Any] = {"trust_anchors": trust_anchors, "max_pixels": max_pixels}
    provenance = read_provenance(data, name=name, **given)
    marks = find_marks(photo.full)
    verdict = detector.predict_photo(photo)
    found = ClaimPhoto(name, verdict, provenance, (), (), "", sha256, marks=marks)
    prepared = prepare(photo, "claim") if compared else None
    return _Looked(found, take_fingerprint(photo.rgb, sha256), prepared, [])


def _compare_with_listings(
    looked: Sequence[_Looked], listings: Files, max_pixels: int
) -> tuple[ListingPhoto, ...]:
    """Compare each photo with each listing photo, of which one at a time is in memory. An
    unreadable listing photo is left out, and the claim says so."""
    if not listings:
        return ()
    from realdamage.photo_pairs import compare, prepare

    shown = []
    for name, data in _named(listings):
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            listing = prepare(data, "listing", max_pixels=max_pixels)
        except PhotoError as error:
            text = f"{name}: {str(error).removeprefix('listing photo: ')}"
            shown.append(ListingPhoto(name, sha256, text, error.phrases))
            continue
        for one in looked:
            if one.prepared is not None:
                one.comparisons.append((name, compare(one.prepared, listing)))
        shown.append(ListingPhoto(name, sha256))
    return tuple(shown)


def _with_duplicates(
    claim_id: str, looked: Sequence[_Looked], index: ClaimIndex | None
) -> list[ClaimPhoto]:
    prints = [(one.photo.name, one.fingerprint) for one in looked if one.fingerprint is not None]
    found = repeats(prints)
    if index is not None:
        index.add_fingerprints(claim_id, [fingerprint for _, fingerprint in prints])
        for name, fingerprint in prints:
            found += index.find_fingerprint(fingerprint, name=name, other_than=claim_id)
    return [
        replace(
            one.photo,
            comparisons=tuple(one.comparisons),
            duplicates=tuple(seen for seen in found if seen.photo == one.photo.name),
        )
        for one in looked
    ]


def _with_differences(photos: Sequence[ClaimPhoto], looked: Sequence[_Looked]) -> list[ClaimPhoto]:
    """The photos with those of their marked regions that another photo of the claim, of the same
    object, does not show. Photos that the model calls real have no region worth comparing."""
    from realdamage.photo_pairs import prepare
    from realdamage.photo_pairs.persist import find_differing_damage

    listed: dict[str, Prepared] = {}  # prepared once, as finding features takes the most time
    found, left = [], _MAX_PAIRS
    for photo, one in zip(photos, looked, strict=True):
        differs: list[tuple[str, DamageDiffers]] = []
        marked = photo.verdict is not None and photo.verdict.outcome != "real"
        boxes = [region.box for region in photo.verdict.regions] if photo.verdict else []
        for other in looked if marked and boxes else ():
            if other is one or one.prepared is None or other.prepared is None or left <= 0:
                continue
            left -= 1
            name = other.photo.name
            if name not in listed:
                listed[name] = prepare(other.prepared.photo, "listing")
            pair = find_differing_damage(one.prepared, listed[name], boxes)
            differs += [(name, differing) for differing in pair]
        found.append(replace(photo, differs=tuple(differs)))
    return found


def _check_bounds(
    photos: Files, listings: Files, text: str, claim_id: str, policy: ClaimPolicy
) -> None:
    if not photos:
        raise UsageError("a claim needs at least one photo", code="no_photos")
    limits = policy.photos
    for what, given, limit, key in (
        ("photos", photos, limits.at_most, "at_most"),
        ("listing photos", listings, limits.listings_at_most, "listings_at_most"),
    ):
        if len(given) > limit:
            raise UsageError(
                f"{len(given)} {what}, but the policy {policy.name!r} allows at most {limit}: "
                f"leave some out, or raise photos.{key} in the policy",
                code="too_many_photos",
            )
    if len(text) > MAX_TEXT:
        raise UsageError(
            f"the claim's text has {len(text)} characters, at most {MAX_TEXT} are allowed",
            code="text_too_long",
        )
    if not claim_id.strip() or len(claim_id) > _MAX_NAME or claim_id != printable(claim_id):
        raise UsageError(
            f"claim_id {claim_id[:_MAX_NAME]!r}: must be 1 to {_MAX_NAME} printable characters",
            code="claim_id",
        )


@cache
def _versions() -> Mapping[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional one, or a checkout that is not installed
    return found
