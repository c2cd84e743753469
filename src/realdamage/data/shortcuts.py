"""Measures what a manifest gives away without its pixels: if file format, source or damage type tells the classes
apart, a detector trained on it learns the set instead of the edit, and every later figure is worthless.

Each test is a classifier that sees a few facts only, judged by its AUROC over groups that it was not trained on.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, JpegImagePlugin, UnidentifiedImageError
from scipy.sparse import coo_matrix
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from threadpoolctl import threadpool_limits

from realdamage.data.bootstrap import DRAWS, WeightedRoc, bootstrap_interval
from realdamage.data.manifest import Manifest
from realdamage.data.splits import components
from realdamage.data.writer import TablePool
from realdamage.errors import ManifestError, PhotoError

LIMIT = 0.55
"""A shortcut is there when the lower end of its AUROC's 95% interval lies above this."""

_SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_EXIF_ORIENTATION = 0x0112
_FOLDS = 5
# Below these a split by chance looks like a rule; a set this small is measured when it has grown.
_MIN_ROWS, _MIN_GROUPS = 20, 5
_RARE = 5  # photos; categories of fewer are one
_LISTED = 12  # different numbers; of more, the medians say more
_MAX_CATEGORIES = 64  # of a column that is tested among numbers; the rarer ones are one


class Shortcut(NamedTuple):
    """A test. `columns`: what it may see, under the name by which a leak is reported, and the facts behind each;
    `blocking`: whether a leak fails the audit; `pixels`: whether the photos must be decoded for it."""

    name: str
    columns: Mapping[str, tuple[str, ...]]
    blocking: bool = True
    pixels: bool = False


_CONTAINER = {
    "format": ("format",),
    "mode": ("mode",),
    "width": ("width",),
    "height": ("height",),
    "aspect": ("aspect",),
    "tables": ("luma_table", "chroma_table", "tables"),
    "subsampling": ("subsampling",),
    "progressive": ("progressive",),
    "exif": ("has_exif",),
    "icc": ("has_icc",),
}
SHORTCUTS = (
    Shortcut("container", _CONTAINER),
    Shortcut("source", {"source": ("source",)}),
    Shortcut("damage", {"damage": ("damage",)}),
    Shortcut("condition", {"shows damage": ("shows_damage",)}),
    # Regeneration itself changes what a photo weighs and, a little, its colours: told, never blocking.
    Shortcut("bytes", {"bytes": ("bytes",)}, blocking=False, pixels=True),
    Shortcut("colour", {"mean colour": ("red", "green", "blue")}, blocking=False, pixels=True),
)


class ContainerAuroc(NamedTuple):
    """How well the files alone tell the classes apart: 0.5 = not at all, 1 = entirely; `low` to `high` hold 95%."""

    auroc: float
    low: float
    high: float


class Told(NamedTuple):
    """How well some facts tell the classes apart: AUROC and its 95% interval, as in `ContainerAuroc`; `scores`
    float64 [n]: out of fold, higher is more synthetic, 0 is undecided."""

    auroc: float
    low: float
    high: float
    scores: npt.NDArray[np.float64]


def container_facts(
    path: str | Path | IO[bytes], *, name: str | Path = "", size: int = -1
) -> dict[str, Any]:
    """What a photo's file tells without decoding a pixel.

    format, mode; width, height in pixels as stored, aspect = width / height; upright (width, height) after the EXIF
    orientation; bytes; luma_table and chroma_table: sums of the JPEG quantisation tables, which tell the qualities of
    one encoder apart (0 when there is none), tables: a digest, which tells any two tables apart; subsampling
    ("4:2:0", …, or "" when not a JPEG); progressive, has_exif, has_icc.

    An open file in memory needs `name`, by which errors call it, and its `size`. Raises PhotoError: the file is missing
    or not an image.
    """
    name = name or str(path)
    try:
        if isinstance(path, str | Path):
            size = Path(path).stat().st_size
            _know_heic(path)
        elif str(name):
            _know_heic(str(name))
        with Image.open(path) as image:
            tables: dict[int, list[int]] = getattr(image, "quantization", None) or {}
            subsampling = ""
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                subsampling = _SUBSAMPLINGS.get(JpegImagePlugin.get_sampling(image), "other")
            return {
                "format": image.format or "",
                "mode": image.mode,
                "width": image.width,
                "height": image.height,
                "aspect": image.width / image.height,
                "upright": _upright(image),
                "bytes": size,
                "luma_table": sum(tables.get(0, ())),
                "chroma_table": sum(tables.get(1, ())),
                "tables": hashlib.sha256(repr(sorted(tables.items())).encode()).hexdigest()[:8]
                if tables
                else "",
                "subsampling": subsampling,
                "progressive": bool(image.info.get("progressive")),
                "has_exif": "exif" in image.info,
                "has_icc": "icc_profile" in image.info,
            }
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        # Pillow's own message would name an address in memory, another one at each reading.
        why = "its format is not known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise PhotoError(
            f"{name}: cannot be read as an image ({why}). Replace the file or remove its row."
        ) from error


