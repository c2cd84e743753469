"""How much fine detail a photo has, and the gate below which it is not judged.

Measured on the pixels before any resize, on at most 100 windows over the whole frame.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.core.records import Record, require_between
from realdamage.phrases import Phrase, phrase

_WINDOW, _SMALLEST_WINDOW = 64, 32
_WINDOWS_PER_SIDE = 10
_BLOCK = 8

# Edges are measured after a little smoothing, which holds noise down, and again after more of it.
_SIGMA_FINE, _SIGMA_COARSE, _RADIUS = 0.8, 1.6, 5
# An edge must exceed the noise this many times; of a window's edges, the steepest share counts.
_ABOVE_NOISE, _STEEPEST, _LEAST_EDGE = 4.0, 0.02, 8
_SHARPEST_WINDOWS = 0.1
_LEAST_GRADIENT = 1.0  # grey levels a pixel; rounding alone makes 0.5

# Cycles a pixel: fine detail that a blur of 1 pixel removes, against coarse detail that it leaves.
_FINE_FROM, _COARSE_FROM, _COARSE_TO = 0.4, 0.05, 0.25
_ROUNDING = 1 / 12  # variance of the error of rounding to whole grey levels

# Cosine frequencies (row, column) that survive in ordinary photos, and the bins of coefficients.
_FREQUENCIES = tuple((v, u) for v in range(6) for u in range(6) if v + u <= 5)
_BIN, _LARGEST = 0.5, 512
_BINS = round(_LARGEST / _BIN)
# A table fits when the coefficients agree with its steps by at least this much in -1..1, by this
# many times what chance gives for so few values, and by half of what the best table reaches: a
# table of half the steps agrees too.
_LEAST_AGREEMENT, _ABOVE_CHANCE, _OF_THE_BEST = 0.15, 6.0, 0.5
# The most that one coefficient value may count: plain areas repeat one without being rounded.
_MOST_OF_ONE_VALUE = 0.02
UNCOMPRESSED = 100.0
"""Compression of a photo without a trace of it."""


@dataclass(frozen=True)
class PhotoQuality:
    """How much detail a photo has.

    short_side: of the upright photo, in pixels.
    sharpness: in 0..1, share of the steepness of the sharpest edges that a further blur removes:
        0.4 and more for a crisp photo, 0.32 after a blur of 1 pixel (sigma), 0.16 of 2, 0.05 of 4.
    compression: JPEG quality 1..100 of the hardest compression found in the file's tables or the
        pixels; 100: no trace. A resize, WebP and AVIF hide it.
    fine_detail: at least 0, finest over coarse detail: median 0.094 of 526 honest photos, 0.021
        after a blur of 1 pixel; white noise 1, a flat photo 0.
    """

    short_side: int
    sharpness: float
    compression: float
    fine_detail: float | None = None


@dataclass(frozen=True)
class Gate(Record):
    """The least quality of a photo at which the model was shown to be right; None: no limit.

    A photo at a limit passes, and so does one whose `fine_detail` was not measured.
    Raises ConfigError on a number out of range.
    """

    min_side: int | None = None
    min_sharpness: float | None = None
    min_quality: float | None = None
    min_fine_detail: float | None = None

    def __post_init__(self) -> None:
        require_between(self, ("min_side",), 1, math.inf)
        require_between(self, ("min_quality",), 1, 100)
        require_between(self, ("min_sharpness",), 0, 1, ends=False)
        require_between(self, ("min_fine_detail",), 0, math.inf, ends=False)

    def faults(self, quality: PhotoQuality) -> list[Phrase]:
        """Why a photo of this quality is not judged: a phrase for each missed limit, named like the
        reason's code."""
        found: list[Phrase] = []
        if self.min_side is not None and quality.short_side < self.min_side:
            found.append(phrase("too_small", side=quality.short_side, limit=self.min_side))
        limit, value = self.min_sharpness, quality.sharpness
        if limit is not None and value < limit:
            shown = _distinct(value, limit)
            found.append(phrase("too_blurred", sharpness=shown, limit=f"{limit:.3f}"))
        limit, detail = self.min_fine_detail, quality.fine_detail
        if limit is not None and detail is not None and detail < limit:
            shown = _distinct(detail, limit)
            found.append(phrase("too_soft", detail=shown, limit=f"{limit:.4f}"))
        limit, value = self.min_quality, quality.compression
        if limit is not None and value < limit:
            found.append(phrase("too_compressed", quality=f"{value:.0f}", limit=f"{limit:.0f}"))
        return found


