"""Scores a manifest through the same wrapper that serves, and keeps what it said in one table: the predictions file
that every figure, threshold and report is computed from.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.listing import csv_line, unescape_cell
from realdamage.core.onnx_file import write_atomically
from realdamage.core.photo import Photo, PixelSpec, read_photo
from realdamage.core.policy import Outcome
from realdamage.core.progress import Track, no_progress
from realdamage.core.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS, UNREADABLE, Verdict
from realdamage.data.manifest import LABELS, Manifest, read_mask
from realdamage.data.manifest import patch_share
from realdamage.errors import ConfigError, PhotoError, RealDamageError, UsageError

__all__ = [
    "FURTHER_COLUMNS",
    "PREDICTION_COLUMNS",
    "PatchEvidence",
    "check_against_manifest",
    "check_format",
    "check_predictions",
    "clean",
    "group_ids",
    "read_predictions",
    "score_manifest",
    "write_predictions",
]

FURTHER_COLUMNS = ("family", "condition", "pair", "split", "mask_area", *MEASURED_COLUMNS)
"""What slices, pairs and gates need beside `PREDICTION_COLUMNS`; empty where a file lacks them. `mask_area`: share of
the photo that its mask calls synthetic, in 0..1, 0 for real photos; `MEASURED_COLUMNS`: see `Verdict`."""
_NUMBERS = ("score", "probability", "width", "height", "ms", "mask_area", *MEASURED_COLUMNS)
_FROM_MANIFEST = (
    "label",
    "kind",
    "generator",
    "damage",
    "source",
    "group",
    "family",
    "condition",
    "pair",
    "split",
)
_COLUMNS = (*PREDICTION_COLUMNS, *FURTHER_COLUMNS)
_OUTCOMES = get_args(Outcome)
FORMATS = ("csv", "parquet")
"""Of a predictions file, by its ending."""


Mask: TypeAlias = "npt.NDArray[np.bool_] | npt.NDArray[np.float32]"


class PhotoDetector(Protocol):
    """What scoring needs of a detector; `realdamage.Detector` has it, and so has a wrapped torch checkpoint."""

    @property
    def pixel_spec(self) -> PixelSpec: ...

    def predict_photo(self, photo: Photo) -> Verdict: ...


class PatchEvidence(NamedTuple):
    """A synthetic photo's heat map beside the truth, both at evidence resolution.

    heat: float32 [h, w] in 0..1. painted: bool [h, w], True where more than half of the patch was regenerated.
    """

    file_name: str
    heat: npt.NDArray[np.float32]
    painted: npt.NDArray[np.bool_]


def score_manifest(
    detector: PhotoDetector,
    manifest: Manifest,
    *,
    progress: Track = no_progress,
    on_error: Literal["raise", "skip"] = "raise",
) -> tuple[pd.DataFrame, list[PatchEvidence]]:
    """Judges every photo, in the manifest's order: (predictions, localisation).

    Predictions have `PREDICTION_COLUMNS` and `FURTHER_COLUMNS`, one row per photo; `ms` runs from the file's bytes to
    the verdict.
    Localisation has one entry per synthetic photo with a mask, except kind `ai_whole`, where every pixel is.
    An unreadable photo raises PhotoError, or with
    `on_error="skip"` leaves a row without score and outcome whose reason is `unreadable`. Raises ManifestError: a mask
    that is unreadable or of another size than its photo.
    """
    rows: list[dict[str, object]] = []
    localisation: list[PatchEvidence] = []
    photos = list(enumerate(manifest.table["file_name"]))
    for index, file_name in progress(photos, len(photos), "photos"):
        path = manifest.path(file_name)
        start = time.perf_counter()
        try:
            photo = read_photo(path, detector.pixel_spec, name=str(path))
            verdict = detector.predict_photo(photo)
        except PhotoError:
            if on_error == "raise":
                raise
            rows.append(unscored_row(manifest, index))
            continue
        ms = 1000 * (time.perf_counter() - start)
        mask = mask_of(manifest, index, (photo.height, photo.width))
        rows.append(verdict_row(manifest, index, verdict, mask, ms=ms))
        localisation += patch_evidence(
            manifest, index, photo, verdict, mask, detector.pixel_spec.patch
        )
    return predictions_table(rows), localisation


def mask_of(manifest: Manifest, index: int, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """The mask of the synthetic photo at position `index`, None for a real one and where there is none. `size` (h, w):
    of the upright photo. Raises ManifestError as `read_mask` does."""
    row = manifest.table.iloc[index]
    return (
        read_mask(manifest, index, size)
        if row["label"] == "synthetic" and row["mask_file_name"]
        else None
    )


def verdict_row(
    manifest: Manifest,
    index: int,
    verdict: Verdict,
    mask: Mask | None,
    *,
    ms: float,
    perturbation: str = "",
) -> dict[str, object]:
    """The row of the photo at position `index`, under `PREDICTION_COLUMNS` and `FURTHER_COLUMNS`; `mask` as
    `mask_of` gives it, moved with the photo by the perturbation: [h, w] in 0..1."""
    known = manifest.table.iloc[index]
    area = 0.0 if known["label"] == "real" else "" if mask is None else float(mask.mean())
    row = dict(verdict.to_row(str(known["file_name"]), ms=ms)) | {
        "perturbation": perturbation,
        "mask_area": area,
    }
    return row | {column: known[column] for column in _FROM_MANIFEST}


def unscored_row(manifest: Manifest, index: int, perturbation: str = "") -> dict[str, object]:
    """The row of a photo that cannot be judged: without score, for the reason `unreadable`."""
    row = dict.fromkeys(_COLUMNS, "") | {"perturbation": perturbation, "reasons": UNREADABLE}
    known = manifest.table.iloc[index]
    return row | {column: known[column] for column in ("file_name", *_FROM_MANIFEST)}


def patch_evidence(
    manifest: Manifest, index: int, photo: Photo, verdict: Verdict, mask: Mask | None, patch: int
) -> list[PatchEvidence]:
    """The heat map beside the truth, for a synthetic photo with a mask that is not of the kind `ai_whole`; else
    nothing. `patch`: side of a patch in pixels of `photo.rgb`."""
    row = manifest.table.iloc[index]
    if (
        row["label"] != "synthetic"
        or row["kind"] == "ai_whole"
        or mask is None
        or verdict.heatmap is None
    ):
        return []
    share = patch_share(mask, photo.rgb.shape[:2], patch)
    return [PatchEvidence(str(row["file_name"]), verdict.heatmap, share > 0.5)]


def predictions_table(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """The predictions table of such rows, its columns typed."""
    return _typed(pd.DataFrame(rows, columns=list(_COLUMNS)))


def clean(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of photos as they are, without any perturbation."""
    return predictions[predictions["perturbation"] == ""].reset_index(drop=True)


