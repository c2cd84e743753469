"""Measures what a manifest gives away without its pixels: if file format, size or JPEG tables tell the classes apart,
a detector trained on it learns the files instead of the damage, and every later figure is worthless.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, JpegImagePlugin, UnidentifiedImageError
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from realdamage.data.intervals import ResampledRoc, bootstrap_interval
from realdamage.data.manifest import Manifest
from realdamage.data.splits import components
from realdamage.inference.errors import ManifestError, PhotoError

_SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_FOLDS = 5


class ContainerAuroc(NamedTuple):
    """How well the files alone tell the classes apart: 0.5 = not at all, 1 = entirely; `low` to `high` hold 95%."""

    auroc: float
    low: float
    high: float


def container_facts(path: str | Path) -> dict[str, float | str | bool]:
    """What a photo's file tells without decoding a pixel.

    format, mode; width, height in pixels; bytes; luma_table and chroma_table: sums of the JPEG quantisation tables
    (0 when there is none); subsampling ("4:2:0", …, or "" when not a JPEG); progressive, has_exif, has_icc.
    Raises PhotoError: the file is missing or not an image.
    """
    try:
        size = Path(path).stat().st_size
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
                "bytes": size,
                "luma_table": sum(tables.get(0, ())),
                "chroma_table": sum(tables.get(1, ())),
                "subsampling": subsampling,
                "progressive": bool(image.info.get("progressive")),
                "has_exif": "exif" in image.info,
                "has_icc": "icc_profile" in image.info,
            }
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise PhotoError(
            f"{path}: cannot be read as an image ({error}). Replace the file or remove its row."
        ) from error


def container_auroc(manifest: Manifest, *, n_boot: int = 500, seed: int = 0) -> ContainerAuroc:
    """AUROC of a classifier that sees `container_facts` only, by cross-validation over groups.

    Gradient boosting on out-of-fold predictions of up to five folds that never separate a group or a pair; the interval
    is a bootstrap over the same groups. Reads every photo's header. Raises ManifestError: fewer than two groups with a
    photo of each class; PhotoError: an unreadable photo.
    """
    facts = pd.DataFrame([container_facts(manifest.path(name)) for name in manifest.table["file_name"]])
    features = pd.get_dummies(facts, dtype=float).to_numpy(dtype=float)
    synthetic = (manifest.table["label"] == "synthetic").to_numpy(dtype=int)
    groups = components(manifest.table)
    folds = min(_FOLDS, *(len(np.unique(groups[synthetic == label])) for label in (0, 1)))
    if folds < 2:
        raise ManifestError(
            f"{manifest.root}: the files' shortcut cannot be measured with {int((synthetic == 0).sum())} real and "
            f"{int(synthetic.sum())} synthetic photos: each class needs photos of at least two groups."
        )
    predicted = cross_val_predict(
        # Leaves of 5, not the default 20: a set of 60 photos must be able to show its leak.
        HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=15, min_samples_leaf=5, early_stopping=False, random_state=seed
        ),
        features,
        synthetic,
        groups=groups,
        cv=StratifiedGroupKFold(folds, shuffle=True, random_state=seed),
        method="predict_proba",
    )[:, 1]

    roc = ResampledRoc(predicted, synthetic)
    [low], [high] = bootstrap_interval(roc.figures, groups, n_boot=n_boot, seed=seed)
    return ContainerAuroc(float(roc_auc_score(synthetic, predicted)), float(low), float(high))
