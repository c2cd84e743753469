"""Scores a manifest with the detector that a service runs, and keeps the verdicts in one table: the
predictions file that every figure and threshold is computed from. Also reads a service's log, and
the folder that an evaluation left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.model_file import ModelMetadata, read_model_file
from realdamage.core.policy import Outcome, Policy
from realdamage.core.progress import Track, no_progress
from realdamage.core.tiles import Photo, read_photo
from realdamage.core.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS, UNREADABLE, verdict_row
from realdamage.data.manifest import Manifest, patch_share, read_mask
from realdamage.data.vocabulary import LABELS
from realdamage.errors import RealDamageError, UsageError
from realdamage.files import csv_line, unescape_cell, write_atomically

if TYPE_CHECKING:
    from realdamage.core.detector import Detector

FURTHER_COLUMNS = ("family", "condition", "pair", "split", "mask_area", *MEASURED_COLUMNS)
"""What slices, pairs and the gate also need. `mask_area`: the share of the photo that its mask
calls synthetic, in 0..1; 0 for real photos, empty without a mask."""
FORMATS = ("csv", "parquet")
"""File name endings of a predictions file."""
METRICS_NAME = "metrics.json"
"""The figures, next to the predictions of an evaluation."""

_COLUMNS = (*PREDICTION_COLUMNS, *FURTHER_COLUMNS)
_NUMBERS = ("score", "probability", "width", "height", "ms", "mask_area", *MEASURED_COLUMNS)
_STRINGS = tuple(column for column in _COLUMNS if column not in _NUMBERS)
_FROM_MANIFEST = (
    *("label", "kind", "generator", "damage", "source", "group"),
    *("family", "condition", "pair", "split"),
)
_LOG_STRINGS = ("file_name", "group", "photo_sha256", "graph_sha256")
_LOG_NUMBERS = ("score", "width", "height", *MEASURED_COLUMNS)
_LOG_NEEDS = ("score", "graph_sha256")

Mask: TypeAlias = "npt.NDArray[np.bool_] | npt.NDArray[np.float32]"
Row = dict[str, object]


class PatchEvidence(NamedTuple):
    """A synthetic photo's heat map and the truth, both at evidence resolution.

    heat: float32 [h, w] in 0..1.
    painted: bool [h, w], more than half of the patch is synthetic.
    """

    file_name: str
    heat: npt.NDArray[np.float32]
    painted: npt.NDArray[np.bool_]


def score_manifest(
    detector: Detector, manifest: Manifest, *, progress: Track = no_progress
) -> tuple[pd.DataFrame, list[PatchEvidence]]:
    """Judges every photo in the manifest's order: its predictions, and the heat maps of `judge`.

    Raises PhotoError: a photo cannot be read; ManifestError: a mask cannot be read, or has another
    size than its photo.
    """
    rows: list[Row] = []
    localisation: list[PatchEvidence] = []
    for index in progress(range(len(manifest)), len(manifest), "photos"):
        row, evidence = judge(detector, manifest, index, *read_with_mask(detector, manifest, index))
        rows.append(row)
        localisation += evidence
    return predictions_table(rows), localisation


def read_with_mask(
    detector: Detector, manifest: Manifest, index: int
) -> tuple[Photo, npt.NDArray[np.bool_] | None, float]:
    """The photo at position `index`, the mask of a synthetic one, and the seconds that decoding
    took. Raises as `score_manifest`."""
    row = manifest.table.iloc[index]
    path = manifest.path(row["file_name"])
    start = time.perf_counter()
    photo = read_photo(path, detector.pixel_spec, name=str(path))
    seconds = time.perf_counter() - start
    has_mask = row["label"] == "synthetic" and row["mask_file_name"]
    mask = read_mask(manifest, index, (photo.height, photo.width)) if has_mask else None
    return photo, mask, seconds


def judge(
    detector: Detector,
    manifest: Manifest,
    index: int,
    photo: Photo,
    mask: Mask | None,
    seconds: float,
    perturbation: str = "",
) -> tuple[Row, list[PatchEvidence]]:
    """The predictions row of a photo, and its heat map with the truth.

    mask: [h, w] in 0..1, moved with the photo by the perturbation; None for a real photo.
    seconds: spent on the photo so far; the row's `ms` includes them.
    The list is empty without a mask and for kind `ai_whole`, where every pixel is synthetic.
    """
    known = manifest.table.iloc[index]
    start = time.perf_counter()
    verdict = detector.predict_photo(photo)
    ms = 1000 * (seconds + time.perf_counter() - start)
    area = 0.0 if known["label"] == "real" else "" if mask is None else float(mask.mean())
    row: Row = {
        **verdict_row(str(known["file_name"]), verdict, ms),
        "perturbation": perturbation,
        "mask_area": area,
        **{column: known[column] for column in _FROM_MANIFEST},
    }
    if mask is None or known["kind"] == "ai_whole" or verdict.heatmap is None:
        return row, []
    share = patch_share(mask, photo.rgb.shape[:2], detector.pixel_spec.patch)
    return row, [PatchEvidence(str(known["file_name"]), verdict.heatmap, share > 0.5)]


def unscored_row(manifest: Manifest, index: int, perturbation: str = "") -> Row:
    """The row of a photo that cannot be judged: no score, reason `unreadable`."""
    known = manifest.table.iloc[index]
    return {
        **dict.fromkeys(_COLUMNS, ""),
        "perturbation": perturbation,
        "reasons": UNREADABLE,
        **{column: known[column] for column in ("file_name", *_FROM_MANIFEST)},
    }


def predictions_table(rows: Sequence[Mapping[str, object]] | pd.DataFrame) -> pd.DataFrame:
    """The predictions table of such rows, with typed columns; missing ones are empty."""
    return _typed(pd.DataFrame(rows, columns=list(_COLUMNS)), _STRINGS, _NUMBERS, "predictions")


def clean(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of unperturbed photos."""
    return predictions[predictions["perturbation"] == ""].reset_index(drop=True)


