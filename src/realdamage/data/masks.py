"""From masks in pixels to labels of patches: the one place where training and evaluation agree on what a patch
shows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image


def patch_share(
    mask: npt.NDArray[np.bool_ | np.float32], size: tuple[int, int], patch: int
) -> npt.NDArray[np.float32]:
    """Share of each patch, in 0..1, that the mask covers: float32 [ceil(h / patch), ceil(w / patch)].

    `mask` [H, W] of the upright photo, bool, or float32 in 0..1 (NaN: unknown); `size` (h, w) of the photo after the
    limit on its side. A patch that reaches beyond the photo counts only its part inside.
    """
    covered = mask.astype(np.float32)
    if mask.shape != size:
        covered = np.asarray(
            Image.fromarray(covered).resize((size[1], size[0]), Image.Resampling.BOX)
        )
    rows, columns = np.arange(0, size[0], patch), np.arange(0, size[1], patch)
    sums = np.add.reduceat(np.add.reduceat(covered, rows, axis=0), columns, axis=1)
    area = np.outer(np.diff([*rows, size[0]]), np.diff([*columns, size[1]]))
    return np.asarray(sums / area, dtype=np.float32)
