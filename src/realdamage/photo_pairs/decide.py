"""Decides how a claim photo relates to a listing photo, and says why."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from realdamage.core.decode import MAX_PIXELS, Float32Array, PhotoSource, UInt8Array
from realdamage.core.tiles import Photo
from realdamage.core.verdict import Reason
from realdamage.errors import UsageError
from realdamage.photo_pairs.align import Alignment, align
from realdamage.photo_pairs.decide import Change, Comparison, Outcome
from realdamage.photo_pairs.differences import Differences, find_differences
from realdamage.photo_pairs.features import (
    FEATURE_SIDE,
    Match,
    Matrix,
    Prepared,
    Role,
    match_photos,
    prepare,
)
from realdamage.phrases import Phrase, phrase

MAP_SIDE = 512
"""Longer side of the change map, in pixels, at most."""
MAX_CHANGES = 20

# Chosen on one half of the groups of `synthesis.listing_trial`, reported on the other: copies lie far above, other
# shots of the same product far below.
MIN_FINE = 0.5
MIN_AGREEMENT = 0.9
MIN_OVERLAP = 0.25
MIN_TEXTURED_PIXELS = 400
MAX_MOTION = 0.6
MAX_CHANGED = (
    0.3  # of what they share; above it, what agrees may be one flat thing held alike in two shots
)
MIN_QUALITY = 75  # of a JPEG file; below it, what its saving left behind passes for noise
_OTHER_NOISE = phrase("but_noise")
_SAME_FRAME = 0.02  # relative difference of the sides' ratios up to which a photo may be the whole other one, resized
_THUMBNAIL = (24, 24)
_PLAIN = 6.0  # deviation of a thumbnail, in grey levels, below which its pattern says little
_ALIKE = (
    0.3  # correlation of the thumbnails below which two photos are not one frame, painted on or not
)


def compare(
    claim: PhotoSource | Prepared, listing: PhotoSource | Prepared, *, max_pixels: int = MAX_PIXELS
) -> Comparison:
    """Compare a claim photo with a listing photo, at most 1,024 pixels a side.

    Sources: bytes, a path, a PIL image, uint8 [h, w, 3] RGB, or what `prepare` made of one, which saves reading it and
    finding its features again for every photo that it is compared with. max_pixels: a photo with more is not
    decoded. A photo too plain to be aligned is "unrelated", with the reason `too_little_texture`.

    Raises PhotoError, naming the photo, when one cannot be read; UsageError when one was prepared for the other role.
    """
    ready = [_prepared(claim, "claim", max_pixels), _prepared(listing, "listing", max_pixels)]
    claimed, listed = (one.photo for one in ready)
    if claimed.sha256 == listed.sha256:
        return _identical(claimed, listed)
    match, plain = match_photos(*ready)
    noisy = all(
        photo.file_quality is None or photo.file_quality >= MIN_QUALITY
        for photo in (claimed, listed)
    )
    found: tuple[Alignment, Differences, Phrase | None] | None = None
    for homography in _alignments(match, *ready):
        alignment = align(claimed.rgb, listed.rgb, homography)
        if alignment is None:
            continue
        differences = find_differences(alignment)
        objection = _why_not_same_capture(alignment, differences, noisy)
        if match.homography is not None or not objection:
            found = (alignment, differences, objection)
            break
    if found is None:
        return _unrelated(claimed, listed, match, plain)
    return _aligned(claimed, listed, match, *found)


def _prepared(source: PhotoSource | Prepared, role: Role, max_pixels: int) -> Prepared:
    if not isinstance(source, Prepared):
        return prepare(source, role, max_pixels=max_pixels)
    if source.role != role:
        raise UsageError(
            f"the {role} photo was prepared as a {source.role} photo: call prepare(photo, {role!r})"
        )
    return source


def _alignments(match: Match, claim: Prepared, listing: Prepared) -> Iterator[Matrix]:
    """Homographies to try, pixels of the listing photo → pixels of the claim photo: the one that features agree on;
    without one, the whole frame, as it is and mirrored, for a plain photo may have been saved anew."""
    sides = [(one.photo.rgb.shape[1], one.photo.rgb.shape[0]) for one in (listing, claim)]
    if match.homography is not None:
        features = [_limited_size(width, height) for width, height in sides]
        down = _frame_to_frame(sides[0], features[0])
        yield _frame_to_frame(features[1], sides[1]) @ match.homography @ down
        return
    ratios = [width / height for width, height in sides]
    if abs(math.log(ratios[0] / ratios[1])) < _SAME_FRAME:
        frame = _frame_to_frame(*sides)
        if _may_be_one_frame(claim.grey, listing.grey):
            yield frame
        if _may_be_one_frame(claim.grey, listing.grey[:, ::-1]):
            yield frame @ np.array(
                [[-1.0, 0.0, sides[0][0] - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
            )


def _may_be_one_frame(claim: UInt8Array, listing: UInt8Array) -> bool:
    """False where a glance tells that two grey photos, uint8 [h, w], are not one frame, which saves aligning them."""
    import cv2

    first, second = (
        cv2.resize(np.ascontiguousarray(grey), _THUMBNAIL, interpolation=cv2.INTER_AREA)
        .astype(np.float64)
        .ravel()
        for grey in (claim, listing)
    )
    if min(first.std(), second.std()) < _PLAIN:
        return True
    return float(np.corrcoef(first, second)[0, 1]) > _ALIKE


def _limited_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, FEATURE_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _frame_to_frame(given: tuple[int, int], wanted: tuple[int, int]) -> Matrix:
    """From the pixels of a photo to those of the same photo at another size; pixel centres are whole numbers."""
    across, down = wanted[0] / given[0], wanted[1] / given[1]
    return np.array([[across, 0.0, (across - 1) / 2], [0.0, down, (down - 1) / 2], [0.0, 0.0, 1.0]])


def _why_not_same_capture(
    alignment: Alignment, differences: Differences, noisy: bool
) -> Phrase | None:
    """None when the photos are one shot; otherwise what speaks against it, as the end of a sentence. noisy: whether
    the photos were saved well enough for their noise to be read."""
    covered = alignment.covered
    if covered.mean() < MIN_OVERLAP:
        return phrase("but_overlap", share=f"{covered.mean():.0%}")
    if differences.textured * covered.sum() < MIN_TEXTURED_PIXELS:
        return phrase("but_texture")
    if differences.fine < MIN_FINE:
        return phrase("but_fine", share=f"{differences.fine:.0%}")
    if alignment.motion > MAX_MOTION:
        return phrase("but_motion", pixels=f"{alignment.motion:.1f}")
    if differences.agreement < MIN_AGREEMENT:
        return phrase("but_agreement", share=f"{differences.agreement:.0%}")
    if differences.changed > MAX_CHANGED:
        return phrase("but_changed", share=f"{differences.changed:.0%}")
    if noisy and differences.noise_differs:
        return _OTHER_NOISE
    return None


def _aligned(
    claim: Photo,
    listing: Photo,
    match: Match,
    alignment: Alignment,
    found: Differences,
    objection: Phrase | None,
) -> Comparison:
    same = objection is None
    outcome: Outcome = "unrelated"
    reasons = []
    changes: tuple[Change, ...] = ()
    if objection is None:
        outcome = "same_capture"
        changes = _changes(claim, alignment, found)
        reasons.append(Reason.of("same_capture", phrase("same_capture", share=f"{found.fine:.0%}")))
        if changes:
            reasons.append(Reason.of("changed_areas", _areas(found), phrase("change_unexplained")))
        else:
            reasons.append(Reason.of("no_change", phrase("no_change")))
    else:
        outcome = "same_object"
        code = "noise_differs" if objection == _OTHER_NOISE else "another_shot"
        reasons.append(Reason.of(code, phrase("features_fit", count=match.inliers), objection))
    if np.linalg.det(alignment.homography[:2, :2]) < 0:
        reasons.append(Reason.of("mirrored", phrase("mirrored")))
    homography = (
        _frame_to_frame((claim.rgb.shape[1], claim.rgb.shape[0]), (claim.width, claim.height))
        @ alignment.homography
        @ _frame_to_frame(
            (listing.width, listing.height), (listing.rgb.shape[1], listing.rgb.shape[0])
        )
    )
    homography = homography / homography[2, 2]
    agrees = found.agreement if same else float((found.strength[alignment.covered] <= 1).mean())
    return Comparison(
        outcome=outcome,
        inliers=match.inliers,
        matches=match.matches,
        overlap=alignment.overlap,
        agreement=agrees,
        changed=found.changed,
        changes=changes,
        change_map=_change_map(claim, found.strength),
        homography=tuple(tuple(row) for row in homography.tolist()),
        reasons=tuple(reasons),
        claim_sha256=claim.sha256,
        listing_sha256=listing.sha256,
        width=claim.width,
        height=claim.height,
    )


def _areas(found: Differences) -> Phrase:
    share = f"{found.changed:.1%}"
    if len(found.boxes) == 1:
        return phrase("changed_area", share=share)
    return phrase("changed_areas", count=len(found.boxes), share=share)


def _changes(claim: Photo, alignment: Alignment, found: Differences) -> tuple[Change, ...]:
    height, width = alignment.covered.shape
    across, down = claim.width / width, claim.height / height
    return tuple(
        Change(
            (
                math.floor(left * across),
                math.floor(top * down),
                min(claim.width, math.ceil(right * across)),
                min(claim.height, math.ceil(bottom * down)),
            ),
            min(1.0, float(found.levels[found.areas == number].mean()) / 255),
        )
        for number, (left, top, right, bottom) in enumerate(found.boxes[:MAX_CHANGES], start=1)
    )


def _change_map(claim: Photo, strength: Float32Array) -> Float32Array:
    import cv2

    scale = min(1.0, MAP_SIDE / max(claim.width, claim.height))
    size = (max(1, round(claim.width * scale)), max(1, round(claim.height * scale)))
    # 0.5 is the tolerance. The median takes single pixels out, the dilation keeps a hairline visible when shrunk.
    calm = cv2.medianBlur(np.clip(strength / 2, 0, 1).astype(np.float32), 3)
    if strength.shape[1] > size[0]:
        calm = cv2.dilate(calm, np.ones((3, 3), np.uint8))
        return np.asarray(cv2.resize(calm, size, interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(cv2.resize(calm, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _identical(claim: Photo, listing: Photo) -> Comparison:
    scale = min(1.0, MAP_SIDE / max(claim.width, claim.height))
    shape = (max(1, round(claim.height * scale)), max(1, round(claim.width * scale)))
    return Comparison(
        outcome="same_capture",
        inliers=0,
        matches=0,
        overlap=1.0,
        agreement=1.0,
        changed=0.0,
        changes=(),
        change_map=np.zeros(shape, np.float32),
        homography=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        reasons=(Reason.of("identical", phrase("identical")),),
        claim_sha256=claim.sha256,
        listing_sha256=listing.sha256,
        width=claim.width,
        height=claim.height,
    )


def _unrelated(claim: Photo, listing: Photo, match: Match, plain: bool) -> Comparison:
    reason = (
        Reason.of("too_little_texture", phrase("too_little_texture"))
        if plain
        else Reason.of(
            "no_alignment", phrase("no_alignment", matches=match.matches, inliers=match.inliers)
        )
    )
    return Comparison(
        outcome="unrelated",
        inliers=match.inliers,
        matches=match.matches,
        overlap=0.0,
        agreement=0.0,
        changed=0.0,
        changes=(),
        change_map=None,
        homography=None,
        reasons=(reason,),
        claim_sha256=claim.sha256,
        listing_sha256=listing.sha256,
        width=claim.width,
        height=claim.height,
    )
