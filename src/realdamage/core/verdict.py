"""What the detector says about a photo, as one typed value that travels as JSON."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from realdamage.core.decode import Float32Array, PhotoSource, decode, read_file
from realdamage.core.policy import Outcome
from realdamage.core.quality import PhotoQuality
from realdamage.errors import PhotoError, RealDamageError, UsageError
from realdamage.files import PICTURES, write_atomically
from realdamage.phrases import Phrase, in_english, read_phrases

# The columns of a predictions file (evaluate, predict, monitor), in this order.
PREDICTION_COLUMNS = (
    *("file_name", "label", "kind", "generator", "damage", "source", "group", "perturbation"),
    *("score", "probability", "outcome", "reasons", "width", "height", "ms"),
    *("photo_sha256", "graph_sha256"),
)
MEASURED_COLUMNS = ("hot_share", "compression", "fine_detail")
"""They follow wherever a photo was judged."""
UNREADABLE = "unreadable"
"""The reason in the row of a photo that could not be read; its score and outcome are empty."""
HOT = 0.5
"""Heat from which a patch counts as synthetic: evidence 0, the network's own boundary."""
LEAST_REGION = 6
"""Patches of a region. Smaller ones are mostly noise: without them honest photos have 2.5 boxes
instead of 11 (data/results/LOG.md)."""
_MOST_REGIONS = 20


@dataclass(frozen=True)
class Region:
    """A part of the photo that looks synthetic.

    box: (left, top, right, bottom) in pixels of the upright photo; right and bottom are exclusive.
    probability: mean heat in the region, in 0..1.
    """

    box: tuple[int, int, int, int]
    probability: float


@dataclass(frozen=True)
class Reason:
    """Why a verdict is what it is: a stable code for programs, a sentence for people, and the
    phrases that make it, for other languages."""

    code: str
    sentence: str
    phrases: tuple[Phrase, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, code: str, *phrases: Phrase) -> Reason:
        """A reason whose sentence is these phrases in English."""
        return cls(code, in_english(phrases), phrases)

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        phrases = [one.to_dict() for one in self.phrases]
        return {"code": self.code, "sentence": self.sentence, "phrases": phrases}

    @classmethod
    def from_dict(cls, values: Any) -> Reason:
        """Read what `to_dict` wrote. Raises TypeError, KeyError or AttributeError otherwise."""
        return cls(values["code"], values["sentence"], read_phrases(values.get("phrases")))


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """The verdict on one photo.

    outcome: "real", "review" or "synthetic". score: a logit, higher is more synthetic.
    probability: of synthetic, in 0..1; None while the model is not calibrated.
    heatmap: float32 [h, w] in 0..1, one value per patch; None when its JSON had none.
    cell: side of a heat-map value in pixels of the upright photo, which the last may exceed.
    regions: largest evidence first. reasons: may be empty.
    photo_sha256, graph_sha256: hex digests of the photo and of the network that judged it.
    width, height: of the upright photo, in pixels. quality: how much fine detail the photo has.
    hot_share: share of the heat map's values, in 0..1, that are 0.5 or more.
    path: of the photo's file, when it was judged by its path; it does not travel as JSON.
    """

    outcome: Outcome
    score: float
    probability: float | None
    heatmap: Float32Array | None
    cell: float
    regions: tuple[Region, ...]
    reasons: tuple[Reason, ...]
    photo_sha256: str
    graph_sha256: str
    model_version: str
    width: int
    height: int
    quality: PhotoQuality
    hot_share: float
    path: Path | None = None

    def __repr__(self) -> str:
        probability = "None" if self.probability is None else f"{self.probability:.3f}"
        return (
            f"Verdict({self.outcome!r}, score={self.score:+.2f}, probability={probability}, "
            f"{len(self.regions)} regions, {self.width}x{self.height})"
        )

    def overlay(self, photo: PhotoSource | None = None) -> Image.Image:
        """The photo with its heat map, boxed regions and a caption.

        photo: the one that was judged; may be left out when it was judged by its path.
        Raises PhotoError when it cannot be read or has changed; UsageError without photo or heat
        map.
        """
        from realdamage.core.overlay import draw_overlay

        if photo is None:
            photo = self._photo_again()
        return draw_overlay(decode(photo), self)

    def save(self, path: str | Path, photo: PhotoSource | None = None) -> None:
        """Write the verdict to a file: as JSON (.json), or as the picture of `overlay` (.png, .jpg,
        .webp).

        photo: see `overlay`; JSON does without it. Raises UsageError on another ending.
        """
        from realdamage.core.overlay import picture_bytes

        ending = Path(path).suffix.lower()
        if ending == ".json":
            write_atomically(path, f"{self.to_json()}\n".encode())
        elif ending in PICTURES:
            write_atomically(path, picture_bytes(self.overlay(photo), PICTURES[ending]))
        else:
            raise UsageError(
                f"{path}: the name must end in .json, {', '.join(PICTURES)}; found "
                f"{ending or 'none'}",
                code="unknown_ending",
            )

    def _photo_again(self) -> bytes:
        if self.path is None:
            raise UsageError(
                "a verdict does not keep the pixels of its photo: pass the photo that was judged",
                code="no_photo",
            )
        data = read_file(self.path)
        if hashlib.sha256(data).hexdigest() != self.photo_sha256:
            raise PhotoError(f"{self.path}: has changed since it was judged; judge it again")
        return data

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON schema (draft 2020-12) of `to_dict`."""
        text = Path(__file__).with_name("verdict.schema.json").read_text("utf-8")
        found: dict[str, Any] = json.loads(text)
        return found

    def to_dict(self, heatmap: bool = True) -> dict[str, Any]:
        """Plain JSON types; the heat map as an 8-bit PNG in base64, None without `heatmap`."""
        values = asdict(replace(self, heatmap=None, reasons=()))
        del values["path"]
        values["regions"] = [{**one, "box": list(one["box"])} for one in values["regions"]]
        values["reasons"] = [reason.to_dict() for reason in self.reasons]
        if heatmap and self.heatmap is not None:
            values["heatmap"] = to_base64_png(self.heatmap)
        return values

    def to_json(self, heatmap: bool = True) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(heatmap))

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read what `to_json` wrote; the heat map comes back within 1/510. Raises RealDamageError
        on anything else."""
        try:
            values = json.loads(text)
            values["regions"] = tuple(
                Region(tuple(v["box"]), v["probability"]) for v in values["regions"]
            )
            values["reasons"] = tuple(Reason.from_dict(v) for v in values["reasons"])
            values["quality"] = PhotoQuality(**values["quality"])
            if values["heatmap"] is not None:
                values["heatmap"] = from_base64_png(values["heatmap"])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise RealDamageError(
                f"not a verdict in JSON ({type(error).__name__}: {error}); expected what "
                "Verdict.to_json wrote",
                code="not_a_verdict",
            ) from error


