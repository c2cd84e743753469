"""The shift alarm: a promise holds for photos drawn like the calibration photos, so somebody must watch whether they
still are.

No label is needed: what a service judged is compared with the calibration photos in all that a verdict tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realdamage.core.metadata import ModelMetadata, read_model_file
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.figures import NOT_CALIBRATED
from realdamage.evaluation.predictions import check_predictions, clean
from realdamage.evaluation.shift import Reference, Shift, holm, photos_needed, visible_shift

MIN_PHOTOS, MIN_OF_CLASS = 50, 25
"""Fewer photos, in the log or in the reference, or of a class of the reference, are not compared."""
_NUMBERS = {
    "score": "score",
    "short_side": "shorter side",
    "long_side": "longer side",
    "sharpness": "sharpness",
    "compression": "compression",
    "fine_detail": "fine detail",
    "hot_share": "share of hot patches",
}


@dataclass(frozen=True)
class MonitorReport:
    """What `monitor` found.

    photos, reference_photos: compared, each photo once; unscored, repeated: rows of the log that were left out.
    prior: share of synthetic photos that explains the log's scores best, or the one given; None without labels.
    shifts: one entry a column, those that alarm first. skipped: what could not be compared, and why. least_effect: how
    large a shift must be to alarm. visible: the smallest that these few photos could show; needed: photos that would
    show one of `least_effect`, None when the reference is too small for that. promise: the model's, in words.
    """

    photos: int
    reference_photos: int
    unscored: int
    repeated: int
    prior: float | None
    shifts: tuple[Shift, ...]
    skipped: tuple[str, ...]
    level: float
    least_effect: float
    visible: float
    needed: int | None
    promise: str | None

    @property
    def alarm(self) -> bool:
        """Whether something shifted."""
        return any(shift.alarm for shift in self.shifts)

    def to_json(self) -> str:
        """Everything as indented JSON; the same keys, `shifts` as objects, and `alarm`."""
        values: dict[str, Any] = {"alarm": self.alarm, **asdict(self)}
        values["shifts"] = [shift._asdict() for shift in self.shifts]
        return json.dumps(values, indent=2, allow_nan=False) + "\n"


def monitor(
    log: pd.DataFrame,
    reference: pd.DataFrame,
    model: str | Path | None = None,
    *,
    prior: float | None = None,
    level: float = 0.05,
    least_effect: float = 0.1,
) -> MonitorReport:
    """Compares a log (`read_log`) with the predictions of the calibration photos (`read_predictions`; clean rows).

    A column alarms when a difference as large would be rare by chance (`level`, over all columns: Holm 1979) *and* it
    is large: `least_effect` of the photos would have to change. So a huge log does not alarm over a trifle, nor a small
    one by luck. See `Reference` for the share of synthetic photos; a log that merely holds more of them, and looks like
    it, is no shift. model: its file, whose network must have made both, and whose promise is told.
    Raises UsageError: a number out of range; RealDamageError: nothing in common, too few photos, another model.
    """
    _check_options(prior, level, least_effect)
    check_predictions(reference, "reference")
    metadata = _same_network(log, reference, model)
    before = clean(reference[reference["score"].notna()])
    scored = log[log["score"].notna()]
    known = scored["photo_sha256"] != ""
    here = scored[~(known & scored.duplicated("photo_sha256"))].reset_index(drop=True)
    _check_enough(here, before)
    against = Reference(_with_sides(before), prior)
    shifts, skipped = _compare(_with_sides(here), against, before)
    adjusted = holm(np.array([shift.p for shift in shifts]))
    shifts = [
        shift._replace(p_adjusted=float(p), alarm=bool(p < level and shift.effect >= least_effect))
        for shift, p in zip(shifts, adjusted, strict=True)
    ]
    worth = against.photos()
    return MonitorReport(
        photos=len(here),
        reference_photos=len(before),
        unscored=len(log) - len(scored),
        repeated=len(scored) - len(here),
        prior=shifts[0].prior if prior is None else prior,
        shifts=tuple(sorted(shifts, key=lambda shift: (not shift.alarm, -shift.effect))),
        skipped=tuple(skipped),
        level=level,
        least_effect=least_effect,
        visible=max(least_effect, visible_shift(len(here), worth, len(shifts), level)),
        needed=photos_needed(least_effect, worth, len(shifts), level),
        promise=metadata.policy.guarantee.statement
        if metadata and metadata.policy and metadata.policy.guarantee
        else None,
    )


def report_text(report: MonitorReport) -> str:
    """The report as lines for a terminal, the verdict last."""
    left_out = [
        *([f"{report.unscored} without a score"] if report.unscored else []),
        *([f"{report.repeated} seen before"] if report.repeated else []),
    ]
    lines = [
        f"{report.photos} photos against {report.reference_photos} of the calibration"
        + (f" (left out: {', '.join(left_out)})" if left_out else "")
    ]
    if report.prior is not None:
        lines.append(
            f"scores are those of a mixture with {report.prior:.0%} synthetic photos, or nearest to it"
        )
    lines += ["", f"{'':<22}{'now':>22}{'calibration':>22}{'shift':>8}{'PSI':>8}{'p (Holm)':>10}"]
    for shift in report.shifts:
        lines.append(
            f"{shift.name:<22}{shift.here:>22}{shift.before:>22}{shift.effect:>8.3f}{shift.psi:>8.3f}"
            f"{shift.p_adjusted:>10.2g}{'  ALARM' if shift.alarm else ''}"
        )
    lines += [f"not compared: {reason}" for reason in report.skipped]
    lines += ["", *_verdict_lines(report)]
    return "\n".join(lines)


def _verdict_lines(report: MonitorReport) -> list[str]:
    if report.alarm:
        shifted = ", ".join(shift.name for shift in report.shifts if shift.alarm)
        promise = (
            f"The model's promise no longer applies to them: {report.promise}"
            if report.promise
            else "Rates measured on the calibration photos, and any promise, no longer apply to them."
        )
        return [
            f"ALARM: these photos are not like the calibration photos any more ({shifted}).",
            promise,
            "Calibrate again on photos like these, and until then let people look at what is called synthetic.",
        ]
    lines = [
        f"no shift of {report.visible:.2f} or more was found; "
        + (
            "the promise stands as far as this can tell"
            if report.promise
            else "the calibration stands as far as this"
        )
        + ("" if report.promise else " can tell")
    ]
    if report.visible > report.least_effect:
        lines.append(
            f"too few photos to see one of {report.least_effect:.2f}: "
            + (
                f"that takes {report.needed} in the log"
                if report.needed
                else "that takes more calibration photos, of more groups"
            )
        )
    return lines


def _compare(
    here: pd.DataFrame, against: Reference, before: pd.DataFrame
) -> tuple[list[Shift], list[str]]:
    """One Shift for each column that both sides have, the score's first; and why others were left out."""
    shifts, skipped = [], []
    for column, name in _NUMBERS.items():
        empty = [
            side
            for side, tables in (("the log", [here]), ("the reference", against.parts))
            if any(table[column].notna().sum() < MIN_OF_CLASS for table in tables)
        ]
        if empty:
            skipped.append(f"{name} (hardly any values in {' and '.join(empty)})")
        else:
            shifts.append(against.number(name, here[column], column))
    without = [
        side
        for side, table in (("the log", here), ("the reference", before))
        if table["reasons"].str.contains(NOT_CALIBRATED, regex=False).any()
    ]
    if without:
        skipped.append(
            f"outcomes and reasons ({' and '.join(without)} judged before the model was calibrated)"
        )
        return shifts, skipped
    shifts.append(against.shares("outcome", here["outcome"], lambda table: table["outcome"]))
    for code in sorted(_codes([here["reasons"], before["reasons"]])):
        has = _HasReason(code)
        shifts.append(against.shares(f"reason {code}", has(here), has))
    return shifts, skipped


