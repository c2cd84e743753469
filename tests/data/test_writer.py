"""Both halves of a pair leave through one writer: nothing about the file may tell them apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from realdamage.data.writer import SaveSettings, TablePool, save_mask, save_photo

RGB = np.random.default_rng(0).integers(0, 256, (96, 112, 3), dtype=np.uint8)


def test_the_mask_is_cropped_like_its_photo(tmp_path: Path) -> None:
    mask = np.zeros((96, 112), np.bool_)
    mask[40:60, 50:80] = True
    settings = SaveSettings((3, 5), TablePool.of_qualities(95, 95).entries[0][0], 0)
    save_mask(tmp_path / "m.png", mask, settings)
    with Image.open(tmp_path / "m.png") as image:
        saved = np.asarray(image)
    assert saved.shape == (88, 104)
    assert np.array_equal(np.argwhere(saved == 255)[0], (40 - 3, 50 - 5))
    assert set(np.unique(saved)) == {0, 255}


def test_tables_come_from_the_photos_given(tmp_path: Path) -> None:
    for quality in (60, 85):
        Image.fromarray(RGB).save(tmp_path / f"{quality}.jpg", quality=quality, subsampling="4:2:0")
    Image.fromarray(RGB).save(tmp_path / "lossless.png")
    pool = TablePool.of_photos(sorted(tmp_path.iterdir()))
    rng = np.random.default_rng(0)
    save_photo(tmp_path / "out.jpg", RGB, pool.draw(rng))
    with (
        Image.open(tmp_path / "out.jpg") as out,
        Image.open(tmp_path / "60.jpg") as a,
        Image.open(tmp_path / "85.jpg") as b,
    ):
        assert out.quantization in (a.quantization, b.quantization)
    assert len({pool.draw(rng).tables for _ in range(40)}) == 2