def _distinct(value: float, limit: float) -> str:
    """The value with as many digits as it takes to differ from the limit."""
    for digits in (3, 4, 5):
        if f"{value:.{digits}f}" != f"{limit:.{digits}f}":
            return f"{value:.{digits}f}"
    return f"{value}"


def measure_quality(rgb: UInt8Array, file_quality: float | None = None) -> PhotoQuality:
    """The quality of an upright photo as decoded, uint8 [h, w, 3] of any size.

    file_quality: from `file_jpeg_quality`, None for pixels without a file.
    """
    windows = _grey_windows(rgb)
    found = pixel_jpeg_quality(windows)
    compression = found if file_quality is None else min(found, file_quality)
    return PhotoQuality(
        min(rgb.shape[:2]), edge_sharpness(windows), compression, fine_detail(windows)
    )


def file_jpeg_quality(contents: object) -> float | None:
    """The quality 1..100 whose luma table in libjpeg has the sum nearest to this file's; None: no
    JPEG.

    contents: the file's bytes, or a PIL image opened from a file.
    """
    if isinstance(contents, bytes):
        try:
            contents = Image.open(io.BytesIO(contents), formats=("JPEG",))
        except Exception:  # the decoder reports what is wrong with the file
            return None
    tables = getattr(contents, "quantization", None)
    if not tables:
        return None
    sums = _luma_tables().sum(axis=1)
    return float(1 + np.abs(sums - sum(tables[min(tables)])).argmin())


def edge_sharpness(windows: Float32Array) -> float:
    """`PhotoQuality.sharpness` of grey windows float32 [n, side, side] in 0..255.

    How much an edge's gradient falls when it is blurred again (Zhuo & Sim 2011) does not depend on
    its contrast. The sharpest tenth of the windows counts; noise is estimated after Immerkær 1996.
    """
    count, noise = len(windows), _noise(windows)
    (fine, of_fine), (coarse, of_coarse) = (
        (_gradient(windows, sigma).reshape(count, -1), noise * _noise_gain(sigma))
        for sigma in (_SIGMA_FINE, _SIGMA_COARSE)
    )
    # Chosen by the coarse gradient, which noise hardly changes; it makes the fine gradients look
    # steeper.
    steepest = max(8, round(_STEEPEST * coarse.shape[1]))
    top = np.argpartition(coarse, -steepest, axis=1)[:, -steepest:]
    edges, blurred = (np.take_along_axis(values, top, axis=1) for values in (fine, coarse))
    is_edge = (edges > max(_ABOVE_NOISE * of_fine, _LEAST_GRADIENT)) & (
        blurred > _ABOVE_NOISE * of_coarse
    )
    enough = is_edge.sum(axis=1) >= _LEAST_EDGE
    if not enough.any():
        return 0.0
    left = np.sqrt((blurred**2 - of_coarse**2) / np.where(is_edge, edges**2 - of_fine**2, np.nan))
    lost = 1 - np.nanmedian(left[enough], axis=1)
    sharpest = np.sort(lost)[-max(1, round(_SHARPEST_WINDOWS * count)) :]
    return float(max(0.0, np.mean(sharpest)))


def fine_detail(windows: Float32Array) -> float:
    """`PhotoQuality.fine_detail` of grey windows float32 [n, side, side]: the square root of the
    ratio of the mean power from 0.4 cycles a pixel on to that between 0.05 and 0.25."""
    side = windows.shape[1]
    hann = np.hanning(side + 1)[:-1].astype(np.float32)
    taper = np.outer(hann, hann)
    # In parts that fit into the processor's cache, which is four times as fast.
    parts = (np.fft.rfft2(part * taper) for part in np.array_split(windows, 4))
    power = np.sum([(np.abs(part) ** 2).sum(axis=0) for part in parts], axis=0)
    power = power / (len(windows) * np.sum(taper**2))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    fine = power[frequency >= _FINE_FROM].mean()
    coarse = power[(frequency >= _COARSE_FROM) & (frequency < _COARSE_TO)].mean()
    return float(np.sqrt(fine / coarse)) if coarse > _ROUNDING else 0.0