class _HasReason:
    """Whether photos have a reason, as "yes" or "no"."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __call__(self, table: pd.DataFrame) -> pd.Series:
        return table["reasons"].map(lambda codes: "yes" if self._code in codes.split() else "no")


def _codes(columns: Iterable[pd.Series]) -> set[str]:
    return {code for column in columns for codes in column.unique() for code in codes.split()}


def _with_sides(photos: pd.DataFrame) -> pd.DataFrame:
    sides = photos[["width", "height"]]
    return photos.assign(short_side=sides.min(axis=1), long_side=sides.max(axis=1))


def _same_network(
    log: pd.DataFrame, reference: pd.DataFrame, model: str | Path | None
) -> ModelMetadata | None:
    """The model's metadata, if one was named; raises when not one and the same network made everything."""
    found = {
        "the log": set(log["graph_sha256"]) - {""},
        "the reference": set(reference["graph_sha256"]) - {""},
    }
    metadata = None
    if model is not None:
        _, metadata, digest = read_model_file(model)
        found[str(model)] = {digest}
    for name, digests in found.items():
        if len(digests) > 1:
            raise RealDamageError(
                f"{name} holds verdicts of {len(digests)} networks ({', '.join(d[:12] for d in sorted(digests))}); "
                "scores of different networks cannot be compared. Split it by graph_sha256."
            )
    if len({digest for digests in found.values() for digest in digests}) > 1:
        told = ", ".join(
            f"{name} {next(iter(digests))[:12]}…" for name, digests in found.items() if digests
        )
        raise RealDamageError(
            f"Not one network made all of this: {told}. A promise is about one network; score the calibration photos "
            "with the one that made the log."
        )
    return metadata


def _check_enough(here: pd.DataFrame, before: pd.DataFrame) -> None:
    for name, count in (("log", len(here)), ("reference", len(before))):
        if count < MIN_PHOTOS:
            raise RealDamageError(
                f"The {name} has {count} scored photos; at least {MIN_PHOTOS} are needed to compare anything, and "
                "several hundred to see a shift of a tenth of the photos."
            )
    real, synthetic = (int((before["label"] == label).sum()) for label in ("real", "synthetic"))
    if (before["label"] != "").all() and (real < MIN_OF_CLASS or 0 < synthetic < MIN_OF_CLASS):
        raise RealDamageError(
            f"The reference has {real} real and {synthetic} synthetic photos; at least {MIN_OF_CLASS} of each are "
            "needed (or no synthetic one), as the log may hold any mixture of them."
        )


def _check_options(prior: float | None, level: float, least_effect: float) -> None:
    if prior is not None and not 0 <= prior <= 1:
        raise UsageError(f"prior={prior} must be in 0..1: the share of synthetic photos in the log")
    for name, value in (("level", level), ("least_effect", least_effect)):
        if not 0 < value < 1:
            raise UsageError(f"{name}={value} must be above 0 and below 1")
