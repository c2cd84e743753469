"""Gives decisions back as a manifest to train on, with names and cells that any reader takes for what they are.

Labels made this way are a biased sample (`BIAS_NOTICE`).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

from realdamage.files import FORMULA
from realdamage.service.review_store import Review

FileNames = Literal["given", "sha256"]

BIAS_NOTICE = (
    "Reviewed photos are a biased sample: only those that somebody looked at, mostly those the model was unsure about. "
    "Train on them beside other photos; do not calibrate thresholds or report figures on them."
)
EXPORT_COLUMNS = (
    *("file_name", "label", "kind", "condition", "damage", "group", "sha256"),
    *(
        "label_source",
        "decided_by",
        "decided_key",
        "decided_at",
        "model_outcome",
        "model_score",
        "model_version",
    ),
)

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


def export_manifest(reviews: Sequence[Review], names: FileNames = "given") -> str:
    """Decisions, one a photo, as a manifest (CSV, EXPORT_COLUMNS); the unsure ones are left out.

    names: "given" keeps the photos' own names; a name used twice, or one that no manifest may hold, gets digits of
    its digest. "sha256" names every photo by its digest. The photos of one claim are one group.
    """
    decided = [review for review in reviews if review.decision != "unsure"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(EXPORT_COLUMNS)
    for review, file_name in zip(decided, _file_names(decided, names), strict=True):
        really_damaged = review.decision == "real" and review.damage != ""
        kind = "damaged" if really_damaged else "original" if review.decision == "real" else ""
        group = _cell(f"claim {review.claim_id}") if review.claim_id else ""
        table.writerow(
            (
                *(
                    file_name,
                    review.decision,
                    kind,
                    "damaged" if really_damaged else "unknown",
                    review.damage,
                ),
                *(
                    group,
                    review.photo_sha256,
                    "review",
                    _cell(review.reviewer),
                    _cell(review.key_name),
                ),
                review.decided_at,
                review.outcome or "",
                "" if math.isnan(review.score) else review.score,
                _cell(review.model_version),
            )
        )
    return text.getvalue()


def _cell(text: str) -> str:
    """`text` as one line that no spreadsheet takes for a formula."""
    return " ".join(text.split()).lstrip("".join(FORMULA) + " ")


def _file_names(reviews: Sequence[Review], names: FileNames) -> list[str]:
    taken: set[str] = set()
    chosen = []
    for review in reviews:
        digest, path = review.photo_sha256, PurePosixPath(review.file_name)
        suffix = path.suffix.lower() if _SUFFIX.fullmatch(path.suffix.lower()) else ""
        name = review.file_name
        if names == "sha256" or not _plain(name):
            name = digest + suffix
        elif name.casefold() in taken:
            name = f"{path.stem}_{digest[:16]}{path.suffix}"
        name = digest + suffix if name.casefold() in taken else name
        taken.add(name.casefold())
        chosen.append(name)
    return chosen


def _plain(name: str) -> bool:
    """Whether a manifest, a file system and a spreadsheet all take the name for what it is."""
    if name != name.strip() or any(letter in name for letter in '/\\:\n\t"*?<>|'):
        return False
    return name != "" and not name.startswith((*FORMULA, ".")) and name.casefold() != "metadata.csv"
