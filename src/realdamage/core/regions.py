"""Turns a heat map into the few boxes that a person can look at."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from realdamage.core.decoding import Float32Array
from realdamage.core.verdict import Region

# Heat from which a patch counts as synthetic: evidence 0, the network's own boundary.
HOT = 0.5


def find_regions(
    heatmap: Float32Array, cell: float, size: tuple[int, int], *, limit: int = 20
) -> tuple[Region, ...]:
    """Connected areas (4 neighbours) of the heat map at or above `HOT`, largest sum of heat first.

    heatmap: [h, w] in 0..1. cell: side of one value in pixels of the photo. size: (width, height) of the photo, which
    boxes are cut to. limit: at most so many regions.
    """
    width, height = size
    areas = _components(heatmap >= HOT)
    areas.sort(key=lambda area: (-float(heatmap[area].sum()), area[0][0], area[1][0]))
    return tuple(
        Region(
            (
                math.floor(cols.min() * cell),
                math.floor(rows.min() * cell),
                min(width, math.ceil((cols.max() + 1) * cell)),
                min(height, math.ceil((rows.max() + 1) * cell)),
            ),
            float(heatmap[rows, cols].mean()),
        )
        for rows, cols in areas[:limit]
    )


def _components(hot: NDArray[np.bool_]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows, cols) of each connected area, in reading order of their first patch."""
    waiting = {(int(row), int(col)) for row, col in np.argwhere(hot)}
    areas = []
    for start in sorted(waiting):
        if start not in waiting:
            continue
        waiting.remove(start)
        area = [start]
        for row, col in area:  # grows while it is walked
            for neighbour in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if neighbour in waiting:
                    waiting.remove(neighbour)
                    area.append(neighbour)
        rows, cols = np.array(area, dtype=np.int64).T
        areas.append((rows, cols))
    return areas
