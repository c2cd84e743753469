"""What the comparison of a claim photo with another photo says, as one typed value that travels as JSON."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from realdamage.core.decode import Float32Array
from realdamage.core.verdict import Reason
from realdamage.errors import RealDamageError

Outcome = Literal["same_capture", "same_object", "unrelated"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Change:
    """An area of the claim photo that differs from the listing photo.

    box: (left, top, right, bottom) in pixels of the upright claim photo; right and bottom are exclusive.
    difference: mean difference of the colours there after alignment, in 0..1 of the whole range of values.
    """

    box: tuple[int, int, int, int]
    difference: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """How a claim photo relates to a listing photo.

    outcome: "same_capture" (one shot, however it was saved, cropped or painted on afterwards; shots of a camera that
        stood still in unchanged light often pass for one),
        "same_object" (the same thing, print or scene, but not shown to be the same shot) or "unrelated".
    inliers, matches: local features that agree on one alignment, of those that look alike.
    overlap: share of the claim photo that the aligned listing photo covers, in 0..1.
    agreement: share of the overlap outside the changes that agrees within noise, in 0..1.
    changed: share of the overlap that changed, in 0..1.
    changes: largest first; only of a same capture, for in another shot everything differs a little.
    change_map: float32 [h, w] in 0..1 over the claim photo, its longer side at most 512; 0.5 is the noise tolerance,
        0 also where the photos do not overlap. None when unrelated.
    homography: 3x3, pixels of the upright listing photo to pixels of the upright claim photo. None when unrelated.
    claim_sha256, listing_sha256: hex digests as in `Photo.sha256`. width, height: of the upright claim photo.
    """

    outcome: Outcome
    inliers: int
    matches: int
    overlap: float
    agreement: float
    changed: float
    changes: tuple[Change, ...]
    change_map: Float32Array | None
    homography: tuple[tuple[float, ...], ...] | None
    reasons: tuple[Reason, ...]
    claim_sha256: str
    listing_sha256: str
    width: int
    height: int

    def to_dict(self, change_map: bool = True) -> dict[str, Any]:
        """Plain JSON types; the change map as an 8-bit PNG in base64, None when `change_map` is False."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["changes"] = [
            {"box": list(change.box), "difference": change.difference} for change in self.changes
        ]
        values["reasons"] = [reason.to_dict() for reason in self.reasons]
        values["homography"] = (
            None if self.homography is None else [list(row) for row in self.homography]
        )
        values["change_map"] = (
            _to_base64_png(self.change_map) if change_map and self.change_map is not None else None
        )
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Read what `to_dict` gave; the change map comes back within 1/510. Raises RealDamageError otherwise."""
        try:
            read = dict(values)
            if read["outcome"] not in OUTCOMES:
                raise ValueError(f"outcome {read['outcome']!r} is not one of {', '.join(OUTCOMES)}")
            read["changes"] = tuple(
                Change((box[0], box[1], box[2], box[3]), float(change["difference"]))
                for change in read["changes"]
                for box in [[int(side) for side in change["box"]]]
            )
            read["reasons"] = tuple(Reason.from_dict(reason) for reason in read["reasons"])
            if read["homography"] is not None:
                read["homography"] = tuple(
                    tuple(float(value) for value in row) for row in read["homography"]
                )
                if [len(row) for row in read["homography"]] != [3, 3, 3] or not all(
                    math.isfinite(value) for row in read["homography"] for value in row
                ):
                    raise ValueError("homography is not a 3x3 matrix of numbers")
            if read["change_map"] is not None:
                read["change_map"] = _from_base64_png(read["change_map"])
            return cls(**read)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError) as error:
            raise RealDamageError(
                f"not a comparison in JSON ({type(error).__name__}: {error}); expected what Comparison.to_dict gave"
            ) from error


def _to_base64_png(change_map: Float32Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.round(change_map * 255).astype(np.uint8)).save(
        buffer, format="PNG", optimize=True
    )
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _from_base64_png(text: str) -> Float32Array:
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
