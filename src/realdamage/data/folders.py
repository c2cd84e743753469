"""Sets without any table, where the folders say what a photo is: plain real and synthetic folders, and FraudBench."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from realdamage.data.tables import TABLE_SUFFIXES
from realdamage.data.vocabulary import LABELS
from realdamage.errors import ManifestError
from realdamage.files import PHOTO_SUFFIXES

logger = logging.getLogger(__name__)

# Folder names, capitals not counting, and what a photo below them is.
LABEL_FOLDERS = {
    "real": "real",
    "authentic": "real",
    "synthetic": "synthetic",
    "fake": "synthetic",
    "ai": "synthetic",
}
# Hugging Face's own keywords (`datasets.data_files.SPLIT_KEYWORDS`), and our names for these splits.
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# FraudBench (arXiv 2605.08820). Negative reviews show really damaged goods; the edits start from photos of undamaged
# ones, which are in Positive where they are given at all.
_NEGATIVE, _POSITIVE, _DEEPFAKE = "Negative", "Positive", "DeepFake"
# Kin under the names that the shared generated set uses; a generator of no such line is its own family.
_FAMILIES = {"gpt-image": "gpt-image", "nano-banana": "gemini-imagen", "qwen-image": "qwen"}


def photos_below(root: Path) -> list[str]:
    """The photos in a folder and all below it, by their ending, as paths relative to it with forward slashes, sorted.

    Names that begin with a dot are passed over; linked folders are followed, each once. Raises ManifestError: a folder
    cannot be listed, or a name is not UTF-8.
    """

    def refuse(error: OSError) -> None:
        raise ManifestError(
            f"{error.filename}: cannot be listed ({error.strerror}). Check its permissions."
        )

    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    start = len(str(root)) + 1
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = [name for name in below if not name.startswith(".")]
        inside = folder[start:].replace(os.sep, "/")
        prefix = f"{inside}/" if inside else ""
        names += [
            f"{prefix}{name}"
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES  # noqa: PTH122 (speed)
        ]
    for name in names:
        if not name.isascii() and name.encode(errors="replace").decode() != name:
            raise ManifestError(f"{root}: the file name {name!r} is not UTF-8. Rename the file.")
    return sorted(names)


def is_label_folders(root: Path) -> bool:
    """Whether folders with the names of labels lie in `root`, or in split folders of it."""
    inside = _folders(root)
    splits = [root / name for name in inside if name.lower() in SPLIT_FOLDERS]
    return any(
        name.lower() in LABEL_FOLDERS for folder in (root, *splits) for name in _folders(folder)
    )


def read_label_folders(root: Path) -> pd.DataFrame:
    """A table of the photos below `real/` and `synthetic/` (see `LABEL_FOLDERS`), which may lie in split folders.

    Nothing but label and split is told by such folders, so nothing else is filled in. One label alone will do: a
    recipe starts from real photos. Raises ManifestError: no photos, or photos outside of these folders.
    """
    names = photos_below(root)
    rows: list[tuple[str, str, str]] = []
    outside: list[str] = []
    for name in names:
        first, _, rest = name.partition("/")
        split = SPLIT_FOLDERS.get(first.lower(), "")
        folder = rest.partition("/")[0] if split else first
        label = LABEL_FOLDERS.get(folder.lower(), "")
        # A photo named "real.jpg" lies in no folder of that name.
        if label and len(name.split("/")) > (2 if split else 1):
            rows.append((name, label, split))
        else:
            outside.append(name)
    if not rows:
        raise ManifestError(f"{root}: no photos in folders of this layout. {_accepted_folders()}")
    if outside:
        raise ManifestError(
            f"{root}: {len(outside)} photos lie outside of the folders {', '.join(LABEL_FOLDERS)}, such as "
            f"{outside[0]!r}. Move or remove them, or describe every photo in a metadata.csv."
        )
    return pd.DataFrame(rows, columns=["file_name", "label", "split"], dtype=str)


def read_real_folder(root: Path) -> pd.DataFrame:
    """A table of all photos in a folder and below it, as real ones. Raises ManifestError: no photos, or a table in a
    folder below, which may say something else about them."""
    tables = [path for path in root.glob("*/**/metadata.*") if path.suffix in TABLE_SUFFIXES]
    if tables:
        raise ManifestError(
            f"{root}: cannot take all photos to be real, because {tables[0]} describes some of them. Name that folder, "
            "or move it elsewhere."
        )
    names = photos_below(root)
    if not names:
        raise ManifestError(f"{root}: no photos in this folder or below it.")
    return pd.DataFrame({"file_name": names, "label": "real"}, dtype=str)


def is_fraudbench(root: Path) -> bool:
    """Whether `root` holds categories with FraudBench's folders, or is one."""
    return any(
        (folder / _DEEPFAKE).is_dir()
        for folder in (root, *(root / name for name in _folders(root)))
    )