def container_auroc(manifest: Manifest, *, n_boot: int = DRAWS, seed: int = 0) -> ContainerAuroc:
    """AUROC of a classifier that sees the container and the file's bytes, by cross-validation over groups.

    See `told_by`. Reads every photo's header. Raises ManifestError: fewer than two groups with a photo of each class;
    PhotoError: an unreadable photo.
    """
    facts = pd.DataFrame(
        [container_facts(manifest.path(name)) for name in manifest.table["file_name"]]
    )
    features = [fact for column in _CONTAINER.values() for fact in column]
    synthetic = (manifest.table["label"] == "synthetic").to_numpy()
    groups = components(manifest.table)
    if _groups_of_a_class(synthetic, groups) < 2:
        raise ManifestError(
            f"{manifest.root}: the files' shortcut cannot be measured with {int((~synthetic).sum())} real and "
            f"{int(synthetic.sum())} synthetic photos: each class needs photos of at least two groups."
        )
    return ContainerAuroc(
        *told_by(facts[[*features, "bytes"]], synthetic, groups, n_boot=n_boot, seed=seed)[:3]
    )


def shows_damage(table: pd.DataFrame) -> pd.Series:
    """Whether a row's photo shows damage, real or painted: "yes", "no", or "" where the manifest does not say."""
    damaged = (table["condition"] == "damaged") | (table["damage"] != "")
    intact = (table["condition"] == "intact") & (table["damage"] == "")
    return pd.Series(
        np.select([damaged, intact], ["yes", "no"], ""), table.index, name="shows_damage"
    )


