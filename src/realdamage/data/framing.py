"""Draws which part of a photo is kept, and in what size, so that its size does not show its class.

A crop can only make a photo smaller. If each photo's own size limited its crop, a class of small
photos would stay a class of small crops. So the chances of the sizes are solved for the whole set
at once, as a linear programme: each photo gets only sizes that fit into it, and yet the sizes are
distributed alike in both classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import linprog

from realdamage.core.decode import MIN_SIDE
from realdamage.data.writer import MAX_OFFSET, Mask, Pixel, SaveSettings, TablePool
from realdamage.errors import ConfigError, ManifestError

Size = tuple[int, int]
Integers = npt.NDArray[np.int64]

_NEARLY_ALL = 0.95  # share of each class's photos that can give the smallest size
_LARGER = (0.75, 0.5, 0.25)  # shares of each class's photos that can give the larger ones
_FREQUENT = 12  # this many of the most frequent sizes of the real photos are candidates
_HEIGHTS = 256  # this many heights are tried for the largest box
_DISTINCT = 128  # of a pool with more sizes, this many are taken, evenly by rank
_TRIES = 48
_ENOUGH = 0.5  # share of what a crop could hold of a mask


@dataclass(frozen=True)
class Frame:
    """What is kept of the photos of one group, and how it is saved.

    size: (h, w) in pixels.
    place: (y, x) in 0..1, of the crop within its room.

    All crops begin at a multiple of 8 pixels plus the offset of `settings`, so the old JPEG grids
    of photos of different sizes move alike too.
    """

    size: Size
    place: tuple[float, float]
    settings: SaveSettings

    @classmethod
    def draw(
        cls, rng: np.random.Generator, size: Size, tables: TablePool, *, earlier: bool = False
    ) -> Frame:
        """A frame of a given size, the rest at random; `earlier` as in `TablePool.draw`."""
        y, x = (float(value) for value in rng.random(2))
        return cls(size, (y, x), tables.draw(rng, earlier=earlier))

    def origin(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Start of the crop of a photo of `shape` (h, w, …) without the offset: (y, x), times 8."""
        y, x = (
            MAX_OFFSET * min(int(place * (steps + 1)), steps)
            for place, steps in zip(self.place, self._steps(shape), strict=True)
        )
        return y, x

    def crop(self, pixels: npt.NDArray[Pixel]) -> npt.NDArray[Pixel]:
        """The part [h + 8, w + 8, …] that `save_photo` and `save_mask` expect; they cut the offset.

        Raises ConfigError: the photo is smaller than that.
        """
        y, x = self.origin(pixels.shape)
        return pixels[y : y + self.size[0] + MAX_OFFSET, x : x + self.size[1] + MAX_OFFSET]

    def holding(self, masks: Sequence[Mask], rng: np.random.Generator) -> Frame:
        """The frame moved so that the crop keeps much of every mask, bool [h, w] each.

        The place stays if it holds at least half of what a crop of this size can hold of each mask.
        Otherwise places around random pixels of the masks are tried; the first that holds enough,
        or else the best one, is taken.
        """
        marked = [(mask, np.flatnonzero(mask), _corner_sums(mask)) for mask in masks if mask.any()]
        best, most = self, -1.0
        for _ in range(_TRIES):
            candidate = self
            if most >= 0:
                mask, pixels, _ = marked[int(rng.integers(len(marked)))]
                candidate = self._around(mask, pixels, rng)
            held = [
                candidate._held(mask.shape, sums)
                / (_ENOUGH * min(len(pixels), self.size[0] * self.size[1]))
                for mask, pixels, sums in marked
            ]
            score = sum(min(share, 1.0) for share in held)
            if score > most:
                best, most = candidate, score
            if most >= len(marked):
                break
        return best

    def _steps(self, shape: tuple[int, ...]) -> list[int]:
        """By how many steps of 8 pixels the crop can move, on each axis."""
        rooms = [
            length - MAX_OFFSET - side for length, side in zip(shape[:2], self.size, strict=True)
        ]
        if min(rooms) < 0:
            raise ConfigError(
                f"a photo of {shape[1]}x{shape[0]} pixels cannot give "
                f"{self.size[1]}x{self.size[0]}: each side needs {MAX_OFFSET} pixels more"
            )
        return [room // MAX_OFFSET for room in rooms]

    def _around(self, mask: Mask, pixels: npt.NDArray[np.intp], rng: np.random.Generator) -> Frame:
        """The frame at a random place that holds a random one of `pixels`, of the flat mask."""
        at = np.unravel_index(int(rng.choice(pixels)), mask.shape)
        place = []
        for pixel, side, steps, offset in zip(
            at, self.size, self._steps(mask.shape), self.settings.offset, strict=True
        ):
            begin = int(pixel) - int(rng.integers(side)) - offset
            place.append((min(max(round(begin / MAX_OFFSET), 0), steps) + 0.5) / (steps + 1))
        return replace(self, place=(place[0], place[1]))

    def _held(self, shape: tuple[int, ...], sums: Integers) -> int:
        """Pixels of a mask inside the crop."""
        top, left = (
            begin + offset
            for begin, offset in zip(self.origin(shape), self.settings.offset, strict=True)
        )
        bottom, right = top + self.size[0], left + self.size[1]
        return int(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])


