"""One group: a real photo and what is derived of it, saved so that nothing but the pixels tells them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from realdamage.data.manifest import KIND_LABELS, KINDS
from realdamage.data.writer import TablePool
from realdamage.errors import SynthesisError
from realdamage.synthesis.generators import GeneratorSettings, load_generators, random_region
from realdamage.synthesis.group import Base, GroupMaker, group_photos
from realdamage.synthesis.house_codec import HouseCodec, HouseCodecSpec, save_house_codec

ALL = {"annotated": 1.0, "ai_region": 1.0, "ai_whole": 1.0, "pasted": 1.0}
Row = dict[str, str]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., GroupMaker]:
    """`make(quality, overlay_share)`: the engines, with a codec of random weights."""
    path = tmp_path_factory.mktemp("codec") / "tiny.safetensors"
    save_house_codec(HouseCodec(HouseCodecSpec(stages=1, latent=2, width=4)), path)

    def maker(quality: tuple[int, int] = (85, 95), overlay_share: float = 0.0) -> GroupMaker:
        generators = load_generators([GeneratorSettings("tiny", str(path), "toy")], {})
        pool = TablePool.of_qualities(*quality)
        return GroupMaker(generators, pool, ("cracked", "stained"), overlay_share=overlay_share)

    return maker


@pytest.fixture(scope="module")
def photo(
    photo_factory: Callable[..., np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("source") / "photo.png"
    Image.fromarray(photo_factory(200, 240, 0)).save(path)
    return path


def rows_of(
    maker: GroupMaker,
    base: Base,
    root: Path,
    seed: int = 0,
    shares: dict[str, float] = ALL,
    paint_share: float = 1.0,
) -> dict[str, Row]:
    base = replace(base, shares=shares, paint_share=paint_share)
    return {
        row["kind"]: row for row in group_photos(maker, base, 3, root, np.random.default_rng(seed))
    }


@pytest.mark.parametrize("condition", ["intact", "damaged"])
def test_a_studio_group_holds_the_base_and_the_four_derived_kinds(
    make, condition: str, tmp_path: Path
) -> None:
    damage = "cracked" if condition == "damaged" else ""
    rows = rows_of(make(), Base(studio_seed=5, damage=damage, condition=condition), tmp_path)
    base = "damaged" if damage else "original"
    assert set(rows) == set(KINDS) - ({"original", "damaged"} - {base})
    for kind, row in rows.items():
        assert row["label"] == KIND_LABELS[kind]
        assert row["pair"] == ("" if kind == base else rows[base]["file_name"])
        assert row["condition"] == condition
        assert row["group"] == "studio/000003"
        assert row["source"] == "studio"
        assert (
            row["sha256"] == hashlib.sha256((tmp_path / row["file_name"]).read_bytes()).hexdigest()
        )
        assert (row["mask_file_name"] != "") == (row["label"] == "synthetic")
        assert row["generator"] == {"ai_region": "tiny", "ai_whole": "tiny", "pasted": "paint"}.get(
            kind, ""
        )
        assert row["family"] == ("toy" if kind.startswith("ai_") else "")
    assert rows[base]["damage"] == rows["annotated"]["damage"] == damage
    assert rows["ai_region"]["damage"] in ("cracked", "stained")


def test_all_photos_of_a_group_are_saved_alike(make, photo: Path, tmp_path: Path) -> None:
    found = set()
    for row in rows_of(make(), Base(path=str(photo), source="shop", group="g1"), tmp_path).values():
        with Image.open(tmp_path / row["file_name"]) as image:
            tables = tuple(tuple(table) for table in image.quantization.values())
            found.add(
                (image.format, image.mode, image.size, tables, JpegImagePlugin.get_sampling(image))
            )
            assert not image.getexif()
        if row["mask_file_name"]:
            with Image.open(tmp_path / row["mask_file_name"]) as mask:
                assert mask.size == image.size
    assert len(found) == 1


def test_outside_of_its_mask_an_edit_is_its_original(make, photo: Path, tmp_path: Path) -> None:
    rows = rows_of(make(quality=(100, 100)), Base(path=str(photo)), tmp_path)

    def pixels(name: str) -> np.ndarray:
        with Image.open(tmp_path / name) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    original = pixels(rows["original"]["file_name"])
    for kind in ("ai_region", "pasted"):
        mask = pixels(rows[kind]["mask_file_name"])[..., 0] > 0
        difference = np.abs(pixels(rows[kind]["file_name"]) - original).max(axis=2)
        from scipy import ndimage

        # The feather of the blend and JPEG's blocks reach a little beyond.
        far = ~ndimage.binary_dilation(mask, iterations=30)
        assert far.mean() > 0.2, kind
        assert difference[far].max() <= 3, kind
        assert difference[mask].mean() > 4 * difference[far].mean(), kind
    whole = pixels(rows["ai_whole"]["mask_file_name"])
    assert whole.min() == 255


def test_a_share_of_the_regions_is_regenerated_without_any_paint(
    make, photo: Path, tmp_path: Path
) -> None:
    """The damage of the base stays that of the photo, as when a really damaged photo went through a generator."""
    base = Base(path=str(photo), damage="dented", condition="damaged")
    rows = rows_of(make(), base, tmp_path, shares={"ai_region": 1.0}, paint_share=0.0)
    assert rows["ai_region"]["damage"] == "dented"
    assert set(rows) == {"damaged", "ai_region"}


def test_shares_are_chances(make, photo: Path, tmp_path: Path) -> None:
    maker, base = make(), Base(path=str(photo))
    made = [
        len(rows_of(maker, base, tmp_path / str(seed), seed, {"annotated": 0.5}))
        for seed in range(30)
    ]
    assert set(made) == {1, 2}
    assert 5 < made.count(2) < 25


def test_a_share_above_one_makes_several_of_a_kind(make, photo: Path, tmp_path: Path) -> None:
    base = Base(path=str(photo), shares={"ai_region": 2.5})
    counts = set()
    for seed in range(6):
        rows = group_photos(make(), base, 0, tmp_path / str(seed), np.random.default_rng(seed))
        names = [row["file_name"] for row in rows if row["kind"] == "ai_region"]
        assert len(set(names)) == len({row["sha256"] for row in rows}) - 1 == len(names)
        counts.add(len(names))
    assert counts == {2, 3}


def test_honest_annotations_also_lie_on_edits_and_are_not_called_synthetic(
    make, photo: Path, tmp_path: Path
) -> None:
    base, shares = Base(path=str(photo)), {"ai_whole": 1.0}
    plain = rows_of(make(quality=(100, 100)), base, tmp_path / "plain", shares=shares)["ai_whole"]
    drawn = rows_of(
        make(quality=(100, 100), overlay_share=1.0), base, tmp_path / "drawn", shares=shares
    )["ai_whole"]

    def pixels(folder: str, name: str) -> np.ndarray:
        with Image.open(tmp_path / folder / name) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    unmarked = pixels("drawn", drawn["mask_file_name"])[..., 0] == 0
    assert 0 < unmarked.mean() < 0.9
    changed = np.abs(pixels("drawn", drawn["file_name"]) - pixels("plain", plain["file_name"])).max(
        axis=2
    )
    assert changed[unmarked].mean() > 5 * changed[~unmarked].mean()


def test_a_source_photo_that_cannot_be_read_is_named(make, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    with pytest.raises(SynthesisError, match=r"source photo cannot be read: .*broken\.jpg"):
        rows_of(make(), Base(path=str(tmp_path / "broken.jpg")), tmp_path)


def test_random_regions_are_never_empty_and_never_all() -> None:
    shares = [random_region((120, 160), np.random.default_rng(seed)).mean() for seed in range(100)]
    assert min(shares) > 0
    assert max(shares) < 0.4
    assert np.std(shares) > 0.01