def verdict_row(file_name: str, found: Verdict | PhotoError, ms: float) -> Mapping[str, Any]:
    """A row of PREDICTION_COLUMNS and MEASURED_COLUMNS, without what only a manifest knows.

    ms: milliseconds from the photo's bytes to the verdict. An unreadable photo has no score, and
        the reason `unreadable`.
    """
    row: dict[str, Any] = dict.fromkeys((*PREDICTION_COLUMNS, *MEASURED_COLUMNS), "")
    if isinstance(found, PhotoError):
        return row | {"file_name": file_name, "reasons": UNREADABLE}
    detail = found.quality.fine_detail
    return row | {
        "file_name": file_name,
        "score": found.score,
        "probability": "" if found.probability is None else found.probability,
        "outcome": found.outcome,
        "reasons": " ".join(reason.code for reason in found.reasons),
        "width": found.width,
        "height": found.height,
        "ms": round(ms, 1),
        "photo_sha256": found.photo_sha256,
        "graph_sha256": found.graph_sha256,
        "hot_share": found.hot_share,
        "compression": found.quality.compression,
        "fine_detail": "" if detail is None else detail,
    }


def find_regions(heatmap: Float32Array, cell: float, size: tuple[int, int]) -> tuple[Region, ...]:
    """Connected areas (4 neighbours) of the heat map above `HOT`, most heat first, at most 20.
    Those of fewer than `LEAST_REGION` values are left out.

    heatmap: [h, w] in 0..1. cell: side of one value in pixels of the photo. size: (width, height).
    """
    width, height = size
    areas = []
    hot = [(row, col) for row, col in np.argwhere(heatmap >= HOT).tolist()]
    waiting = set(hot)
    for start in hot:
        if start not in waiting:
            continue
        waiting.remove(start)
        area = [start]
        for row, col in area:  # grows during the walk
            for neighbour in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if neighbour in waiting:
                    waiting.remove(neighbour)
                    area.append(neighbour)
        if len(area) >= LEAST_REGION:
            areas.append(np.array(area).T)
    areas.sort(key=lambda area: (-float(heatmap[area[0], area[1]].sum()), area[0][0], area[1][0]))
    return tuple(
        Region(
            (
                math.floor(cols.min() * cell),
                math.floor(rows.min() * cell),
                min(width, math.ceil((cols.max() + 1) * cell)),
                min(height, math.ceil((rows.max() + 1) * cell)),
            ),
            float(heatmap[rows, cols].mean()),
        )
        for rows, cols in areas[:_MOST_REGIONS]
    )


def to_base64_png(values: Float32Array) -> str:
    """A map float32 [h, w] in 0..1 as an 8-bit PNG in base64."""
    buffer = io.BytesIO()
    picture = Image.fromarray(np.round(values * 255).astype(np.uint8))
    picture.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def from_base64_png(text: str) -> Float32Array:
    """Undo `to_base64_png`, within 1/510. Raises ValueError or OSError on anything else."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