def outcomes_by(policy: Policy, scored: pd.DataFrame) -> pd.Series:
    """What a policy calls photos by score and share of hot patches, whatever they were called."""
    outcomes = scored["score"].map(policy.outcome)
    if policy.whole_photo_share is None:
        return outcomes
    return outcomes.mask(scored["hot_share"] >= policy.whole_photo_share, "review")


def group_ids(predictions: pd.DataFrame) -> pd.Series:
    """The group of each row; a photo without a group is its own."""
    return predictions["group"].where(predictions["group"] != "", predictions["file_name"])


def check_predictions(predictions: pd.DataFrame, source: str = "predictions") -> None:
    """Raises RealDamageError: a column is missing, a label or an outcome is unknown, or a photo
    occurs twice under the same perturbation."""
    missing = [column for column in PREDICTION_COLUMNS if column not in predictions.columns]
    if missing:
        raise RealDamageError(
            f"{source}: not a predictions file; missing columns: {', '.join(missing)}. Write it "
            "with realdamage-evaluate.",
            code="missing_columns",
        )
    for column, allowed in (("label", LABELS), ("outcome", get_args(Outcome))):
        wrong = np.flatnonzero(~predictions[column].fillna("").isin([*allowed, ""]))
        if len(wrong):
            raise _wrong_value(predictions, column, wrong[0], source, ", ".join(allowed))
    twice = np.flatnonzero(predictions.duplicated(["file_name", "perturbation"]))
    if len(twice):
        name, perturbation = predictions[["file_name", "perturbation"]].iloc[twice[0]]
        raise RealDamageError(
            f"{source}, row {twice[0] + 2}: {name} ({perturbation or 'no perturbation'}) occurs "
            "twice. Remove the repeated rows.",
            code="repeated_photo",
        )


def write_predictions(path: str | Path, predictions: pd.DataFrame) -> None:
    """Writes the table as .csv or .parquet, all or nothing. Raises RealDamageError: another ending,
    no space."""
    check_predictions(predictions)
    as_csv = _ending(path, FORMATS) == "csv"
    write_atomically(
        path, table_csv(predictions) if as_csv else predictions.to_parquet(index=False)
    )


