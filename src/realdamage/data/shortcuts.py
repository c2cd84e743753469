"""Measures how well a set's files and columns alone separate real from synthetic photos.

If file format, source or damage type do so, a detector learns the set instead of the edit, and
every later figure is worthless. Each test is a classifier that sees a few facts only, judged by its
AUROC over groups that it was not trained on. Also reads these facts from the files.
"""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, JpegImagePlugin, UnidentifiedImageError
from scipy.sparse import csr_matrix, hstack
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from threadpoolctl import threadpool_limits

from realdamage.core.decode import MAX_PIXELS, decode_contents, orientation_of
from realdamage.core.fingerprint import PhotoHash, perceptual_hash
from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.core.quality import nearest_quality
from realdamage.data.bootstrap import DRAWS, GroupDraws, WeightedRoc, percentile_interval
from realdamage.data.manifest import Manifest, read_mask
from realdamage.data.parts import for_each
from realdamage.data.splits import components
from realdamage.errors import ManifestError, PhotoError

LIMIT = 0.55
"""A shortcut is there when the lower end of its AUROC's 95% interval is above this."""

_SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_FOLDS = 5
# With fewer, a split by chance looks like a rule.
_MIN_ROWS, _MIN_GROUPS = 20, 5
_RARE = 5  # photos; rarer categories are one
_LISTED = 12  # different numbers; of more, the medians are reported
_MAX_CATEGORIES = 64  # of a column that is tested among numbers; the rarer ones are one


class Shortcut(NamedTuple):
    """A test.

    columns: name under which a leak is reported -> the facts behind it.
    blocking: whether a leak fails the audit.
    pixels: whether the photos must be decoded for it.
    """

    name: str
    columns: Mapping[str, tuple[str, ...]]
    blocking: bool = True
    pixels: bool = False

    @property
    def facts(self) -> list[str]:
        return [fact for facts in self.columns.values() for fact in facts]


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
    # Regeneration itself changes the size of a file and, a little, its colours: never blocking.
    Shortcut("bytes", {"bytes": ("bytes",)}, blocking=False, pixels=True),
    Shortcut("colour", {"mean colour": ("red", "green", "blue")}, blocking=False, pixels=True),
)


# --- Facts of files ---


class PhotoFacts(NamedTuple):
    """What the audit reads from a photo's file and its mask's.

    error: why the photo cannot be read, or "".
    container: see `container_facts`; empty when it cannot be read.
    mask_faults: (missing, on_real, unusable, size, empty, absent or partial; details).
    sha256, colour (mean red, green, blue in 0..255), look (perceptual hash): only with pixels.
    """

    error: str
    container: dict[str, Any]
    mask_faults: tuple[tuple[str, str], ...] = ()
    sha256: str = ""
    colour: tuple[float, ...] | None = None
    look: PhotoHash | None = None


