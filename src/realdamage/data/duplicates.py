"""Finds photos that show the same thing: frames of one object, re-saves, an edit and its original.

A photo whose near-duplicate was trained on tests nothing. Two photos look alike when their
perceptual hashes are close and their thumbnails correlate; the hash alone would join every bottle
on a white board. Photos linked through others are one group too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, UnidentifiedImageError

from realdamage.core.fingerprint import PhotoHash, perceptual_hash
from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.data.manifest import Manifest
from realdamage.data.parts import for_each
from realdamage.data.splits import components, linked
from realdamage.errors import PhotoError

# Bits of 256 that may differ, the least correlation of the thumbnails, the most photos of a group.
# The first two were chosen by eye on the pairs of three collections: they join frames of one object
# and saves of one photo down to half its side; pairs beyond them show different objects
# (data/results/LOG.md).
RADIUS, CORRELATION, CAP = 72, 0.85, 100
_COARSE_RADIUS = 16  # of the 64-bit hash, which finds the candidates for the fine one
_BLOCK = 256  # rows of the all-pairs search at a time: 100,000 × 256 words are 200 MB


class Grouping(NamedTuple):
    """Photos that look alike.

    labels: int [n], equal for photos of one group, numbered from 0 by first photo.
    pairs: int [m, 2], the photos that look alike; distances: int [m], bits between their hashes.
    warnings: about groups that are too large to be plausible.
    """

    labels: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int64]
    distances: npt.NDArray[np.int64]
    warnings: tuple[str, ...]


def perceptual_hashes(
    paths: Sequence[str | Path], progress: Track = no_progress
) -> list[PhotoHash]:
    """`perceptual_hash` of each file, in parallel. Raises PhotoError: a file cannot be read."""
    count = min(available_processors(), len(paths) // 32)
    hashes = for_each(_hash, paths, range(len(paths)), count)
    return list(progress(hashes, len(paths), "hashing photos"))


def duplicate_groups(
    hashes: Sequence[PhotoHash], *, radius: int = RADIUS, cap: int = CAP
) -> Grouping:
    """Groups photos that look alike, directly or through others.

    Plain photos (a bare wall, an empty board) have no pattern to compare: they match only when
    both hashes are equal. Groups of more than `cap` photos are split by halving the radius, with a
    warning, because they need a look by a person.
    """
    n = len(hashes)
    if not n:
        none = np.zeros((0, 2), np.int64)
        return Grouping(none[:, 0], none, none[:, 0], ())
    fine = np.stack([found.fine for found in hashes])
    thumbnails = np.stack([found.thumbnail for found in hashes])
    plain: npt.NDArray[np.bool_] = np.logical_not(thumbnails.any(axis=1))
    kept: list[npt.NDArray[np.int64]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    for pairs in _candidates(np.array([found.coarse for found in hashes], np.uint64)):
        a, b = pairs.T
        distance = np.bitwise_count(fine[a] ^ fine[b]).sum(axis=1, dtype=np.int64)
        near = np.flatnonzero(distance <= radius)
        a, b, distance = a[near], b[near], distance[near]
        correlation = (thumbnails[a] * thumbnails[b]).sum(axis=1)
        both_plain = plain[a] & plain[b] & (distance == 0)
        alike = np.flatnonzero((correlation >= CORRELATION) | both_plain)
        kept.append(np.stack([a[alike], b[alike]], axis=1))
        lengths.append(distance[alike])
    pairs, distances = np.concatenate(kept), np.concatenate(lengths)
    pairs, distances, warnings = _capped(n, pairs, distances, radius, cap)
    return Grouping(linked(n, pairs), pairs, distances, warnings)


def near_duplicate_groups(
    manifest: Manifest, *, progress: Track = no_progress
) -> tuple[pd.Series, Grouping]:
    """The column `group` after near-duplicates were joined with the manifest's own links.

    A joined group takes the name of its first photo's group.
    Raises PhotoError: a photo cannot be read.
    """
    table = manifest.table
    paths = [manifest.path(name) for name in table["file_name"]]
    found = duplicate_groups(perceptual_hashes(paths, progress))
    n = len(table)
    rows = np.arange(n)
    # A graph of photos and of the groups that link them: those of the manifest and those found.
    stated = np.stack([rows, n + components(table)], axis=1)
    seen = np.stack([rows, 2 * n + found.labels], axis=1)
    labels = linked(3 * n, np.concatenate([stated, seen]))[:n]
    return table["group"].groupby(labels).transform("first"), found


def _hash(paths: Sequence[str | Path], index: int) -> PhotoHash:
    path = paths[index]
    try:
        with Image.open(path) as image:
            return perceptual_hash(image)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise PhotoError(
            f"{path}: cannot be read as an image ({error}). Replace the file or remove its row."
        ) from error


def _candidates(coarse: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.int64]]:
    """All pairs (i < j) whose coarse hashes are near, int [m, 2], block by block."""
    for start in range(0, len(coarse), _BLOCK):
        block = coarse[start : start + _BLOCK]
        distance = np.bitwise_count(block[:, None] ^ coarse[None, start:])
        i, j = np.nonzero(distance <= _COARSE_RADIUS)
        later = j > i
        yield np.stack([i[later], j[later]], axis=1).astype(np.int64) + start


def _capped(
    n: int, pairs: npt.NDArray[np.int64], distances: npt.NDArray[np.int64], radius: int, cap: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[str, ...]]:
    """Drops the longer links of groups beyond the cap until they fall apart."""
    warnings: list[str] = []
    while radius > 0:
        labels = linked(n, pairs)
        sizes = np.bincount(labels)
        large = sizes > cap
        if not large.any():
            break
        listed = ", ".join(map(str, sorted(sizes[large], reverse=True)[:5]))
        radius //= 2
        warnings.append(
            f"{int(large.sum())} groups of more than {cap} photos that look alike "
            f"(sizes {listed}): split at {radius} bits, not {2 * radius}. Look at them; plain "
            "surfaces and a shared backdrop look alike too."
        )
        keep = ~large[labels[pairs[:, 0]]] | (distances <= radius)
        pairs, distances = pairs[keep], distances[keep]
    return pairs, distances, tuple(warnings)