def read_fraudbench(root: Path) -> pd.DataFrame:
    """A table of `{category}/Negative/Review_*/IMG` and `{category}/DeepFake/{generator}/Review_*/IMG`.

    Negative is real and damaged. An edit is `ai_whole`: an instruction to a hosted model regenerates the whole frame,
    and no masks are published; its product is intact, what it shows is damage of an untold type ("other", for both).
    Photos of undamaged products, of which the edits were made, are taken from `{category}/Positive/Review_*` where
    there is one; only with it has an edit a `pair`, because a Negative review of the same number is another product.
    Reviews of one number are one `group` all the same, which separates nothing that belongs together.
    Raises ManifestError: one label only.
    """
    rows: list[dict[str, str]] = []
    left_out: list[str] = []
    for name in photos_below(root):
        row = _fraudbench_row(name)
        if row:
            rows.append(row)
        else:
            left_out.append(name)
    _refuse_one_label(
        root,
        Counter(row["label"] for row in rows),
        "{category}/Negative/Review_*/IMG is real, {category}/DeepFake/{generator}/Review_*/IMG is synthetic.",
    )
    if left_out:
        logger.warning(
            "%s: %d photos lie in no Review_* folder of FraudBench and are left out, such as %r",
            root,
            len(left_out),
            left_out[0],
        )
    originals = [_review_photo(row) for row in rows if row["kind"] == "original"]
    only_one = {key for key, count in Counter(originals).items() if count == 1}
    by_key = {_review_photo(row): row["file_name"] for row in rows if row["kind"] == "original"}
    for row in rows:
        if row["label"] == "synthetic" and _review_photo(row) in only_one:
            row["pair"] = by_key[_review_photo(row)]
    return pd.DataFrame(rows, dtype=str).fillna("")


def _fraudbench_row(name: str) -> dict[str, str] | None:
    parts = name.split("/")
    bucket = next(
        (index for index, part in enumerate(parts) if part in (_NEGATIVE, _POSITIVE, _DEEPFAKE)),
        None,
    )
    if bucket is None:
        return None
    generator = parts[bucket + 1] if parts[bucket] == _DEEPFAKE else ""
    inside = parts[bucket + (2 if generator else 1) :]
    if len(inside) < 2 or not inside[0].startswith("Review_"):
        return None
    category = "/".join(parts[:bucket])
    row = {
        "file_name": name,
        "source": "fraudbench",
        "group": f"{category}/{inside[0]}",
        "category": category,
    }
    if generator:
        family = next(
            (family for line, family in _FAMILIES.items() if generator.startswith(line)), generator
        )
        made = {"generator": generator, "family": family}
        return {
            **row,
            "label": "synthetic",
            "kind": "ai_whole",
            "condition": "intact",
            "damage": "other",
            **made,
        }
    if parts[bucket] == _NEGATIVE:
        return {
            **row,
            "label": "real",
            "kind": "damaged",
            "condition": "damaged",
            "damage": "other",
        }
    return {**row, "label": "real", "kind": "original", "condition": "intact"}


def _review_photo(row: dict[str, str]) -> tuple[str, str]:
    """Review and name of a photo; its ending may change when a model saves it."""
    return row["group"], PurePosixPath(row["file_name"]).stem


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _refuse_one_label(root: Path, found: Counter[str], accepted: str) -> None:
    if not found:
        raise ManifestError(f"{root}: no photos in folders of this layout. {accepted}")
    if set(found) != set(LABELS):
        label, count = next(iter(found.items()))
        other = next(each for each in LABELS if each != label)
        raise ManifestError(
            f"{root}: {count} photos, all {label}; {other} photos are missing. {accepted}"
        )


def _accepted_folders() -> str:
    def names(label: str) -> str:
        return ", ".join(folder for folder, meant in LABEL_FOLDERS.items() if meant == label)

    return f"Real photos belong into a folder {names('real')}; synthetic ones into {names('synthetic')}."
