"""Photos of one thing share a group, whatever was done to the file; different things don't."""

import numpy as np
import pytest
from PIL import Image

from realdamage.data.duplicates import (
    PhotoHash,
    duplicate_groups,
    perceptual_hash,
    perceptual_hashes,
)
from realdamage.errors import PhotoError


def test_saves_and_edits_of_a_scene_are_one_group(tmp_path, photo_factory):
    scenes = [photo_factory(240, 320, seed) for seed in range(4)]
    a, b, c, d = (Image.fromarray(scene) for scene in scenes)
    a.save(tmp_path / "a.png")
    a.save(tmp_path / "a_q30.jpg", quality=30)
    a.resize((160, 120)).save(tmp_path / "a_half.jpg", quality=80)
    a.point(lambda level: min(255, round(1.2 * level))).save(tmp_path / "a_bright.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    a.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a_rotated_by_exif.jpg", exif=exif)
    b.save(tmp_path / "b.jpg", quality=90)
    b.crop((4, 3, 320, 240)).save(tmp_path / "b_next_frame.jpg", quality=70)
    c.save(tmp_path / "c.jpg")
    c.paste((40, 30, 20), (140, 100, 164, 124))
    c.save(tmp_path / "c_edit.jpg")
    d.save(tmp_path / "d.jpg")
    paths = sorted(tmp_path.iterdir())
    found = duplicate_groups(perceptual_hashes(paths))
    by_label = {}
    for path, label in zip(paths, found.labels, strict=True):
        assert by_label.setdefault(int(label), path.name[0]) == path.name[0], path.name
    assert sorted(by_label.values()) == ["a", "b", "c", "d"]
    assert found.warnings == ()


@pytest.mark.parametrize("surface", ["flat", "gradient"])
def test_plain_surfaces_do_not_collapse_into_one_group(surface):
    rng = np.random.default_rng(5)
    images = []
    for index in range(30):
        rgb = np.full((96, 128, 3), 120.0 + 2 * index)
        if surface == "gradient":
            rgb += np.linspace(-2, 2, 128)[None, :, None] + rng.normal(0, 3, rgb.shape)
        images.append(Image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8)))
    found = duplicate_groups([perceptual_hash(image) for image in images], cap=10)
    if surface == "flat":  # nothing at all tells them apart, so the group is reported
        assert "30" in found.warnings[0]
    else:
        assert np.bincount(found.labels).max() == 1


def test_a_chain_that_grows_too_large_is_taken_apart_with_a_warning():
    """Each photo differs from the next by 8 bits, so that a chain holds all 40 together."""
    thumbnail = np.full(768, 768**-0.5, np.float32)
    bits = np.zeros(256, np.bool_)
    hashes = []
    for index in range(40):
        bits[(8 * index + np.arange(8)) % 256] ^= True
        hashes.append(PhotoHash(np.uint64(0), np.packbits(bits).view(np.uint64), thumbnail))
    assert np.bincount(duplicate_groups(hashes, radius=8).labels).max() == 40
    capped = duplicate_groups(hashes, radius=8, cap=12)
    assert np.bincount(capped.labels).max() == 1
    assert "sizes 40" in capped.warnings[0]


def test_no_photos_make_no_groups_and_a_broken_one_is_named(tmp_path):
    assert len(duplicate_groups([]).labels) == 0
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(PhotoError, match=r"broken\.jpg"):
        perceptual_hashes([tmp_path / "broken.jpg"])
