"""Measures the comparison with the listing photo: makes pairs of which the truth is known, and counts what is said.

    python -m realdamage.synthesis.listing_trial --photos DIR --pairs 500 --seed 0 --csv FILE

Pairs, drawn from a manifest folder: copies with damage painted on, copies without, both laundered; other shots of the
same product (photos of one group); photos of other products of the same source; and a second exposure, the same scene
under other sensor noise, as from a tripod. Half of the groups serve for choosing thresholds, the other for reporting.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage, stats

from realdamage.commit import git_commit
from realdamage.core.decode import decode
from realdamage.core.progress import track
from realdamage.data.manifest import Manifest, read_manifest
from realdamage.errors import ManifestError, RealDamageError, UsageError
from realdamage.files import write_atomically
from realdamage.photo_pairs import Comparison, compare
from realdamage.photo_pairs.decide import OUTCOMES
from realdamage.synthesis.listing_laundering import RGB, TRANSFORMATIONS, Mask, jpeg, launder
from realdamage.synthesis.paint import Paint

HALVES = ("tune", "report", "all")
KINDS = ("painted_copy", "copy", "other_shot", "other_product", "second_exposure")
_WEIGHTS = (0.35, 0.2, 0.2, 0.15, 0.1)
_VISIBLE = 24  # change of a pixel, in levels of 255, from which painted damage counts as visible
_SMALLEST = 0.001  # share of the photo below which painted damage is drawn again
_EXPOSURE_NOISE = 3.0  # deviation, in levels of 255
COLUMNS = (
    *("kind", "transformation", "n"),
    *(f"{outcome}{suffix}" for outcome in OUTCOMES for suffix in ("", "_low", "_high")),
    *("painted", "box_recall", "box_hit", "false_area", "ms_median", "ms_p95"),
    *("half", "seed", "git_commit", "date", "command"),
)


@dataclass(frozen=True)
class Trial:
    """One pair and what was said of it.

    box_recall: share of the visibly painted pixels inside the change boxes; NaN without such pixels.
    false_area: share of the claim photo that is boxed without being painted; NaN unless the pair is a copy.
    ms: milliseconds for the pair, decoding included.
    """

    kind: str
    transformation: str
    outcome: str
    box_recall: float
    false_area: float
    ms: float


@dataclass(frozen=True, eq=False)
class Pair:
    """A claim photo, the listing photo it is compared with, and the pixels of the claim photo that were painted."""

    kind: str
    transformation: str
    claim: bytes
    listing: bytes
    painted: Mask


def draw_pairs(manifest: Manifest, count: int, seed: int, half: str = "report") -> Iterator[Pair]:
    """`count` pairs; each depends on the seed and its own number alone. half: of the groups, one of `HALVES`.

    Raises ManifestError when no group of that half has two photos, or no source two groups.
    """
    table = manifest.table
    names = sorted(table["group"].unique())
    chosen = set(names if half == "all" else names[HALVES.index(half) :: 2])
    groups: dict[str, list[str]] = defaultdict(list)
    sources: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, group, source in zip(
        table["file_name"], table["group"], table["source"], strict=True
    ):
        if group in chosen:
            groups[group].append(name)
            sources[source][group].append(name)
    several = [group for group in sorted(groups) if len(groups[group]) > 1]
    mixed = [source for source in sorted(sources) if len(sources[source]) > 1]
    if not several or not mixed:
        lacking = "has two photos" if not several else "shares its source with another"
        raise ManifestError(
            f"{manifest.root}: no group of the half {half!r} {lacking}; other shots come from there"
        )
    files = sorted(name for members in groups.values() for name in members)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind = str(rng.choice(KINDS, p=_WEIGHTS))
        if kind == "other_shot":
            group = several[int(rng.integers(len(several)))]
            claim, listing = rng.choice(sorted(groups[group]), 2, replace=False)
            yield _as_they_are(manifest.root, kind, str(claim), str(listing))
        elif kind == "other_product":
            source = sources[mixed[int(rng.integers(len(mixed)))]]
            claim, listing = (
                str(rng.choice(source[group]))
                for group in rng.choice(sorted(source), 2, replace=False)
            )
            yield _as_they_are(manifest.root, kind, claim, listing)
        else:
            name = files[int(rng.integers(len(files)))]
            yield _copied(manifest.root / name, kind, rng)


def _as_they_are(root: Path, kind: str, claim: str, listing: str) -> Pair:
    data = (root / claim).read_bytes()
    return Pair(
        kind, "", data, (root / listing).read_bytes(), np.zeros(decode(data).shape[:2], bool)
    )


def _copied(path: Path, kind: str, rng: np.random.Generator) -> Pair:
    rgb, listing = decode(path), path.read_bytes()
    painted = np.zeros(rgb.shape[:2], bool)
    transformation = str(rng.choice(list(TRANSFORMATIONS)))
    if kind == "second_exposure":
        scene = ndimage.median_filter(rgb, (3, 3, 1)).astype(np.float64)
        shots = [
            np.clip(np.rint(scene + rng.normal(0, _EXPOSURE_NOISE, scene.shape)), 0, 255)
            for _ in range(2)
        ]
        rgb, transformation = shots[0].astype(np.uint8), "saved"
        listing = jpeg(Image.fromarray(shots[1].astype(np.uint8)), 92)
    elif kind == "painted_copy":
        rgb, painted = _damaged(rgb, rng)
    claim, painted = launder(rgb, painted, transformation, rng)
    return Pair(kind, transformation, claim, listing, painted)


def _damaged(rgb: RGB, rng: np.random.Generator) -> tuple[RGB, Mask]:
    """Painted damage that a person could see; what is drawn too faint is drawn again."""
    for _ in range(8):
        edit = Paint().apply(rgb, rng)
        visible = edit.mask & (np.abs(edit.rgb.astype(np.int16) - rgb).max(axis=-1) > _VISIBLE)
        if visible.mean() > _SMALLEST:
            break
    return edit.rgb, visible


def judge(pair: Pair) -> Trial:
    """Compare the photos of a pair and hold what is said against what was done."""
    start = time.perf_counter()
    found = compare(pair.claim, pair.listing)
    ms = 1000 * (time.perf_counter() - start)
    boxed = _boxed(found)
    recall = float(boxed[pair.painted].mean()) if pair.painted.any() else float("nan")
    false_area = float("nan")
    if pair.kind in ("copy", "painted_copy") and pair.transformation != "logo":
        false_area = float((boxed & ~_grown(pair.painted)).mean())
    return Trial(pair.kind, pair.transformation, found.outcome, recall, false_area, ms)


def _boxed(found: Comparison) -> Mask:
    boxed = np.zeros((found.height, found.width), bool)
    for change in found.changes:
        left, top, right, bottom = change.box
        boxed[top:bottom, left:right] = True
    return boxed


def _grown(painted: Mask) -> Mask:
    """The painted area's own box, for a change box around a crack is no false alarm."""
    grown = np.zeros_like(painted)
    if painted.any():
        rows, columns = np.nonzero(painted)
        margin = max(painted.shape) // 40
        grown[
            max(0, rows.min() - margin) : rows.max() + margin,
            max(0, columns.min() - margin) : columns.max() + margin,
        ] = True
    return grown


