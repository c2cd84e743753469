"""What the detector says about a photo, as one typed value that travels as JSON."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from realdamage.core.decoding import Float32Array
from realdamage.core.policy import Outcome
from realdamage.core.quality import PhotoQuality
from realdamage.errors import RealDamageError
from realdamage.phrases.sentences import Phrase, in_english, read_phrases

# The columns of a predictions file (evaluate, predict, monitor), in this order.
PREDICTION_COLUMNS = (
    *("file_name", "label", "kind", "generator", "damage", "source", "group", "perturbation"),
    *(
        "score",
        "probability",
        "outcome",
        "reasons",
        "width",
        "height",
        "ms",
        "photo_sha256",
        "graph_sha256",
    ),
)
# What follows them wherever a photo was judged.
MEASURED_COLUMNS = ("hot_share", "sharpness", "compression", "fine_detail")
# The reason in the row of a photo that could not be judged; its score and outcome stay empty.
UNREADABLE = "unreadable"


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
    """Why a verdict is what it is: a stable code for programs and a sentence for people.

    phrases: what the sentence is made of, for pages in other languages; empty in the JSON of older versions.
    """

    code: str
    sentence: str
    phrases: tuple[Phrase, ...] = ()

    @classmethod
    def of(cls, code: str, *phrases: Phrase) -> Reason:
        """A reason whose sentence is these phrases in English."""
        return cls(code, in_english(phrases), phrases)

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return {
            "code": self.code,
            "sentence": self.sentence,
            "phrases": [one.to_dict() for one in self.phrases],
        }

    @classmethod
    def from_dict(cls, values: Any) -> Reason:
        """Read what `to_dict` gave. Raises TypeError, KeyError or AttributeError on anything else."""
        return cls(values["code"], values["sentence"], read_phrases(values.get("phrases")))


@dataclass(frozen=True, eq=False)
class Verdict:
    """The verdict on one photo.

    outcome: "real", "review" or "synthetic". score: a logit, unbounded, higher is more synthetic.
    probability: of synthetic, in 0..1; None while the model is not calibrated.
    heatmap: float32 [h, w] in 0..1, one value per patch; None when the JSON it was read from left it out.
    cell: side of a heat-map value in pixels of the upright photo; the last row and column may reach beyond the photo.
    regions: largest evidence first. reasons: may be empty.
    photo_sha256, graph_sha256: hex digests of the photo and of the network that judged it.
    width, height: of the upright photo, in pixels.
    quality: how much fine detail the photo has; None in the JSON of older versions.
    hot_share: share of the heat map's values, in 0..1, that are 0.5 or more; NaN in the JSON of older versions.
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
    quality: PhotoQuality | None = None
    hot_share: float = math.nan

    def to_json(self, heatmap: bool = True) -> str:
        """One line of JSON; the heat map as an 8-bit PNG in base64, null when `heatmap` is False."""
        values = asdict(replace(self, heatmap=None, reasons=()))
        values["reasons"] = [reason.to_dict() for reason in self.reasons]
        if math.isnan(self.hot_share):
            values["hot_share"] = None  # JSON has no NaN
        if heatmap and self.heatmap is not None:
            values["heatmap"] = _to_base64_png(self.heatmap)
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read what `to_json` wrote; the heat map comes back within 1/510. Raises RealDamageError on anything else."""
        try:
            values = json.loads(text)
            values["regions"] = tuple(
                Region(tuple(v["box"]), v["probability"]) for v in values["regions"]
            )
            values["reasons"] = tuple(Reason.from_dict(v) for v in values["reasons"])
            if values.get("quality") is not None:
                values["quality"] = PhotoQuality(**values["quality"])
            if values.get("hot_share") is None:
                values["hot_share"] = math.nan
            if values["heatmap"] is not None:
                values["heatmap"] = _from_base64_png(values["heatmap"])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise RealDamageError(
                f"not a verdict in JSON ({type(error).__name__}: {error}); expected what Verdict.to_json wrote"
            ) from error

    def to_row(self, file_name: str, ms: float) -> Mapping[str, Any]:
        """This verdict under the keys of PREDICTION_COLUMNS and MEASURED_COLUMNS.

        What only a manifest knows stays empty.

        ms: milliseconds from the photo's bytes to the verdict.
        """
        row: dict[str, Any] = dict.fromkeys((*PREDICTION_COLUMNS, *MEASURED_COLUMNS), "")
        row.update(
            file_name=file_name,
            score=self.score,
            probability="" if self.probability is None else self.probability,
            outcome=self.outcome,
            reasons=" ".join(reason.code for reason in self.reasons),
            width=self.width,
            height=self.height,
            ms=round(ms, 1),
            photo_sha256=self.photo_sha256,
            graph_sha256=self.graph_sha256,
            hot_share="" if math.isnan(self.hot_share) else self.hot_share,
        )
        if self.quality is not None:
            row.update(
                sharpness=self.quality.sharpness,
                compression=self.quality.compression,
                fine_detail="" if self.quality.fine_detail is None else self.quality.fine_detail,
            )
        return row


def _to_base64_png(heatmap: Float32Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.round(heatmap * 255).astype(np.uint8)).save(
        buffer, format="PNG", optimize=True
    )
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _from_base64_png(text: str) -> Float32Array:
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        return np.asarray(image, dtype=np.float32) / np.float32(255)