def pixel_jpeg_quality(windows: Float32Array) -> float:
    """`PhotoQuality.compression` of grey windows float32 [n, side, side], each at a multiple of 8.

    A JPEG leaves the cosine coefficients of its blocks near multiples of the quantisation steps
    (Fan & de Queiroz 2003); the coarsest of libjpeg's 100 luma tables that fits counts. Looked for
    on the photo's own grid, and where its blocks seem to begin if it was cropped later.
    """
    origins = {(0, 0), (_block_start(windows), _block_start(windows.swapaxes(1, 2)))}
    return min(_grid_quality(windows, top, left) for left, top in origins)


def _grey_windows(rgb: UInt8Array) -> Float32Array:
    """Luma float32 [n, side, side] of windows spread evenly over the frame, each beginning at a
    multiple of 8."""
    missing = [max(0, _SMALLEST_WINDOW - side) for side in rgb.shape[:2]]
    if any(missing):
        rgb = np.pad(rgb, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    height, width = rgb.shape[:2]
    side = min(_WINDOW, height // _BLOCK * _BLOCK, width // _BLOCK * _BLOCK)
    cut = [
        rgb[y : y + side, x : x + side] for y in _starts(height, side) for x in _starts(width, side)
    ]
    return np.stack(cut).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _starts(length: int, side: int) -> list[int]:
    count = min(_WINDOWS_PER_SIDE, length // side)
    last = (length - side) // _BLOCK
    return [
        round(step) * _BLOCK for step in np.linspace(last / 2 if count == 1 else 0, last, count)
    ]


def _grid_quality(windows: Float32Array, top: int, left: int) -> float:
    agreement, values = _agreement(windows, top, left)
    least = np.maximum(_ABOVE_CHANCE / np.sqrt(2 * np.maximum(values, 1)), _LEAST_AGREEMENT)
    agreement[agreement < least] = -1.0
    least = _OF_THE_BEST * agreement.max()
    padded = np.pad(agreement, 1, constant_values=-1.0)
    peak = (agreement >= max(least, 0.0)) & (agreement >= padded[:-2]) & (agreement >= padded[2:])
    return float(1 + np.argmax(peak)) if peak.any() else UNCOMPRESSED


def _agreement(
    windows: Float32Array, top: int, left: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For the tables of quality 1..100: (mean of cos(2 pi coefficient / step), number of values).

    The mean is 1 where all coefficients lie at multiples of the steps; one that a step rounds to 0
    is left out. Equal coefficients count as one value: a drawing repeats the same edge.
    top, left: where blocks begin.
    """
    count, side = len(windows), (windows.shape[1] - max(top, left)) // _BLOCK
    inside = windows[:, top : top + side * _BLOCK, left : left + side * _BLOCK] - np.float32(128)
    blocks = (
        inside.reshape(count, side, _BLOCK, side, _BLOCK)
        .swapaxes(2, 3)
        .reshape(-1, _BLOCK * _BLOCK)
    )
    # One small product for each window: a large one would start BLAS's threads, which then wait
    # and take time from other processes.
    parts = blocks.reshape(count, side * side, _BLOCK * _BLOCK)
    coefficients = (parts @ _cosines()).reshape(-1, len(_FREQUENCIES))
    # Plain areas share a mean; the difference to the neighbour lies around 0.
    coefficients[1:, 0] -= coefficients[:-1, 0]
    clipped = np.abs(blocks.mean(axis=1)) > 125  # to black or white: a round number by itself
    bins = (np.abs(coefficients[~clipped]) / _BIN).astype(np.int64)
    counts = np.stack([np.bincount(column[column < _BINS], minlength=_BINS) for column in bins.T])
    counts = np.minimum(counts, max(1.0, _MOST_OF_ONE_VALUE * len(bins))).astype(np.float32)
    steps = _luma_tables().reshape(-1, _BLOCK, _BLOCK)
    chosen = np.stack([steps[:, v, u] for v, u in _FREQUENCIES]) - 1
    rows = np.arange(len(_FREQUENCIES))[:, None]
    total = np.einsum("fb,bs->fs", counts, _waves())[rows, chosen].sum(axis=0)
    first = np.minimum(_first_bin(chosen + 1), _BINS - 1)
    n, squares = (
        np.cumsum(values[:, ::-1], axis=1, dtype=np.float64)[:, ::-1][rows, first].sum(axis=0)
        for values in (counts, counts**2)
    )
    return total / np.maximum(n, 1), n**2 / np.maximum(squares, 1)


def _block_start(windows: Float32Array) -> int:
    """The column in 0..7 from which blocks of 8 seem to begin: where neighbours differ most."""
    jumps = np.abs(np.diff(windows, axis=2)).mean(axis=(0, 1))
    # The edge between the columns 7 and 8 is the block's that begins at column 8, that is, at 0.
    return int(np.argmax([jumps[(start - 1) % _BLOCK :: _BLOCK].mean() for start in range(_BLOCK)]))


@cache
def _luma_tables() -> NDArray[np.int64]:
    """libjpeg's luma tables at quality 1..100, int [100, 64], row by row."""
    tables = []
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("L", (_BLOCK, _BLOCK)).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as image:
            tables.append(image.quantization[0])  # type: ignore[attr-defined]
    return np.array(tables, dtype=np.int64)


@cache
def _waves() -> Float32Array:
    """cos(2 pi coefficient / step), 0 for those that the step rounds to 0: float32 [bins, steps
    1..255]."""
    steps, bins = np.arange(1, 256), np.arange(_BINS)[:, None]
    waves = np.cos(2 * np.pi * (bins + 0.5) * _BIN / steps)
    return np.where(bins >= _first_bin(steps), waves, 0).astype(np.float32)


def _first_bin(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first bin of coefficients that these steps do not round to 0."""
    return np.ceil(steps / 2 / _BIN).astype(np.int64)


@cache
def _cosines() -> Float32Array:
    """The cosine transform of a block (JPEG's), float32 [64, frequencies]."""
    x, u = np.arange(_BLOCK)[:, None], np.arange(_BLOCK)
    basis = np.cos((2 * x + 1) * u * np.pi / (2 * _BLOCK)) / 2
    basis[:, 0] /= np.sqrt(2)
    return np.stack(
        [np.outer(basis[:, v], basis[:, u]).ravel() for v, u in _FREQUENCIES], axis=1
    ).astype(np.float32)


def _gradient(windows: Float32Array, sigma: float) -> Float32Array:
    """Steepness after a Gaussian blur, float32 [n, side, side], without the windows' margins."""
    side = windows.shape[1]
    smooth, slope = (_band(side, kernel) for kernel in _kernels(sigma))
    return np.hypot(slope.T @ (windows @ smooth), smooth.T @ (windows @ slope))


def _kernels(sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Gaussian, and its derivative scaled so that a ramp of 1 gives 1."""
    x = np.arange(-_RADIUS, _RADIUS + 1)
    bell = np.exp(-(x**2) / (2 * sigma**2))
    return bell / bell.sum(), x * bell / np.sum(x**2 * bell)


def _noise_gain(sigma: float) -> float:
    """Root mean square of the gradient that noise of deviation 1 leaves."""
    bell, slope = _kernels(sigma)
    return float(np.sqrt(2 * np.sum(bell**2) * np.sum(slope**2)))


def _band(side: int, kernel: NDArray[np.float64]) -> Float32Array:
    """The matrix [side, side - 2 * radius] that convolves rows with the kernel."""
    rows = np.arange(side)[:, None] - np.arange(side - len(kernel) + 1)
    inside = (rows >= 0) & (rows < len(kernel))
    return np.where(inside, kernel[np.clip(rows, 0, len(kernel) - 1)], 0).astype(np.float32)


def _noise(windows: Float32Array) -> float:
    """Deviation of the noise in grey levels, from the quieter windows after Immerkær's mask."""
    rows = windows[:, :-2] - 2 * windows[:, 1:-1] + windows[:, 2:]
    left = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return float(np.sqrt(np.pi / 2) / 6 * np.quantile(np.abs(left).mean(axis=(1, 2)), 0.25))