def too_few(synthetic: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> str:
    """Why these rows cannot be tested, for the reader; "" when they can."""
    real, fake = int((~synthetic).sum()), int(synthetic.sum())
    if not real or not fake:
        return (
            f"{real} real and {fake} synthetic photos; both are needed"
            if real or fake
            else "no photo says it"
        )
    if real + fake < _MIN_ROWS or _groups_of_a_class(synthetic, groups) < _MIN_GROUPS:
        return (
            f"{real} real and {fake} synthetic photos of {len(np.unique(groups))} groups; at least {_MIN_ROWS} photos "
            f"and {_MIN_GROUPS} groups of each class are needed"
        )
    return ""


def told_by(
    features: pd.DataFrame,
    synthetic: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    *,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> Told:
    """How well `features` alone tell `synthetic` [n], by cross-validation over `groups` [n], which are never separated.

    Text and bool columns are categories. Gradient boosting, or logistic regression where all are categories; scores
    are those of up to five folds, each left out, which puts the AUROC a little low rather than high; the interval is a
    bootstrap over the groups. Each class needs two.
    """
    if (features.nunique(dropna=False) <= 1).all():
        return Told(0.5, 0.5, 0.5, np.zeros(len(features)))
    classifier, matrix = _classifier_and_matrix(features, seed)
    with threadpool_limits(
        1
    ):  # threads that wait for each other cost more than they bring, on a busy machine seconds
        predicted = cross_val_predict(
            classifier,
            matrix,
            synthetic,
            cv=_folds(synthetic, groups, seed),
            method="decision_function",
        )
    # Rounded, so that a solver's last digits do not put one fold before another.
    scores = np.round(predicted, 3)
    roc = WeightedRoc(scores, synthetic)
    [low], [high] = bootstrap_interval(roc.figures, groups, n_boot=n_boot, seed=seed)
    return Told(float(roc_auc_score(synthetic, scores)), float(low), float(high), scores)


def standing_out(
    name: str, features: pd.DataFrame, synthetic: npt.NDArray[np.bool_], limit: int = 4
) -> str:
    """In words, the values of one reported column that the classes share least: "format PNG: 0 real, 120 synthetic".

    `features`: the facts behind the column. Numbers of many values are told by their medians.
    """
    values = _qualities(features) if name == "tables" else features.iloc[:, 0]
    if values.nunique() > _LISTED and pd.api.types.is_numeric_dtype(values):
        return "; ".join(_medians(str(fact), features[fact], synthetic) for fact in features)
    words = values.map("{:.4g}".format) if values.dtype.kind in "if" else values.astype(str)
    counts = pd.crosstab(words, synthetic).reindex(columns=[False, True], fill_value=0)
    lean = (counts[True] / counts[True].sum() - counts[False] / counts[False].sum()).sort_values(
        kind="stable"
    )
    # From both ends: what real photos have more of, and what synthetic ones have.
    chosen = [*lean[lean < 0].index[: limit // 2], *lean[lean > 0].index[: -limit // 2 - 1 : -1]]
    rows = [
        ("(empty)" if value == "" else value, *row)
        for value, *row in counts.loc[chosen].itertuples()
    ]
    return "; ".join(f"{name} {value}: {real} real, {fake} synthetic" for value, real, fake in rows)


def _medians(name: str, values: pd.Series, synthetic: npt.NDArray[np.bool_]) -> str:
    real, fake = float(values[~synthetic].median()), float(values[synthetic].median())
    return f"{name}: median {real:.4g} real, {fake:.4g} synthetic"


def _qualities(features: pd.DataFrame) -> pd.Series:
    """Tables as the quality of libjpeg that comes nearest, in words."""
    sums = _libjpeg_sums()
    luma = features["luma_table"].to_numpy()
    nearest = np.abs(luma[:, None] - sums[None, :]).argmin(axis=1) + 1
    return pd.Series(
        np.where(luma > 0, [f"JPEG quality {q}" for q in nearest], "no tables"), features.index
    )


@cache
def _libjpeg_sums() -> npt.NDArray[np.int64]:
    """Sums of libjpeg's luma tables at quality 1..100."""
    return np.array([sum(tables[0]) for tables, _ in TablePool.of_qualities(1, 100).entries[::2]])


def _classifier_and_matrix(features: pd.DataFrame, seed: int) -> tuple[Any, Any]:
    """An unfitted classifier and what it is to see, [n, features]: numbers as they are, one 0/1 column per category."""
    numbers = [
        c
        for c in features
        if pd.api.types.is_numeric_dtype(features[c]) and features[c].dtype != bool
    ]
    categories = [_categories(features[c]) for c in features if c not in numbers]
    if not numbers:
        # Sparse, because a set may have thousands of sources. Balanced, here and below, so that the share of the
        # classes in a fold's training photos does not show in the scores of its test photos.
        codes = np.concatenate(
            [c + offset for offset, c in zip(_offsets(categories), categories, strict=True)]
        )
        rows = np.tile(np.arange(len(features)), len(categories))
        return LogisticRegression(class_weight="balanced"), coo_matrix(
            (np.ones(len(rows)), (rows, codes))
        ).tocsr()
    frequent = [np.minimum(c, _MAX_CATEGORIES) for c in categories]
    matrix = np.hstack(
        [features[numbers].to_numpy(float), *(np.eye(c.max() + 1)[c] for c in frequent)]
    )
    classifier = HistGradientBoostingClassifier(
        learning_rate=0.3,
        max_iter=20,
        max_leaf_nodes=8,
        min_samples_leaf=5,  # not the default 20: a set of 60 photos must be able to show its leak
        early_stopping=False,
        class_weight="balanced",
        random_state=seed,
    )
    return classifier, matrix


def _folds(
    synthetic: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Train and test rows of each fold; every fold holds groups of both classes.

    Groups are dealt out one after the other, at random, those with real photos only first, then those with both, then
    the rest. (scikit-learn's StratifiedGroupKFold balances rows too, but takes seconds for thousands of groups.)
    """
    _, group = np.unique(groups, return_inverse=True)
    real, fake = (np.bincount(group, weights=synthetic == label) > 0 for label in (False, True))
    shuffled = np.random.default_rng(seed).permutation(len(real))
    order = shuffled[np.argsort((fake.astype(int) - real)[shuffled], kind="stable")]
    fold = np.empty(len(order), dtype=np.int64)
    fold[order] = np.arange(len(order)) % min(_FOLDS, _groups_of_a_class(synthetic, groups))
    return [
        (np.flatnonzero(fold[group] != k), np.flatnonzero(fold[group] == k))
        for k in range(fold.max() + 1)
    ]


def _categories(values: pd.Series) -> npt.NDArray[np.int64]:
    """A number per value, the most frequent first; those of fewer than five photos share one, since a value that is
    seen once tells nothing about others, but that it is rare may."""
    counts = values.value_counts()
    rank = pd.Series(np.arange(len(counts)).clip(max=int((counts >= _RARE).sum())), counts.index)
    return values.map(rank).to_numpy(dtype=np.int64)


def _offsets(categories: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *(c.max() + 1 for c in categories)])[:-1]


def _groups_of_a_class(synthetic: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> int:
    """Groups of the class that has fewer of them."""
    return min(len(np.unique(groups[synthetic == label])) for label in (False, True))


def _upright(image: Image.Image) -> tuple[int, int]:
    try:
        turned = "exif" in image.info and image.getexif().get(_EXIF_ORIENTATION, 1) in _TURNED
    except Exception:  # a broken EXIF block says nothing about the pixels
        turned = False
    return (image.height, image.width) if turned else (image.width, image.height)


def _know_heic(path: str | Path) -> None:
    if Path(path).suffix.lower() in (".heic", ".heif"):
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:  # Pillow then says that it cannot tell what the file is
            return
