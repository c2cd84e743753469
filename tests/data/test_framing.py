"""A photo's size may limit its crop, but the sizes are distributed alike in both classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from realdamage.data.framing import Frame, SizePool, common_sizes
from realdamage.data.writer import TablePool
from realdamage.errors import ConfigError, ManifestError

TABLES = TablePool.of_qualities(90, 90)


def deal(
    able: npt.NDArray[np.int64], synthetic: npt.NDArray[np.bool_], pool: SizePool | None = None
) -> npt.NDArray[np.int64]:
    counts = np.stack([~synthetic, synthetic], axis=1).astype(np.int64)
    luck = np.random.default_rng(0).random(len(able))
    return (pool or common_sizes(able, synthetic)).deal(able, counts, luck, keep=pool is None)


def shares(given: npt.NDArray[np.int64]) -> dict[tuple[int, int], float]:
    kept = given[given[:, 0] > 0]
    return {
        (int(h), int(w)): count / len(kept)
        for (h, w), count in Counter(map(tuple, kept.tolist())).items()
    }


@pytest.mark.parametrize(
    ("reals", "fakes"),
    [
        ([(533, 400), (348, 348), (400, 533)], [(512, 512), (1024, 1024), (480, 640)]),
        ([(1024, 1024), (768, 1024), (600, 400)], [(512, 512)]),
        ([(400, 600)], [(600, 400)]),
        ([(300, 300)], [(900, 900)]),
    ],
)
def test_sizes_are_distributed_alike_in_both_classes(
    reals: list[tuple[int, int]], fakes: list[tuple[int, int]]
) -> None:
    rng = np.random.default_rng(1)
    able = np.array(
        [reals[i] for i in rng.integers(len(reals), size=600)]
        + [fakes[i % len(fakes)] for i in range(300)]
    )
    synthetic = np.arange(900) >= 600
    given = deal(able, synthetic)
    assert (given <= able).all()
    assert (given > 0).all()
    real, fake = shares(given[~synthetic]), shares(given[synthetic])
    assert set(real) == set(fake)
    assert max(abs(real[size] - fake[size]) for size in real) < 0.02


def test_as_many_pixels_as_both_classes_allow_are_kept() -> None:
    able = np.array([(340, 340)] * 100 + [(524, 392)] * 100 + [(696, 696)] * 100)
    given = deal(able, np.arange(300) >= 200)
    assert (
        given[:200] == able[:200]
    ).all()  # every real photo keeps its own size, since the others can follow
    assert shares(given[200:]) == {(340, 340): 0.5, (524, 392): 0.5}


def test_pairs_that_hold_both_classes_are_weighed_by_their_photos() -> None:
    # Small pairs hold one edit, large ones five: the sizes must still be alike over photos.
    able = np.array([(100, 100)] * 40 + [(200, 200)] * 40 + [(300, 300)] * 400)
    counts = np.array([(1, 1)] * 40 + [(1, 5)] * 40 + [(1, 0)] * 400)
    luck = np.random.default_rng(2).random(len(able))
    pool = common_sizes(
        np.repeat(able, counts.sum(axis=1), axis=0),
        np.repeat(np.tile([False, True], 480), counts.ravel()),
    )
    given = pool.deal(able, counts, luck, keep=True)
    small = given[:, 0] == 100
    real, fake = (counts[small, column].sum() / counts[:, column].sum() for column in (0, 1))
    assert 0 < real == pytest.approx(fake, abs=0.03)


def test_a_pool_keeps_its_shares_and_leaves_out_as_few_as_it_can() -> None:
    pool = SizePool(((100, 100),) * 3 + ((200, 100),))
    able = np.array([(120, 120)] * 40 + [(240, 240)] * 60 + [(90, 300)] * 5)
    given = deal(able, np.ones(105, dtype=bool), pool)
    assert (given[100:] == 0).all()
    assert (given[:100] > 0).all()
    assert shares(given) == {(100, 100): 0.75, (200, 100): 0.25}
    tight = deal(
        able[:50], np.ones(50, dtype=bool), pool
    )  # 10 of 50 can give the tall one: 40 photos at 1 in 4
    assert Counter(map(tuple, tight.tolist())) == {(100, 100): 30, (200, 100): 10, (0, 0): 10}


def test_few_small_photos_do_not_make_the_whole_set_small() -> None:
    able = np.array([(400, 400)] * 97 + [(40, 40)] * 3 + [(500, 500)] * 100)
    given = deal(able, np.arange(200) >= 100)
    assert Counter(map(tuple, given.tolist())) == {(400, 400): 197, (0, 0): 3}


def test_photos_that_are_too_small_for_any_crop_are_named() -> None:
    with pytest.raises(ManifestError, match="32x32"):
        common_sizes(np.full((20, 2), 30), np.arange(20) > 10)


@pytest.mark.parametrize(("sizes", "named"), [((), "no sizes"), (((40, 31),), "31x40")])
def test_a_pool_without_usable_sizes_is_refused(
    sizes: tuple[tuple[int, int], ...], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        SizePool(sizes)


def test_photos_of_other_sizes_are_cropped_at_the_same_place_and_grid() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        frame = Frame.draw(rng, (64, 48), TABLES)
        for height, width in ((72, 56), (200, 300), (99, 131)):
            at = np.moveaxis(np.mgrid[:height, :width], 0, 2)
            cropped = frame.settings.crop(frame.crop(at))  # positions instead of grey levels
            assert cropped.shape == (64, 48, 2)
            y, x = cropped[0, 0]
            assert (y % 8, x % 8) == frame.settings.offset
            assert abs(y - frame.place[0] * (height - 64)) < 12
            assert abs(x - frame.place[1] * (width - 48)) < 12
            assert (cropped[-1, -1] == (y + 63, x + 47)).all()


def test_a_photo_smaller_than_the_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"70x80.*64x64"):
        Frame.draw(np.random.default_rng(0), (64, 64), TABLES).crop(np.zeros((80, 70, 3), np.uint8))


def test_the_frame_moves_onto_a_mask_and_stays_where_it_holds_one() -> None:
    corner, whole = np.zeros((400, 300), np.bool_), np.ones((400, 300), np.bool_)
    corner[360:, 260:] = True
    for seed in range(20):
        frame = Frame.draw(np.random.default_rng(seed), (96, 96), TABLES)
        assert frame.holding([whole], np.random.default_rng(seed)) == frame
        moved = frame.holding([whole, corner], np.random.default_rng(seed))
        assert moved.settings == frame.settings
        # At most 15 pixels at the rim are out of reach: a grid period and part of a step.
        assert frame.settings.crop(moved.crop(corner)).sum() >= 25 * 25


def test_places_around_a_mask_are_spread() -> None:
    mask = np.zeros((240, 240), np.bool_)
    mask[116:124, 116:124] = True
    inside = []
    for seed in range(80):
        frame = Frame.draw(np.random.default_rng(seed), (96, 96), TABLES)
        cropped = frame.settings.crop(frame.holding([mask], np.random.default_rng(seed)).crop(mask))
        inside.append(np.argwhere(cropped).mean(axis=0))
    spread = np.array(inside)
    assert (spread.min(axis=0) < 16).all()
    assert (spread.max(axis=0) > 80).all()


def test_a_pool_of_very_many_sizes_keeps_its_shares_by_rank() -> None:
    rng = np.random.default_rng(6)
    pool = SizePool(tuple((int(h), int(h)) for h in rng.integers(100, 1000, 5000)))
    given = deal(np.full((4000, 2), 1000), np.arange(4000) % 2 == 0, pool)
    assert (given > 0).all()
    assert np.median(given[:, 0]) == pytest.approx(np.median([h for h, _ in pool.sizes]), abs=20)
