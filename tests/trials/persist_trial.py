"""Measures whether damage that only one of two photos shows is found, and damage that both show is
left alone.

    python tests/trials/persist_trial.py --photos ../shared/photos --csv data/results/persist.csv

Two kinds of pairs. `real`: two photos of one group that align as one object, often other items of
one product. `simulated`: a photo and a second view of it, as of a flat thing: turned, slanted,
cropped, in other light and noise. On the first photo damage is painted and its box is marked.
`one_only`: the second photo stays as it is. `persists`: the same damage is laid over the second
photo too, where the alignment puts it. `intact`: nothing is painted, and a box of the same size is
marked elsewhere. Half of the pairs are for choosing thresholds, half for reporting.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from listing_trial import RGB, Mask, _damaged, _jpeg
from PIL import Image
from trial_table import arguments, share, write

from realdamage.core.decode import decode
from realdamage.core.progress import track
from realdamage.data.manifest import read_manifest
from realdamage.errors import RealDamageError
from realdamage.photo_pairs import compare, prepare
from realdamage.photo_pairs.persist import Box, DamageDiffers, compare_regions

KINDS = ("one_only", "persists", "intact")


Trial = tuple[str, str, str, DamageDiffers | None]
"""Views, half, kind, and the region as compared: None where it could not be."""


def draw_pairs(root: Path, count: int, seed: int) -> Iterator[tuple[RGB, RGB, np.ndarray]]:
    """`count` pairs of photos of one group that align, with the homography from the second to the
    first; at most two of one group."""
    table = read_manifest(root).table
    groups = [sorted(names) for _, names in table.groupby("group")["file_name"] if len(names) > 1]
    rng = np.random.default_rng(seed)
    taken: dict[int, int] = {}
    found, tries = 0, 0
    while found < count and tries < 40 * count:
        tries += 1
        number = int(rng.integers(len(groups)))
        first, second = (root / str(name) for name in rng.choice(groups[number], 2, False))
        if taken.get(number, 0) >= 2:
            continue
        comparison = compare(first, second)
        if comparison.outcome == "same_object" and comparison.inliers >= 20:
            taken[number] = taken.get(number, 0) + 1
            found += 1
            yield decode(first), decode(second), np.array(comparison.homography)


def trials_of(
    rgb: RGB, other: RGB, homography: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, DamageDiffers | None]]:
    """The three trials of a pair: (kind, the region as compared)."""
    painted, mask = _damaged(rgb, rng)
    box = _box_of(mask)
    both = _transferred(other, painted.astype(np.float32) - rgb, mask, homography)
    for kind, one, two, marked in (
        ("one_only", painted, other, box),
        ("persists", painted, both, box),
        ("intact", rgb, other, _elsewhere(box, rgb.shape, rng)),
    ):
        photo, listed = (_jpeg(Image.fromarray(shot), 90) for shot in (one, two))
        pair = (prepare(photo, "claim"), prepare(listed, "listing"))
        yield kind, next(iter(compare_regions(*pair, [marked])), None)


def draw_views(root: Path, count: int, seed: int) -> Iterator[tuple[RGB, RGB, np.ndarray]]:
    """`count` photos of different groups, each with a second view, and the homography from the
    second to the first."""
    table = read_manifest(root).table.drop_duplicates("group")
    names = np.random.default_rng(seed).choice(table["file_name"].to_numpy(), count, False)
    for number, name in enumerate(names):
        rgb = decode(root / str(name))
        rng = np.random.default_rng([seed, number, 1])
        height, width = rgb.shape[:2]
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        angle = np.deg2rad(rng.uniform(-12, 12))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        middle = corners.mean(axis=0)
        moved = (corners - middle) @ turn * rng.uniform(0.95, 1.25) + middle
        moved += rng.uniform(-0.05, 0.05, (4, 2)) * (width, height)
        there = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        view = cv2.warpPerspective(rgb, there, (width, height), flags=cv2.INTER_CUBIC)
        lit = 255 * (view / 255.0) ** rng.uniform(0.8, 1.25) * rng.uniform(0.9, 1.1, 3)
        noisy = lit + rng.normal(0, 3, view.shape)
        yield rgb, np.clip(np.rint(noisy), 0, 255).astype(np.uint8), np.linalg.inv(there)


def _transferred(other: RGB, change: np.ndarray, mask: Mask, homography: np.ndarray) -> RGB:
    """`other` with the change of the first photo's pixels, laid where the alignment puts it."""
    back = np.linalg.inv(homography)
    size = (other.shape[1], other.shape[0])
    only = np.where(mask[..., None], change, 0).astype(np.float32)
    moved = cv2.warpPerspective(only, back, size, flags=cv2.INTER_LINEAR)
    return np.clip(np.rint(other + moved), 0, 255).astype(np.uint8)


def _box_of(mask: Mask) -> Box:
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _elsewhere(box: Box, shape: tuple[int, ...], rng: np.random.Generator) -> Box:
    width, height = box[2] - box[0], box[3] - box[1]
    left = int(rng.integers(0, shape[1] - width + 1))
    top = int(rng.integers(0, shape[0] - height + 1))
    return left, top, left + width, top + height


VIEWS = {"real": draw_pairs, "simulated": draw_views}


def summarise(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row for each kind of pair, with the exact 95% interval of the share that differs."""
    rows = []
    for views, half, kind in product(VIEWS, ("tune", "report"), KINDS):
        own = [one[3] for one in trials if one[:3] == (views, half, kind)]
        if not own:
            continue
        row: dict[str, Any] = {"views": views, "half": half, "kind": kind, "n": len(own)}
        row["compared"] = sum(one is not None for one in own)
        row["differs"] = sum(one is not None and one.is_different for one in own)
        rows.append(row | share(row["differs"], len(own)))
    return rows


def main() -> int:
    """Runs the trial and writes its table; returns the exit code."""
    parser = arguments(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with metadata.csv")
    parser.add_argument("--pairs", type=int, default=40, help="of each kind (%(default)s)")
    options = parser.parse_args()
    trials: list[Trial] = []
    try:
        for views, draw in VIEWS.items():
            drawn = draw(options.photos, options.pairs, options.seed)
            for number, pair in enumerate(track(drawn, options.pairs, f"{views} pairs")):
                rng = np.random.default_rng([options.seed, number])
                half = ("tune", "report")[number % 2]
                trials += [(views, half, *one) for one in trials_of(*pair, rng)]
    except RealDamageError as error:
        print(f"persist_trial: {error}", file=sys.stderr)
        return error.exit_code
    command = f"persist_trial --pairs {options.pairs} --seed {options.seed}"
    write(summarise(trials), options.csv, command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
