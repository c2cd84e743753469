"""Decides how a claim photo relates to a listing photo, and says why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from realdamage.core.decode import Float32Array, PhotoSource, UInt8Array
from realdamage.core.tiles import Photo
from realdamage.core.verdict import Reason, to_base64_png
from realdamage.photo_pairs.align import Alignment, align
from realdamage.photo_pairs.differences import Differences, find_differences
from realdamage.photo_pairs.features import (
    Match,
    Matrix,
    Prepared,
    match_photos,
    mirror,
    prepare,
    scaling,
)
from realdamage.phrases import Phrase, phrase

Outcome: TypeAlias = Literal["same_capture", "same_object", "unrelated"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
MAP_SIDE = 512
"""Longer side of the change map, in pixels, at most."""
MAX_CHANGES = 20

# Chosen on half of the groups of tests/trials/listing_trial.py, reported on the other half: copies
# lie far above, other shots of the same product far below.
MIN_FINE = 0.5
MIN_AGREEMENT = 0.9
MIN_OVERLAP = 0.25
MIN_TEXTURED_PIXELS = 400
MAX_MOTION = 0.6
# Share of the overlap; above it, the matching part may be a flat object held the same way twice.
MAX_CHANGED = 0.3
MIN_QUALITY = 75  # of a JPEG file; below it, compression artefacts look like noise
_OTHER_NOISE = phrase("but_noise")
# Relative difference of the aspect ratios up to which a photo may be the whole other one, resized.
_SAME_FRAME = 0.02
_THUMBNAIL = (24, 24)
_PLAIN = 6.0  # deviation of a thumbnail, in grey levels, below which its pattern says little
_ALIKE = 0.3  # correlation of the thumbnails below which two photos are not one frame


@dataclass(frozen=True)
class Change:
    """An area of the claim photo that differs from the listing photo.

    box: (left, top, right, bottom) in pixels of the upright claim photo, right and bottom
        exclusive.
    difference: mean difference of the colours after alignment, in 0..1 of the whole range.
    """

    box: tuple[int, int, int, int]
    difference: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """How a claim photo relates to a listing photo.

    outcome: "same_capture" (one shot, however it was saved, cropped or painted on, or a camera that
        stood still in unchanged light), "same_object" (not shown to be the same shot), "unrelated".
    inliers, matches: features that agree on one alignment, of those that match.
    overlap: share of the claim photo that the aligned listing photo covers, in 0..1.
    agreement: share of the overlap outside the changes that agrees within noise, in 0..1.
    changed: share of the overlap that changed. changes: largest first; only of a same capture.
    change_map: float32 [h, w] in 0..1 over the claim photo, its longer side at most 512; 0.5 is the
        noise tolerance. None when unrelated.
    homography: 3x3, pixels of the upright listing photo to the claim photo's. None when unrelated.
    width, height: of the upright claim photo.
    """

    outcome: Outcome
    inliers: int = 0
    matches: int = 0
    overlap: float = 0.0
    agreement: float = 0.0
    changed: float = 0.0
    changes: tuple[Change, ...] = ()
    change_map: Float32Array | None = None
    homography: tuple[tuple[float, ...], ...] | None = None
    reasons: tuple[Reason, ...] = ()
    claim_sha256: str = ""
    listing_sha256: str = ""
    width: int = 0
    height: int = 0

    def to_dict(self, change_map: bool = True) -> dict[str, Any]:
        """Plain JSON types; the change map as an 8-bit PNG in base64, None without `change_map`."""
        values = asdict(replace(self, change_map=None, reasons=()))
        values["changes"] = [{**one, "box": list(one["box"])} for one in values["changes"]]
        values["reasons"] = [reason.to_dict() for reason in self.reasons]
        if self.homography is not None:
            values["homography"] = [list(row) for row in self.homography]
        if change_map and self.change_map is not None:
            values["change_map"] = to_base64_png(self.change_map)
        return values


def compare(claim: PhotoSource | Prepared, listing: PhotoSource | Prepared) -> Comparison:
    """Compare a claim photo with a listing photo.

    claim, listing: as for `decode`, or from `prepare`, which reads and searches a photo once.
    Raises PhotoError, naming the photo.
    """
    if not isinstance(claim, Prepared):
        claim = prepare(claim, "claim")
    if not isinstance(listing, Prepared):
        listing = prepare(listing, "listing")
    return replace(
        _compared(claim, listing),
        claim_sha256=claim.photo.sha256,
        listing_sha256=listing.photo.sha256,
        width=claim.photo.width,
        height=claim.photo.height,
    )


def _compared(claim: Prepared, listing: Prepared) -> Comparison:
    photos = (claim.photo, listing.photo)
    if photos[0].sha256 == photos[1].sha256:
        return _identical(claim.photo)
    match, plain = match_photos(claim, listing)
    qualities = [photo.file_quality for photo in photos]
    shows_noise = all(quality is None or quality >= MIN_QUALITY for quality in qualities)
    for homography in _alignments(match, claim, listing):
        alignment = align(claim.photo.rgb, listing.photo.rgb, homography)
        if alignment is None:
            continue
        differences = find_differences(alignment)
        objection = _why_not_same_capture(alignment, differences, shows_noise)
        if match.homography is not None or not objection:
            return _aligned((claim, listing), match, alignment, differences, objection)
    reason = Reason.of("too_little_texture", phrase("too_little_texture"))
    if not plain:
        said = phrase("no_alignment", matches=match.matches, inliers=match.inliers)
        reason = Reason.of("no_alignment", said)
    return Comparison("unrelated", match.inliers, match.matches, reasons=(reason,))


def _alignments(match: Match, claim: Prepared, listing: Prepared) -> Iterator[Matrix]:
    """Homographies to try, pixels of the listing photo to pixels of the claim photo: the one of the
    features; without one, the whole frame, as is and mirrored: a plain photo may have been saved
    again."""
    if match.homography is not None:
        yield match.homography
        return
    given, wanted = listing.size, claim.size
    ratios = [width / height for width, height in (given, wanted)]
    if abs(math.log(ratios[0] / ratios[1])) < _SAME_FRAME:
        frame = scaling(given, wanted)
        if _may_be_one_frame(claim.grey, listing.grey):
            yield frame
        if _may_be_one_frame(claim.grey, listing.grey[:, ::-1]):
            yield frame @ mirror(given[0])


def _may_be_one_frame(claim: UInt8Array, listing: UInt8Array) -> bool:
    """False where thumbnails show that two grey photos, uint8 [h, w], are not one frame."""
    import cv2

    small = []
    for grey in (claim, listing):
        whole = np.ascontiguousarray(grey)
        thumbnail = cv2.resize(whole, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        small.append(thumbnail.astype(np.float64).ravel())
    if min(small[0].std(), small[1].std()) < _PLAIN:
        return True
    return float(np.corrcoef(small[0], small[1])[0, 1]) > _ALIKE


def _limited(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _why_not_same_capture(
    alignment: Alignment, differences: Differences, shows_noise: bool
) -> Phrase | None:
    """None when the photos are one shot; else what contradicts it, as the end of a sentence.

    shows_noise: whether the photos were saved well enough for their noise to be compared.
    """
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
    if shows_noise and differences.noise_differs:
        return _OTHER_NOISE
    return None


def _aligned(
    pair: tuple[Prepared, Prepared],
    match: Match,
    alignment: Alignment,
    found: Differences,
    objection: Phrase | None,
) -> Comparison:
    claim, listing = (one.photo for one in pair)
    changes: tuple[Change, ...] = ()
    agreement = found.agreement
    if objection is None:
        changes = _changes(claim, alignment, found)
        shot = phrase("same_capture", share=f"{found.fine:.0%}")
        reasons = [Reason.of("same_capture", shot), _about_changes(found)]
    else:
        agreement = float((found.strength[alignment.covered] <= 1).mean())
        code = "noise_differs" if objection == _OTHER_NOISE else "another_shot"
        reasons = [Reason.of(code, phrase("features_fit", count=match.inliers), objection)]
    if np.linalg.det(alignment.homography[:2, :2]) < 0:
        reasons.append(Reason.of("mirrored", phrase("mirrored")))
    full, listed = (claim.width, claim.height), (listing.width, listing.height)
    homography = scaling(pair[0].size, full) @ alignment.homography
    homography = homography @ scaling(listed, pair[1].size)
    homography = homography / homography[2, 2]
    return Comparison(
        "same_capture" if objection is None else "same_object",
        inliers=match.inliers,
        matches=match.matches,
        overlap=alignment.overlap,
        agreement=agreement,
        changed=found.changed,
        changes=changes,
        change_map=_change_map(full, found.strength),
        homography=tuple(tuple(row) for row in homography.tolist()),
        reasons=tuple(reasons),
    )


def _about_changes(found: Differences) -> Reason:
    if not found.boxes:
        return Reason.of("no_change", phrase("no_change"))
    share = f"{found.changed:.1%}"
    areas = phrase("changed_area", share=share)
    if len(found.boxes) > 1:
        areas = phrase("changed_areas", count=len(found.boxes), share=share)
    return Reason.of("changed_areas", areas, phrase("change_unexplained"))


def _changes(claim: Photo, alignment: Alignment, found: Differences) -> tuple[Change, ...]:
    height, width = alignment.covered.shape
    across, down = claim.width / width, claim.height / height
    changes = []
    for number, (left, top, right, bottom) in enumerate(found.boxes[:MAX_CHANGES], start=1):
        box = (
            math.floor(left * across),
            math.floor(top * down),
            min(claim.width, math.ceil(right * across)),
            min(claim.height, math.ceil(bottom * down)),
        )
        level = float(found.levels[found.areas == number].mean())
        changes.append(Change(box, min(1.0, level / 255)))
    return tuple(changes)


def _change_map(full: tuple[int, int], strength: Float32Array) -> Float32Array:
    import cv2

    size = _limited(full, MAP_SIDE)
    # 0.5 is the tolerance. The median removes single pixels, the dilation keeps a hairline visible.
    calm = cv2.medianBlur(np.clip(strength / 2, 0, 1).astype(np.float32), 3)
    interpolation = cv2.INTER_LINEAR
    if strength.shape[1] > size[0]:
        calm = cv2.dilate(calm, np.ones((3, 3), np.uint8))
        interpolation = cv2.INTER_AREA
    return np.asarray(cv2.resize(calm, size, interpolation=interpolation), np.float32)


def _identical(photo: Photo) -> Comparison:
    width, height = _limited((photo.width, photo.height), MAP_SIDE)
    return Comparison(
        "same_capture",
        overlap=1.0,
        agreement=1.0,
        change_map=np.zeros((height, width), np.float32),
        homography=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        reasons=(Reason.of("identical", phrase("identical")),),
    )