def group_ids(predictions: pd.DataFrame) -> pd.Series:
    """The group of each row; a photo without one is a group of its own, over all of its perturbations."""
    return predictions["group"].where(predictions["group"] != "", predictions["file_name"])


def check_predictions(predictions: pd.DataFrame, source: str = "predictions") -> None:
    """Raises RealDamageError: a column of `PREDICTION_COLUMNS` is missing, a label or an outcome is none, a score is
    infinite, or one photo stands there twice under the same perturbation."""
    missing = [column for column in PREDICTION_COLUMNS if column not in predictions.columns]
    if missing:
        raise RealDamageError(
            f"{source}: not a predictions file; missing columns: {', '.join(missing)}. "
            "Write it with realdamage-evaluate."
        )
    for column, allowed in (("label", LABELS), ("outcome", _OUTCOMES)):
        wrong = np.flatnonzero(~predictions[column].fillna("").isin([*allowed, ""]))
        if len(wrong):
            raise RealDamageError(
                f"{source}, row {wrong[0] + 2}, column {column}: found {predictions[column].iat[wrong[0]]!r}; "
                f"allowed: {', '.join(allowed)}, or empty."
            )
    infinite = np.flatnonzero(np.isinf(pd.to_numeric(predictions["score"], errors="coerce")))
    if len(infinite):
        raise RealDamageError(
            f"{source}, row {infinite[0] + 2}, column score: found {predictions['score'].iat[infinite[0]]!s}; a score "
            "must be finite, or empty for a photo that was not judged."
        )
    twice = np.flatnonzero(predictions.duplicated(["file_name", "perturbation"]))
    if len(twice):
        name, perturbation = (
            str(predictions[column].iat[twice[0]]) for column in ("file_name", "perturbation")
        )
        raise RealDamageError(
            f"{source}, row {twice[0] + 2}: {name} ({perturbation or 'no perturbation'}) is there twice; a photo that "
            "counts twice falsifies every figure. Remove the repeated rows."
        )