def read_facts(
    manifest: Manifest, *, pixels: bool, workers: int | None = None, progress: Track = no_progress
) -> list[PhotoFacts]:
    """The facts of every row. A photo that cannot be read is a fact, not an error.

    pixels: decode every file, in `workers` processes (default: one per CPU). Otherwise only headers
        are read, in this process.
    """
    n = len(manifest)
    columns = manifest.table[["file_name", "label", "kind", "mask_file_name"]]
    files = _Files(manifest, list(columns.itertuples(index=False, name=None)), pixels)
    count = min(workers or available_processors(), n // 16) if pixels else 1
    facts = for_each(_facts, files, range(n), count)
    return list(progress(facts, n, "reading photos" if pixels else "reading headers"))


class _Files(NamedTuple):
    """What to read. rows: file_name, label, kind and mask_file_name, because asking pandas for each
    cell would be slow."""

    manifest: Manifest
    rows: list[tuple[str, str, str, str]]
    pixels: bool


def _facts(files: _Files, row: int) -> PhotoFacts:
    path = files.manifest.path(files.rows[row][0])
    try:
        if not files.pixels:
            container = container_facts(files.manifest.photo(row), name=path)
            return PhotoFacts("", container, _mask_faults(files, row, container["upright"]))
        data = files.manifest.photo_bytes(row)
        container = container_facts(io.BytesIO(data), name=path)
        rgb = decode_contents(data, str(path), MAX_PIXELS)
    except PhotoError as error:
        return PhotoFacts(str(error), {})
    return PhotoFacts(
        "",
        container,
        _mask_faults(files, row, (rgb.shape[1], rgb.shape[0])),
        hashlib.sha256(data).hexdigest(),
        tuple(rgb.mean(axis=(0, 1)).tolist()),
        perceptual_hash(Image.fromarray(rgb)),
    )


def _mask_faults(files: _Files, row: int, size: tuple[int, int]) -> tuple[tuple[str, str], ...]:
    """size: (width, height) of the upright photo."""
    manifest, (_, label, kind, name) = files.manifest, files.rows[row]
    if not name:
        return (("absent", f"kind {kind}"),) if kind in ("ai_region", "pasted") else ()
    faults = [("on_real", name)] if label == "real" else []
    try:
        with Image.open(manifest.mask(row)) as image:
            found = image.size
        if found != size:
            sizes = f"{name} is {found[0]}×{found[1]}, the photo {size[0]}×{size[1]}"
            return (*faults, ("size", sizes))
        share = float(np.mean(read_mask(manifest, row, size[::-1]))) if files.pixels else 1.0
    except FileNotFoundError:
        return (*faults, ("missing", name))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return (*faults, ("unusable", f"{name} cannot be read ({error})"))
    except ManifestError as error:
        return (*faults, ("unusable", str(error)))
    if not share:
        faults.append(("empty", name))
    elif kind == "ai_whole" and share < 0.5:  # an arrow drawn on the edit takes less away
        faults.append(("partial", f"{name} covers {share:.1%}"))
    return tuple(faults)


def container_facts(path: str | Path | IO[bytes], *, name: str | Path = "") -> dict[str, Any]:
    """Facts of a photo's file, without decoding a pixel.

    format, mode; width, height in pixels as stored, aspect = width / height; upright (width,
    height) after the EXIF orientation; bytes; luma_table and chroma_table: sums of the JPEG
    quantisation tables, which differ between the qualities of one encoder (0: none), tables: a
    digest, which differs between any two tables; subsampling ("4:2:0", …, "": not a JPEG);
    progressive, has_exif, has_icc.

    name: of an open file, for messages. Raises PhotoError: the file is missing or no image.
    """
    name = name or str(path)
    try:
        if isinstance(path, str | Path):
            size = Path(path).stat().st_size
        else:
            size = path.seek(0, io.SEEK_END)
        _know_heic(name)
        with Image.open(path) as image:
            tables: dict[int, list[int]] = getattr(image, "quantization", None) or {}
            digest = hashlib.sha256(repr(sorted(tables.items())).encode()).hexdigest()[:8]
            # A PNG without EXIF would be decoded in the search for it.
            turned = "exif" in image.info and orientation_of(image) in _TURNED
            subsampling = ""
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                subsampling = _SUBSAMPLINGS.get(JpegImagePlugin.get_sampling(image), "other")
            return {
                "format": image.format or "",
                "mode": image.mode,
                "width": image.width,
                "height": image.height,
                "aspect": image.width / image.height,
                "upright": (image.height, image.width) if turned else image.size,
                "bytes": size,
                "luma_table": sum(tables.get(0, ())),
                "chroma_table": sum(tables.get(1, ())),
                "tables": digest if tables else "",
                "subsampling": subsampling,
                "progressive": bool(image.info.get("progressive")),
                "has_exif": "exif" in image.info,
                "has_icc": "icc_profile" in image.info,
            }
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        # Pillow's own message would contain an address in memory.
        why = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise PhotoError(
            f"{name}: cannot be read as an image ({why}). Replace the file or remove its row."
        ) from error


def _know_heic(path: str | Path) -> None:
    if Path(path).suffix.lower() in (".heic", ".heif"):
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:  # Pillow will then report an unknown format
            return


def shows_damage(table: pd.DataFrame) -> pd.Series:
    """Whether each photo shows damage, real or painted: "yes", "no", or "" for unknown."""
    damaged = (table["condition"] == "damaged") | (table["damage"] != "")
    intact = (table["condition"] == "intact") & (table["damage"] == "")
    words = np.select([damaged, intact], ["yes", "no"], "")
    return pd.Series(words, table.index, name="shows_damage")


# --- Tests ---


class Separation(NamedTuple):
    """How well some facts separate the classes: AUROC and its 95% interval."""

    auroc: float
    low: float
    high: float


def container_auroc(manifest: Manifest, *, seed: int = 0) -> Separation:
    """AUROC of a classifier that sees the container and the file's size, see `separation`.

    Reads every photo's header. Raises ManifestError: a class has photos of fewer than two groups.
    PhotoError: an unreadable photo.
    """
    names = manifest.table["file_name"]
    facts = pd.DataFrame([container_facts(manifest.path(name)) for name in names])
    features = [*SHORTCUTS[0].facts, "bytes"]
    synthetic = (manifest.table["label"] == "synthetic").to_numpy()
    groups = components(manifest.table)
    if _groups_of_a_class(synthetic, groups) < 2:
        raise ManifestError(
            f"{manifest.root}: the files' shortcut cannot be measured with "
            f"{int((~synthetic).sum())} real and {int(synthetic.sum())} synthetic photos: each "
            "class needs photos of at least two groups."
        )
    return separation(facts[features], synthetic, groups, seed=seed)[0]


def too_few(synthetic: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> str:
    """Why these rows cannot be tested; "" when they can."""
    real, fake = int((~synthetic).sum()), int(synthetic.sum())
    if not real and not fake:
        return "unknown for every photo"
    if not real or not fake:
        return f"{real} real and {fake} synthetic photos; both are needed"
    if real + fake < _MIN_ROWS or _groups_of_a_class(synthetic, groups) < _MIN_GROUPS:
        return (
            f"{real} real and {fake} synthetic photos of {len(np.unique(groups))} groups; at least "
            f"{_MIN_ROWS} photos and {_MIN_GROUPS} groups of each class are needed"
        )
    return ""


def separation(
    features: pd.DataFrame,
    synthetic: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    *,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> tuple[Separation, npt.NDArray[np.float64]]:
    """How well `features` alone predict `synthetic` [n], cross-validated over `groups` [n].

    Text and bool columns are categories. Gradient boosting, or logistic regression when all are
    categories. Scores of up to five folds are pooled, which puts the AUROC a little low rather
    than high; the interval is a bootstrap over the groups. Each class needs two groups.
    Also returns the scores, float64 [n], out of fold: higher is more synthetic, 0 is undecided.
    """
    if (features.nunique(dropna=False) <= 1).all():
        return Separation(0.5, 0.5, 0.5), np.zeros(len(features))
    classifier, matrix = _classifier_and_matrix(features, seed)
    folds = _folds(synthetic, groups, seed)
    with threadpool_limits(1):  # on a busy machine, threads that wait for each other cost seconds
        predicted = cross_val_predict(
            classifier, matrix, synthetic, cv=folds, method="decision_function"
        )
    # Rounded, so that a solver's last digits do not rank one fold before another.
    scores = np.round(predicted, 3)
    roc = WeightedRoc(scores, synthetic)
    draws = GroupDraws(groups, n_boot=n_boot, seed=seed)
    drawn = draws.figures(roc.figures, np.arange(len(groups)))
    [low], [high] = percentile_interval(drawn[:, 1:])
    return Separation(float(roc_auc_score(synthetic, scores)), float(low), float(high)), scores


def standing_out(name: str, features: pd.DataFrame, synthetic: npt.NDArray[np.bool_]) -> str:
    """The values of one reported column that differ most: "format PNG: 0 real, 120 synthetic".

    features: the facts behind the column. Numbers with many values are summed up by their medians.
    """
    values = features.iloc[:, 0]
    if name == "tables":
        values = values.map(lambda luma: f"JPEG quality {nearest_quality(luma)}" if luma else "no")
    if values.nunique() > _LISTED and pd.api.types.is_numeric_dtype(values):
        real, fake = features[~synthetic].median(), features[synthetic].median()
        medians = zip(features, real, fake, strict=True)
        return "; ".join(f"{f}: median {a:.4g} real, {b:.4g} synthetic" for f, a, b in medians)
    words = values.map("{:.4g}".format) if values.dtype.kind in "if" else values.astype(str)
    counts = pd.crosstab(words, synthetic).reindex(columns=[False, True], fill_value=0)
    shares = counts / counts.sum()
    lean = (shares[True] - shares[False]).sort_values(kind="stable")
    # Two that real photos have more of, and two that synthetic ones have more of.
    chosen = counts.loc[[*lean[lean < 0].index[:2], *lean[lean > 0].index[:-3:-1]]]
    return "; ".join(
        f"{name} {value or '(empty)'}: {in_real} real, {in_fake} synthetic"
        for value, in_real, in_fake in chosen.itertuples()
    )


def _classifier_and_matrix(features: pd.DataFrame, seed: int) -> tuple[Any, Any]:
    """An unfitted classifier and its input [n, features]: numbers, and a 0/1 column a category."""
    numbers = [
        c
        for c in features
        if pd.api.types.is_numeric_dtype(features[c]) and features[c].dtype != bool
    ]
    categories = [_categories(features[c]) for c in features if c not in numbers]
    # Classes are balanced, so that their share in a fold's training photos does not show in the
    # scores of its test photos.
    if not numbers:
        # Sparse, because a set may have thousands of sources.
        rows, ones = np.arange(len(features)), np.ones(len(features))
        columns = [csr_matrix((ones, (rows, codes))) for codes in categories]
        return LogisticRegression(class_weight="balanced"), hstack(columns, format="csr")
    frequent = [np.minimum(codes, _MAX_CATEGORIES) for codes in categories]
    one_hot = [np.eye(codes.max() + 1)[codes] for codes in frequent]
    classifier = HistGradientBoostingClassifier(
        learning_rate=0.3,
        max_iter=20,
        max_leaf_nodes=8,
        min_samples_leaf=5,  # not the default 20: a set of 60 photos must be able to show its leak
        early_stopping=False,
        class_weight="balanced",
        random_state=seed,
    )
    return classifier, np.hstack([features[numbers].to_numpy(float), *one_hot])


def _folds(
    synthetic: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Train and test rows of each fold; every fold has groups of both classes.

    Shuffled groups are dealt out in turn: those with real photos only, then those with both, then
    the rest. (scikit-learn's StratifiedGroupKFold takes seconds for thousands of groups.)
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
    """A number per value, the most frequent first; rare values share one.

    A value that is seen once says nothing about other photos, but its rarity may.
    """
    counts = values.value_counts()
    rank = pd.Series(np.arange(len(counts)).clip(max=int((counts >= _RARE).sum())), counts.index)
    return values.map(rank).to_numpy(dtype=np.int64)


def _groups_of_a_class(synthetic: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> int:
    """Groups of the class that has fewer of them."""
    return min(len(np.unique(groups[synthetic == label])) for label in (False, True))