def _corner_sums(mask: Mask) -> Integers:
    """Pixels above and left of each corner, int [h + 1, w + 1]."""
    return np.pad(mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))


@dataclass(frozen=True)
class SizePool:
    """Sizes (h, w) of crops to draw from, in pixels; repeated sizes are drawn more often.

    A photo needs `MAX_OFFSET` pixels more on each axis.
    """

    sizes: tuple[Size, ...]

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ConfigError("no sizes to draw from; give at least one, such as 384x512")
        for height, width in self.sizes:
            if min(height, width) < MIN_SIDE:
                raise ConfigError(
                    f"size {width}x{height}: each side must have at least {MIN_SIDE} pixels"
                )

    @property
    def smallest(self) -> Size:
        """The size with the fewest pixels."""
        return min(self.sizes, key=lambda size: (size[0] * size[1], size))

    def deal(
        self,
        able: Integers,
        counts: Integers,
        luck: npt.NDArray[np.float64],
        *,
        keep: bool,
    ) -> Integers:
        """A size for each of n families of photos, int [n, 2] (h, w); (0, 0) for those without.

        The sizes are distributed alike in all cells.

        able: int [n, 2], the largest crop of each.
        counts: int [n, cells], its photos in each cell (label and split).
        luck: [n], decides who gets which size, by order; ties go by position.
        keep: False: the sizes keep their shares in the pool, and as few photos as possible get
            none. True: the shares are free; every family that can give the smallest size gets one,
            and as many pixels as possible are kept.
        """
        pool = np.array(sorted(self.sizes), dtype=np.int64)
        if len(set(self.sizes)) > _DISTINCT:
            pool = pool[np.linspace(0, len(pool) - 1, _DISTINCT).round().astype(np.int64)]
        sizes, weights = np.unique(pool, axis=0, return_counts=True)
        fits = np.all(able[:, None, :] >= sizes, axis=2)
        if keep:
            fits &= fits[:, [int(np.argmin(sizes.prod(axis=1)))]]
        given = np.zeros_like(able)
        some = np.any(fits, axis=1)
        if not some.any():
            return given
        # Families that fit the same sizes and are in the same cells share their variables.
        keys = np.hstack([fits[some], counts[some] > 0])
        kinds, kind = np.unique(keys, axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        cells = np.array(
            [np.bincount(kind, column, len(kinds)) for column in counts[some].T], dtype=np.float64
        )
        cells = cells[np.flatnonzero(cells.sum(axis=1))]
        shares = None if keep else weights / weights.sum()
        chances = _solve(kinds[:, : len(sizes)], cells, sizes.prod(axis=1), shares)
        # By rank within the kind, not by luck itself: so the shares are exact.
        order = np.lexsort([luck[some], kind])
        size_of_kind = np.bincount(kind)
        rank = np.empty(len(kind), dtype=np.float64)
        rank[order] = (
            np.arange(len(kind))
            - np.repeat(size_of_kind.cumsum() - size_of_kind, size_of_kind)
            + 0.5
        )
        drawn = ((rank / size_of_kind[kind])[:, None] >= chances.cumsum(axis=1)[kind]).sum(axis=1)
        given[some] = np.vstack([sizes, [[0, 0]]])[drawn]
        return given


def common_sizes(able: Integers, synthetic: npt.NDArray[np.bool_]) -> SizePool:
    """Sizes that photos of both classes can give; nearly all can give the first.

    The largest sizes that 95, 75, 50 and 25% of the photos of each class can give, and the most
    frequent sizes of the real photos that are larger than the first.

    able: int [n, 2] (h, w), the largest crop of each photo.
    synthetic: bool [n].
    Raises ManifestError: the photos are too small.
    """
    classes = [able[synthetic == label] for label in (False, True) if (synthetic == label).any()]
    smallest = _largest_box(classes, _NEARLY_ALL) if classes else (0, 0)
    if min(smallest) < MIN_SIDE:
        raise ManifestError(
            f"{1 - _NEARLY_ALL:.0%} of the photos of one class are too small for a crop of "
            f"{MIN_SIDE}x{MIN_SIDE} pixels, after {MAX_OFFSET} are cut off each axis. "
            "Remove those photos, or name sizes"
        )
    boxes = [_largest_box(classes, share) for share in _LARGER]
    reals, counts = np.unique(classes[0], axis=0, return_counts=True)
    frequent = [(int(h), int(w)) for h, w in reals[np.argsort(-counts, kind="stable")[:_FREQUENT]]]
    larger = {
        size for size in boxes + frequent if size[0] >= smallest[0] and size[1] >= smallest[1]
    }
    return SizePool((smallest, *sorted(larger - {smallest})))


def _largest_box(classes: Sequence[Integers], share: float) -> Size:
    """The largest size (h, w) that at least `share` of the photos of each class can give.

    classes: `able` of each class.
    """
    best = (0, 0)
    heights = np.concatenate(classes)[:, 0]
    for height in np.unique(np.quantile(heights, np.linspace(0, 1, _HEIGHTS), method="lower")):
        width = min(_width_given(able, int(height), share) for able in classes)
        if height * width > best[0] * best[1]:
            best = (int(height), width)
    return best


def _width_given(able: Integers, height: int, share: float) -> int:
    widths = np.sort(able[able[:, 0] >= height, 1])[::-1]
    needed = max(1, int(np.ceil(share * len(able) - 1e-9)))
    return int(widths[needed - 1]) if len(widths) >= needed else 0


def _solve(
    fits: npt.NDArray[np.bool_],
    cells: npt.NDArray[np.float64],
    pixels: Integers,
    shares: npt.NDArray[np.float64] | None,
) -> npt.NDArray[np.float64]:
    """The chance that a family of each kind gets each size, [kinds, sizes]; rows sum to at most 1.

    fits: bool [kinds, sizes].
    cells: [cells, kinds], photos of each cell in each kind.
    pixels: [sizes].
    shares: [sizes], in every cell. None: free; then the pixels kept decide, and every row sums
        to 1.
    """
    n_kinds, n_sizes = fits.shape
    totals = cells.sum(axis=1, keepdims=True)
    each_size = sparse.eye_array(n_sizes)
    # For each cell and size: photos that get it = photos of the cell × the size's share (free), or
    # photos kept of the cell (free) × the size's share.
    given = sparse.kron(cells / totals, each_size)
    if shares is None:
        wanted = sparse.kron(np.ones_like(totals), each_size)
        gain = np.concatenate(
            [-np.outer(cells.sum(axis=0), pixels / pixels.max()).ravel(), np.zeros(n_sizes)]
        )
    else:
        wanted = sparse.kron(sparse.eye_array(len(cells)), shares[:, None])
        gain = np.concatenate([np.zeros(fits.size), -totals.ravel()])
    n_free = wanted.shape[1]
    of_kind = sparse.hstack(
        [
            sparse.kron(sparse.eye_array(n_kinds), np.ones((1, n_sizes))),
            sparse.csr_array((n_kinds, n_free)),
        ]
    )
    alike = sparse.hstack([given, -wanted])
    ones = np.ones(n_kinds)
    zeros = np.zeros(alike.shape[0])
    upper = np.concatenate([fits.ravel().astype(float), np.ones(n_free)])
    bounds = np.column_stack([np.zeros_like(upper), upper])
    if shares is None:
        solution = linprog(
            gain,
            A_eq=sparse.vstack([alike, of_kind]),
            b_eq=np.concatenate([zeros, ones]),
            bounds=bounds,
        )
    else:
        solution = linprog(gain, A_eq=alike, b_eq=zeros, A_ub=of_kind, b_ub=ones, bounds=bounds)
    if solution.x is None:
        raise ManifestError(
            f"no sizes can be found that both classes can give ({solution.message}); name sizes"
        )
    chances = np.where(fits, np.clip(solution.x[: fits.size].reshape(fits.shape), 0, 1), 0)
    total = chances.sum(axis=1, keepdims=True)
    # Rounding must not leave out a family that has a size.
    return np.asarray(
        np.where(total > 1 - 1e-6, chances / np.maximum(total, 1e-12) * (1 + 1e-9), chances)
    )