def check_against_manifest(predictions: pd.DataFrame, manifest: Manifest) -> None:
    """Raises RealDamageError: a photo that the manifest does not have, or has with another label."""
    labels = dict(zip(manifest.table["file_name"], manifest.table["label"], strict=True))
    for name, label in zip(predictions["file_name"], predictions["label"], strict=True):
        if name not in labels:
            raise RealDamageError(
                f"{name} is in the predictions, but not in {manifest.root}. Name the manifest that was evaluated."
            )
        if label not in ("", labels[name]):
            raise RealDamageError(
                f"{name}: the predictions say {label}, {manifest.root} says {labels[name]}. Evaluate again."
            )


def check_format(name: str) -> None:
    """Refuses what `write_predictions` cannot write before hours of scoring. Raises ConfigError: neither csv nor
    parquet, or Parquet without a package that writes it."""
    if name not in FORMATS:
        raise ConfigError(f"format={name}: allowed are {', '.join(FORMATS)}")
    if name == "parquet":
        try:
            pd.DataFrame({"score": [0.0]}).to_parquet(io.BytesIO(), index=False)
        except ImportError as error:
            raise ConfigError(
                "format=parquet needs a package: pip install pyarrow, or give format=csv"
            ) from error


def write_predictions(path: str | Path, predictions: pd.DataFrame) -> None:
    """Writes the table as .csv or .parquet, whole or not at all. Raises RealDamageError: another ending, no room."""
    check_predictions(predictions)
    if _is_parquet(path):
        buffer = io.BytesIO()
        try:
            predictions.to_parquet(buffer, index=False)
        except ImportError as error:
            raise _parquet_engine_missing(path) from error
        write_atomically(path, buffer.getvalue())
    else:
        write_atomically(path, table_csv(predictions))


def table_csv(table: pd.DataFrame) -> bytes:
    """The table as a CSV file: text as `csv_line` escapes it, empty cells for missing values."""
    rows = table.astype(object).where(table.notna(), "").itertuples(index=False, name=None)
    return "".join(f"{csv_line(row)}\n" for row in (tuple(table.columns), *rows)).encode()


def read_table_csv(path: str | Path) -> pd.DataFrame:
    """Reads what `table_csv` wrote, or any CSV file: text in every cell, as it was before it was escaped."""
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig").map(
        unescape_cell
    )


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Reads what `write_predictions` wrote: numbers as float64 (NaN where empty), the rest as strings ("" where empty).

    Raises UsageError: no such file; RealDamageError: another ending, no predictions file.
    """
    try:
        table = pd.read_parquet(path) if _is_parquet(path) else read_table_csv(path)
    except ImportError as error:
        raise _parquet_engine_missing(path) from error
    except OSError as error:
        kind = UsageError if isinstance(error, FileNotFoundError) else RealDamageError
        raise kind(
            f"{path}: cannot be read ({error.strerror or error}). Name a file that realdamage-evaluate wrote."
        ) from error
    except (ValueError, pd.errors.ParserError) as error:
        raise RealDamageError(
            f"{path}: not a readable table ({error}). Write it again with realdamage-evaluate."
        ) from error
    check_predictions(table, str(path))
    return _typed(table, str(path))


def _typed(table: pd.DataFrame, source: str = "predictions") -> pd.DataFrame:
    table = table.assign(
        **{column: "" for column in FURTHER_COLUMNS if column not in table.columns}
    )
    strings = [column for column in _COLUMNS if column not in _NUMBERS]
    typed: dict[str, pd.Series] = {
        column: table[column].fillna("").astype(str) for column in strings
    }
    for column in _NUMBERS:
        numbers = pd.to_numeric(table[column], errors="coerce").astype("float64")
        given = table[column].notna() & (table[column].astype(str) != "")
        wrong = np.flatnonzero(given & numbers.isna())
        if len(wrong):
            raise RealDamageError(
                f"{source}, row {wrong[0] + 2}, column {column}: found {table[column].iat[wrong[0]]!r}, not a number."
            )
        typed[column] = numbers
    return table.assign(**typed)


def _is_parquet(path: str | Path) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix.removeprefix(".") not in FORMATS:
        raise RealDamageError(
            f"{path}: a predictions file ends in .csv or .parquet, not in {suffix!r}. Rename it."
        )
    return suffix == ".parquet"


def _parquet_engine_missing(path: str | Path) -> RealDamageError:
    return RealDamageError(
        f"{path}: Parquet needs a package that is not installed. pip install pyarrow, or use .csv."
    )
