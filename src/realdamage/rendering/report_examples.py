"""Picks the photos that a model is most wrong about, and judges them again, to show where it looked."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageChops, ImageFilter

from realdamage.core.decode import decode
from realdamage.core.overlay import draw_overlay
from realdamage.core.progress import Track, no_progress
from realdamage.core.tiles import read_photo
from realdamage.data.manifest import Manifest, read_mask
from realdamage.errors import ManifestError, PhotoError
from realdamage.evaluation.predictions import PhotoDetector, group_ids

RGB = npt.NDArray[np.uint8]

PHOTOS = 9
"""Shown of the false alarms, and of the misses."""
_DAMAGED = (
    6  # of the false alarms: at least so many are of really damaged photos, where there are any
)
_SIDE = 300  # pixels of a picture's longer side
_QUALITY = 78
_OUTLINE = (0, 200, 255)


@dataclass(frozen=True)
class Example:
    """A photo that the model is wrong about. picture, heat_map: JPEG in data URLs, "" where there is none; the picture
    has the regenerated area outlined where the manifest has a mask. note: why a picture is missing, or what else to
    know about it."""

    file_name: str
    label: str
    kind: str
    generator: str
    damage: str
    source: str
    score: float
    probability: float | None
    outcome: str
    reasons: str
    note: str = ""
    picture: str = field(default="", repr=False)
    heat_map: str = field(default="", repr=False)


def worst_false_alarms(photos: pd.DataFrame) -> pd.DataFrame:
    """The real photos with the highest scores, one of a group, really damaged ones first; `photos`: scored rows."""
    real = _one_of_a_group(
        photos[photos["label"] == "real"].sort_values("score", ascending=False, kind="stable")
    )
    damaged = real["kind"] == "damaged"
    others = real[~damaged].head(PHOTOS - min(_DAMAGED, int(damaged.sum())))
    return pd.concat([real[damaged].head(PHOTOS - len(others)), others])


def worst_misses(photos: pd.DataFrame) -> pd.DataFrame:
    """The synthetic photos with the lowest scores, one of a group; those that were only pasted stand last."""
    synthetic = photos[photos["label"] == "synthetic"].sort_values("score", kind="stable")
    pasted = synthetic["kind"] == "pasted"
    return _one_of_a_group(pd.concat([synthetic[~pasted], synthetic[pasted]])).head(PHOTOS)


def examples(
    rows: pd.DataFrame,
    manifest: Manifest | None,
    detector: PhotoDetector | None,
    *,
    progress: Track = no_progress,
) -> tuple[Example, ...]:
    """The rows with their pictures, as far as there are a manifest and a detector."""
    records = rows.to_dict("records")
    named = (
        {}
        if manifest is None
        else {name: index for index, name in enumerate(manifest.table["file_name"])}
    )
    made = []
    for row in progress(records, len(records), "pictures"):
        values = {
            key: str(row[key])
            for key in ("file_name", "label", "kind", "generator", "damage", "source")
        }
        probability = None if pd.isna(row["probability"]) else float(row["probability"])
        # Only what the manifest names is opened: a predictions file could name anything.
        if manifest is None or row["file_name"] not in named:
            pictures = {"note": "" if manifest is None else "not in the manifest"}
        else:
            digest = str(row["photo_sha256"])
            pictures = _pictures(manifest, named[row["file_name"]], detector, digest)
        made.append(
            Example(
                **values,
                score=float(row["score"]),
                probability=probability,
                outcome=str(row["outcome"]),
                reasons=str(row["reasons"]).replace("_", " "),
                **pictures,
            )
        )
    return tuple(made)


def _one_of_a_group(photos: pd.DataFrame) -> pd.DataFrame:
    return photos[~group_ids(photos).duplicated()]


def _pictures(
    manifest: Manifest, index: int, detector: PhotoDetector | None, digest: str
) -> dict[str, str]:
    path = manifest.path(str(manifest.table["file_name"].iat[index]))
    try:
        if detector is None:
            rgb = decode(path)
            return {"picture": _data_url(_outlined(rgb, _mask(manifest, index, rgb)))}
        photo = read_photo(path, detector.pixel_spec, name=str(path))
    except PhotoError:
        return {"note": "the photo cannot be read any more"}
    if digest and photo.sha256 != digest:
        return {"note": "the file has changed since it was judged"}
    verdict = detector.predict_photo(photo)
    small = _small(Image.fromarray(photo.rgb))
    drawn = draw_overlay(np.asarray(small), verdict).crop(
        (0, 0, *small.size)
    )  # without its caption
    return {
        "picture": _data_url(
            _outlined(photo.rgb, _mask(manifest, index, photo.rgb, (photo.height, photo.width)))
        ),
        "heat_map": _data_url(drawn),
    }


def _mask(
    manifest: Manifest, index: int, rgb: RGB, size: tuple[int, int] | None = None
) -> npt.NDArray[np.bool_] | None:
    if not manifest.table["mask_file_name"].iat[index]:
        return None
    try:
        return read_mask(manifest, index, size or rgb.shape[:2])
    except ManifestError:
        return None


def _outlined(rgb: RGB, mask: npt.NDArray[np.bool_] | None) -> Image.Image:
    """The photo at the size of the page, with a line around the mask."""
    small = _small(Image.fromarray(rgb))
    if mask is None or mask.all():
        return small
    area = (
        Image.fromarray(mask)
        .convert("L")
        .resize(small.size, Image.Resampling.BILINEAR)
        .point(_half)
    )
    edge = ImageChops.difference(
        area.filter(ImageFilter.MaxFilter(3)), area.filter(ImageFilter.MinFilter(3))
    )
    small.paste(_OUTLINE, (0, 0), edge)
    return small


def _half(value: int) -> int:
    return 255 if value > 127 else 0


def _small(image: Image.Image) -> Image.Image:
    image.thumbnail((_SIDE, _SIDE))
    return image


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