def summarise(trials: Sequence[Trial]) -> list[dict[str, object]]:
    """A row for each kind, and for each kind of copy and transformation, with Wilson intervals at 95%."""
    sets: dict[tuple[str, str], list[Trial]] = {}
    for kind in KINDS:
        of_kind = [trial for trial in trials if trial.kind == kind]
        sets[kind, ""] = of_kind
        if kind in ("painted_copy", "copy"):
            sets |= {
                (kind, name): [t for t in of_kind if t.transformation == name]
                for name in TRANSFORMATIONS
            }
    return [_row(kind, name, found) for (kind, name), found in sets.items() if found]


def _row(kind: str, transformation: str, trials: Sequence[Trial]) -> dict[str, object]:
    row: dict[str, object] = {
        "kind": kind,
        "transformation": transformation or "all",
        "n": len(trials),
    }
    for outcome in OUTCOMES:
        count = sum(trial.outcome == outcome for trial in trials)
        interval = stats.binomtest(count, len(trials)).proportion_ci(method="wilson")
        row[outcome] = round(count / len(trials), 4)
        row[f"{outcome}_low"], row[f"{outcome}_high"] = (
            round(interval.low, 4),
            round(interval.high, 4),
        )
    recalls = np.array([trial.box_recall for trial in trials])
    recalls = recalls[~np.isnan(recalls)]
    false_areas = np.array([trial.false_area for trial in trials])
    false_areas = false_areas[~np.isnan(false_areas)]
    times = [trial.ms for trial in trials]
    row["painted"] = len(recalls)
    row["box_recall"] = round(float(recalls.mean()), 4) if len(recalls) else ""
    row["box_hit"] = round(float((recalls >= 0.5).mean()), 4) if len(recalls) else ""
    row["false_area"] = round(float(false_areas.mean()), 4) if len(false_areas) else ""
    row["ms_median"], row["ms_p95"] = (
        round(float(np.median(times))),
        round(float(np.quantile(times, 0.95))),
    )
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trial and write its table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="listing_trial", description=__doc__, formatter_class=_Plain
    )
    parser.add_argument(
        "--photos",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with metadata.csv and groups",
    )
    parser.add_argument(
        "--pairs", type=int, default=500, metavar="N", help="how many (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other pairs (%(default)s)"
    )
    parser.add_argument(
        "--half", choices=HALVES, default="report", help="of the groups (%(default)s)"
    )
    parser.add_argument(
        "--csv", type=Path, required=True, metavar="FILE", help="write the table there"
    )
    arguments = parser.parse_args(argv)
    try:
        if arguments.pairs < 1:
            raise UsageError(f"--pairs {arguments.pairs}: at least 1 pair")
        pairs = draw_pairs(
            read_manifest(arguments.photos), arguments.pairs, arguments.seed, arguments.half
        )
        rows = summarise([judge(pair) for pair in track(pairs, arguments.pairs, "pairs")])
        command = f"listing_trial --pairs {arguments.pairs} --seed {arguments.seed} --half {arguments.half}"
        run = {"half": arguments.half, "seed": arguments.seed, "command": command}
        run |= {"git_commit": git_commit(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        write_atomically(arguments.csv, _as_csv([row | run for row in rows]))
    except RealDamageError as error:
        print(f"listing_trial: {error}", file=sys.stderr)
        return error.exit_code
    for row in rows:
        print(
            ", ".join(
                f"{key} {row[key]}"
                for key in COLUMNS
                if key in row and not key.endswith(("_low", "_high"))
            )
        )
    return 0


def _as_csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The module's own text as it stands."""


if __name__ == "__main__":
    sys.exit(main())