def table_csv(table: pd.DataFrame) -> bytes:
    """The table as a CSV file: text escaped as `csv_line` does, empty cells for missing values."""
    rows = table.astype(object).where(table.notna(), "").itertuples(index=False, name=None)
    return "".join(f"{csv_line(row)}\n" for row in (tuple(table.columns), *rows)).encode()


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Reads what `write_predictions` wrote: numbers as float64, NaN where empty; else strings.

    Raises UsageError: no such file; RealDamageError: not a predictions file, a wrong value.
    """
    table = read_table(path, FORMATS)
    check_predictions(table, str(path))
    missing = {column: "" for column in FURTHER_COLUMNS if column not in table.columns}
    return _typed(table.assign(**missing), _STRINGS, _NUMBERS, str(path))


def find_predictions(path: str | Path) -> Path:
    """The predictions file at this path, or in this evaluation folder. Raises UsageError."""
    given = Path(path)
    for candidate in (given, *(given / f"predictions.{ending}" for ending in FORMATS)):
        if candidate.is_file():
            return candidate
    raise UsageError(
        f"{given}: no predictions.csv or predictions.parquet there; name a folder that "
        "realdamage-evaluate wrote"
    )


def read_evaluation(folder: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The predictions and metrics.json of an evaluation folder. Raises RealDamageError."""
    if Path(folder).is_file():
        raise UsageError(f"{folder}: a file; name the folder that it is in")
    predictions = read_predictions(find_predictions(folder))
    path = Path(folder) / METRICS_NAME
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        metrics["auroc"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RealDamageError(
            f"{path}: not a file of realdamage-evaluate ({error}). Run it again.",
            code="no_evaluation",
        ) from error
    return predictions, metrics


def read_judge(path: str | Path, predictions: pd.DataFrame) -> tuple[bytes, ModelMetadata, Policy]:
    """The calibrated model file that made these predictions: its bytes, metadata and policy.

    Raises ModelFileError; RealDamageError: not calibrated, or another network.
    """
    onnx_bytes, metadata, digest = read_model_file(path)
    if metadata.policy is None or metadata.calibration is None:
        raise RealDamageError(
            f"{path}: not calibrated, so it has no thresholds. Run realdamage calibrate first.",
            code="not_calibrated",
        )
    others = sorted(set(predictions["graph_sha256"]) - {digest, ""})
    if others:
        raise RealDamageError(
            f"{path} is another network (graph {digest[:12]}…) than the one of the predictions "
            f"({others[0][:12]}…). Name the model that made them.",
            code="other_network",
        )
    return onnx_bytes, metadata, metadata.policy


def read_log(path: str | Path) -> pd.DataFrame:
    """The verdicts that `realdamage predict` wrote, one row each, typed as in `read_predictions`.
    File names may repeat; missing columns are empty.

    Raises UsageError: no such file; RealDamageError: not a log, a wrong value.
    """
    table = read_table(path, FORMATS)
    missing = [column for column in _LOG_NEEDS if column not in table.columns]
    if table.empty or missing:
        found = f"missing columns: {', '.join(missing)}" if missing else "it has no rows"
        raise RealDamageError(
            f"{path}: not a log of verdicts; {found}. Write it with: realdamage predict PHOTOS "
            "--output LOG.csv",
            code="no_log",
        )
    table = table.reindex(columns=[*_LOG_STRINGS, *_LOG_NUMBERS])
    return _typed(table, _LOG_STRINGS, _LOG_NUMBERS, str(path))


def read_table(path: str | Path, formats: Sequence[str]) -> pd.DataFrame:
    """A table by the ending of its name, one of `formats`; from CSV with text in every cell.

    Raises UsageError: no such file; RealDamageError: another ending, not readable.
    """
    ending = _ending(path, formats)
    try:
        if ending == "parquet":
            return pd.read_parquet(path)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        return table.map(unescape_cell)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: cannot be read (no such file).", code="missing_file") from error
    except (OSError, ValueError) as error:  # what pandas raises for a broken file is a ValueError
        raise RealDamageError(
            f"{path}: not a readable table ({error}).", code="unreadable_table"
        ) from error


def _ending(path: str | Path, allowed: Sequence[str]) -> str:
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in allowed:
        raise RealDamageError(
            f"{path}: its name must end in {', '.join(f'.{name}' for name in allowed)}. Rename it.",
            code="unknown_format",
        )
    return ending


def _typed(
    table: pd.DataFrame, strings: Sequence[str], numbers: Sequence[str], source: str
) -> pd.DataFrame:
    typed: dict[str, pd.Series] = {
        column: table[column].fillna("").astype(str) for column in strings
    }
    for column in numbers:
        found = pd.to_numeric(table[column], errors="coerce").astype("float64")
        given = table[column].notna() & ~table[column].astype(str).str.lower().isin(["", "nan"])
        wrong = np.flatnonzero(given & ~np.isfinite(found))
        if len(wrong):
            raise _wrong_value(table, column, wrong[0], source, "a finite number")
        typed[column] = found
    return table.assign(**typed)


def _wrong_value(
    table: pd.DataFrame, column: str, row: int, source: str, allowed: str
) -> RealDamageError:
    return RealDamageError(
        f"{source}, row {row + 2}, column {column}: found {table[column].iat[row]!r}; allowed: "
        f"{allowed}, or empty.",
        code="wrong_value",
    )
