"""A set whose files leak the classes is saved again; then they no longer do. Rows are kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, JpegImagePlugin
from scipy import ndimage

from realdamage.core.decode import decode
from realdamage.data.audit import ShortcutTest, audit
from realdamage.data.manifest import Manifest, read_manifest, read_mask, write_manifest
from realdamage.data.neutralise import NeutraliseSettings, Summary, neutralise
from realdamage.errors import ManifestError, PhotoError

RGB = npt.NDArray[np.uint8]
MORE = {"damage": "cracked"}


class Leaky:
    """Writes a set whose files tell the classes apart, row by row."""

    def __init__(self, root: Path, texture: RGB) -> None:
        self.root, self.texture, self.rows = root, texture, list[dict[str, str]]()
        for folder in ("photos", "masks"):
            (root / folder).mkdir(parents=True)

    def pixels(self, width: int, height: int, seed: int) -> RGB:
        rng = np.random.default_rng(seed)
        moved = np.roll(self.texture, tuple(rng.integers(0, 400, 2)), axis=(0, 1))[:height, :width]
        lit = np.clip(moved.astype(np.int16) + rng.integers(-30, 31, 3), 0, 255)
        return np.asarray(lit.astype(np.uint8))

    def add(
        self, name: str, rgb: RGB, kind: str, mask: npt.NDArray[np.bool_] | None = None, **more: str
    ) -> str:
        """Real photos: JPEG of quality 75 with EXIF. Others: quality 95, or PNG by their name."""
        image, path = Image.fromarray(rgb), self.root / f"photos/{name}"
        if name.endswith("png"):
            image.save(path, compress_level=1)
        elif kind in ("original", "damaged"):
            exif = Image.Exif()
            exif[0x010F] = "Phone"
            image.save(path, quality=75, subsampling="4:2:0", exif=exif)
        else:
            image.save(path, quality=95, subsampling="4:4:4")
        mask_name = f"masks/{path.stem}.png" if mask is not None else ""
        if mask is not None:
            Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(self.root / mask_name)
        label = "real" if kind in ("original", "damaged", "annotated") else "synthetic"
        row = {"file_name": f"photos/{name}", "label": label, "kind": kind, "note": f"of {name}"}
        self.rows.append({**row, "mask_file_name": mask_name, **more})
        return row["file_name"]

    def written(self) -> Manifest:
        write_manifest(self.root, pd.DataFrame(self.rows).fillna(""))
        return read_manifest(self.root)


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def leaky(
    tmp_path_factory: pytest.TempPathFactory, photo_factory: Callable[[int, int, int], RGB]
) -> Manifest:
    """100 photos. Real: 200x266 and 174x174. Synthetic: PNG of 256x256 and JPEG of 320x240. 12
    originals have an edit with a mask, 6 also an annotated copy."""
    leaky = Leaky(tmp_path_factory.mktemp("leaky") / "set", photo_factory(400, 400, 5))
    for index in range(36):
        rgb = leaky.pixels(*((200, 266), (174, 174))[index % 2], index)
        kind = ("original", "damaged")[index // 2 % 2]
        leaky.add(f"real {index}.jpg", rgb, kind, group=f"g{index}", part="photos")
    for index in range(34):
        rgb = leaky.pixels(*((256, 256), (320, 240))[index % 2], 100 + index)
        name = f"fake{index}.{('png', 'jpg')[index % 2]}"
        leaky.add(name, rgb, "ai_whole", group=f"h{index}", generator="g", part="generated")
    for index in range(12):
        rgb = leaky.pixels(200, 266, 200 + index)
        more = {"group": f"p{index}", "split": ("train", "test")[index % 2], "part": "photos"}
        original = leaky.add(f"pair{index}.jpg", rgb, "original", **more)
        rgb = np.array(decode(leaky.root / original))
        mask = np.zeros((266, 200), np.bool_)
        top, left = np.random.default_rng(index).integers(0, (231, 165))
        mask[top : top + 35, left : left + 35] = True
        more["pair"] = original
        edit = np.where(mask[..., None], 255 - rgb, rgb)
        leaky.add(f"pair{index}_edit.png", edit, "ai_region", mask, **MORE, **more)
        if index % 2:
            rgb[20:40, 30:60] = (255, 0, 0)
            leaky.add(f"pair{index}_arrow.jpg", rgb, "annotated", **more)
    reason = [{"part": "generated", "test": "source", "reason": "few"}]
    (leaky.root / "audit_exceptions.json").write_text(json.dumps(reason))
    return leaky.written()


@pytest.fixture(scope="module")
def summary(leaky: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """The leaky set saved again with the default settings; tests must not change it."""
    return neutralise(leaky, tmp_path_factory.mktemp("neutral") / "set", workers=1)


@pytest.fixture(scope="module")
def neutral(summary: Summary) -> Manifest:
    return read_manifest(summary.manifest.root)


@pytest.fixture
def few(tmp_path: Path, photo_factory: Callable[[int, int, int], RGB]) -> Manifest:
    """Six photos: three reals of 120x100 and, of each, an edit."""
    few = Leaky(tmp_path / "few", photo_factory(400, 400, 6))
    mask = np.zeros((100, 120), np.bool_)
    mask[40:70, 40:80] = True
    for index in range(3):
        rgb = few.pixels(120, 100, index)
        pair = few.add(f"{index}.jpg", rgb, "original")
        edit = np.where(mask[..., None], 255 - rgb, rgb)
        few.add(f"{index}_edit.png", edit, "ai_region", mask, pair=pair)
    return few.written()


def run(manifest: Manifest, out: Path, workers: int = 1, **settings: Any) -> Summary:
    return neutralise(manifest, out, NeutraliseSettings(**settings), workers=workers)


def container(manifest: Manifest) -> ShortcutTest:
    (found,) = (test for test in audit(manifest, quick=True).tests if test.name == "container")
    return found


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_the_files_told_the_classes_apart_and_no_longer_do(
    leaky: Manifest, neutral: Manifest
) -> None:
    before, after = container(leaky), container(neutral)
    assert (before.failed, after.measured, after.failed) == (True, True, False)


def test_every_file_is_a_plain_rgb_jpeg_of_one_size_with_tables_of_the_reals(
    leaky: Manifest, neutral: Manifest, summary: Summary
) -> None:
    tables: list[Any] = []
    for name in leaky.table["file_name"][leaky.table["label"] == "real"]:
        with Image.open(leaky.path(name)) as image:
            tables.append((image.quantization, JpegImagePlugin.get_sampling(image)))  # type: ignore[attr-defined]
    for name in neutral.table["file_name"]:
        with Image.open(neutral.path(name)) as image:
            # The size of the smaller reals, but for the offset.
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (166, 166))
            assert not {"exif", "icc_profile", "progressive"} & set(image.info)
            assert (image.quantization, JpegImagePlugin.get_sampling(image)) in tables  # type: ignore[attr-defined]
    assert summary.sizes == {(166, 166): 100}
    assert (len(summary.manifest), summary.dropped) == (len(leaky), {})


def test_an_edit_is_cropped_and_saved_like_its_original(neutral: Manifest) -> None:
    edits = np.flatnonzero(neutral.table["pair"] != "")
    assert len(edits) == 18
    for index in edits:
        row = neutral.table.iloc[index]
        edit, original = (Image.open(neutral.path(row[name])) for name in ("file_name", "pair"))
        assert edit.size == original.size
        assert edit.quantization == original.quantization  # type: ignore[attr-defined]
        apart = np.abs(np.asarray(edit, np.int16) - np.asarray(original)).max(axis=2)
        if row["mask_file_name"]:
            mask = read_mask(neutral, index, apart.shape)
            assert mask.sum() >= 35 * 35 * 0.3
            far = ~ndimage.binary_dilation(mask, iterations=32)
            assert apart[far].max() == 0  # the same pixels went through the same save
            assert apart[mask].mean() > 30


def test_what_the_rows_say_is_kept_and_names_follow(leaky: Manifest, neutral: Manifest) -> None:
    old, new = leaky.table, neutral.table
    assert new["original_file_name"].tolist() == old["file_name"].tolist()
    same = ["label", "kind", "condition", "damage", "generator", "group", "split", "note", "part"]
    pd.testing.assert_frame_equal(new[same], old[same])
    assert new["file_name"][0] == "photos/000000_real_0.jpg"
    renamed = dict(zip(old["file_name"], new["file_name"], strict=True)) | {"": ""}
    assert new["pair"].tolist() == [renamed[pair] for pair in old["pair"]]
    assert ((new["mask_file_name"] != "") == (old["mask_file_name"] != "")).all()
    for name, digest in zip(new["file_name"], new["sha256"], strict=True):
        assert hashlib.sha256(neutral.path(name).read_bytes()).hexdigest() == digest
    exceptions = "audit_exceptions.json"
    assert neutral.path(exceptions).read_bytes() == leaky.path(exceptions).read_bytes()


def test_an_interrupted_run_goes_on_to_the_same_bytes_with_any_number_of_workers(
    few: Manifest, tmp_path: Path
) -> None:
    def stopping(steps: Any, total: int, description: str) -> Iterator[Any]:
        for step in steps:
            yield step
            if description == "groups":
                raise KeyboardInterrupt

    run(few, tmp_path / "whole", workers=2)
    with pytest.raises(KeyboardInterrupt):
        neutralise(few, tmp_path / "resumed", workers=1, progress=stopping)
    assert not (tmp_path / "resumed" / "metadata.csv").exists()
    run(few, tmp_path / "resumed")
    assert contents(tmp_path / "whole") == contents(tmp_path / "resumed")


def test_halves_of_other_sizes_are_cut_to_one_size_and_never_resized(
    few: Manifest, tmp_path: Path
) -> None:
    large = np.zeros((300, 320, 3), np.uint8)
    large[..., 0], large[..., 1] = np.mgrid[:300, :320] // 2  # the colour tells the place
    Image.fromarray(large).save(few.path("photos/1_edit.png"))
    Image.fromarray(np.full((300, 320), 255, np.uint8)).save(few.path("masks/1_edit.png"))
    done = run(few, tmp_path / "out", sizes=[(80, 64)], quality=(95, 95))
    assert done.sizes == {(80, 64): 6}
    cropped = decode(tmp_path / "out/photos/000003_1_edit.jpg").astype(np.int16)
    assert np.ptp(cropped[:, 0, 0]) == pytest.approx(32, abs=4)
    assert np.ptp(cropped[0, :, 1]) == pytest.approx(40, abs=4)


def test_a_pair_with_a_small_half_is_left_out_whole_and_named(
    few: Manifest, tmp_path: Path
) -> None:
    Image.new("RGB", (60, 60)).save(few.path("photos/2.jpg"))
    done = run(few, tmp_path / "out", sizes=[(90, 80)])
    assert len(done.manifest) == 4
    assert list(done.dropped) == ["photos/2.jpg", "photos/2_edit.png"]
    assert "60x60 pixels, 98x88" in done.dropped["photos/2.jpg"]
    assert "'photos/2.jpg'" in done.dropped["photos/2_edit.png"]
    assert pd.read_csv(tmp_path / "out/dropped.csv")["file_name"].tolist() == list(done.dropped)


def test_sizes_that_a_class_cannot_give_are_refused(few: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"'photos/0\.jpg'.*120x100"):
        run(few, tmp_path / "out", sizes=[(512, 512)])
    for name in few.table["file_name"]:
        Image.new("RGB", (39, 120)).save(few.path(name), "PNG")
    with pytest.raises(ManifestError, match="32x32"):
        run(few, tmp_path / "out")


# --- Crops and masks ---


def test_a_small_crop_of_a_large_photo_holds_its_mask(tmp_path: Path) -> None:
    large = Leaky(tmp_path / "set", np.full((600, 600, 3), 90, np.uint8))
    for index in range(8):
        mask = np.zeros((600, 600), np.bool_)
        top, left = np.random.default_rng(index).integers(0, 560, 2)
        mask[top : top + 30, left : left + 30] = True
        rgb = large.texture.copy()
        rgb[0, 0] = index
        large.add(f"{index}.jpg", rgb, "original")
        large.add(f"{index}_edit.png", rgb, "ai_region", mask)
    done = run(large.written(), tmp_path / "out", sizes=[(64, 64)])
    made = done.manifest
    masked = np.flatnonzero(made.table["mask_file_name"] != "")
    shares = [read_mask(made, row, (64, 64)).sum() / 900 for row in masked]
    assert len(shares) == 8
    assert min(shares) > 0.25
    assert np.mean(shares) > 0.5


def test_an_edit_whose_region_is_cut_away_is_left_out(few: Manifest, tmp_path: Path) -> None:
    mask = np.zeros((100, 120), np.uint8)
    mask[:, 119] = 255  # the last column, which no crop with an offset below 8 can hold
    Image.fromarray(mask).save(few.path("masks/0_edit.png"))
    done = run(few, tmp_path / "out")
    assert list(done.dropped) == ["photos/0_edit.png"]
    assert not (tmp_path / "out/photos/000001_0_edit.jpg").exists()
    assert done.manifest.table["label"].tolist().count("real") == 3


def test_an_unreadable_photo_stops_the_run_and_what_was_made_is_kept(
    few: Manifest, tmp_path: Path
) -> None:
    broken = few.path("photos/1.jpg")
    broken.write_bytes(broken.read_bytes()[:2000])  # the header is whole
    with pytest.raises(PhotoError, match=r"photos/1\.jpg"):
        run(few, tmp_path / "out")
    assert (tmp_path / "out/photos/000000_0.jpg").is_file()


def test_without_a_real_jpeg_the_tables_have_a_fallback(few: Manifest, tmp_path: Path) -> None:
    synthetic = few.subset(few.table["label"] == "synthetic")
    synthetic.table["pair"] = ""
    assert any("85-97" in note for note in run(synthetic, tmp_path / "out").notes)
