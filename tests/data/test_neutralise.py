"""A set whose files leak the classes is saved again; then they no longer do. Rows are kept."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, JpegImagePlugin
from scipy import ndimage

from realdamage.core.decode import decode
from realdamage.data.audit import audit
from realdamage.data.manifest import read_manifest, read_mask, write_manifest
from realdamage.data.neutralise import NeutraliseSettings, neutralise
from realdamage.errors import ManifestError, PhotoError

RGB = npt.NDArray[np.uint8]


class Photos:
    """Writes a set, photo by photo."""

    def __init__(self, root, texture):
        self.root, self.texture, self.rows = root, texture, list[dict[str, str]]()
        for folder in ("photos", "masks"):
            (root / folder).mkdir(parents=True)

    def pixels(self, width, height):
        rng = np.random.default_rng(len(self.rows))
        moved = np.roll(self.texture, tuple(rng.integers(0, 400, 2)), axis=(0, 1))[:height, :width]
        lit = np.clip(moved.astype(np.int16) + rng.integers(-30, 31, 3), 0, 255)
        return np.asarray(lit.astype(np.uint8))

    def add(self, name, rgb, kind, mask=None, **more):
        """Real photos: JPEG of quality 75 with EXIF, by their name. Others: PNG."""
        image, path = Image.fromarray(rgb), self.root / f"photos/{name}"
        if name.endswith("jpg"):
            exif = Image.Exif()
            exif[0x010F] = "Phone"
            image.save(path, quality=75, subsampling="4:2:0", exif=exif)
        else:
            image.save(path, compress_level=1)
        mask_name = f"masks/{path.stem}.png" if mask is not None else ""
        if mask is not None:
            Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(self.root / mask_name)
        label = "real" if kind in ("original", "damaged", "annotated") else "synthetic"
        row = {"file_name": f"photos/{name}", "label": label, "kind": kind, "note": f"of {name}"}
        self.rows.append({**row, "mask_file_name": mask_name, **more})
        return row["file_name"]

    def add_edit(self, original, place, **more):
        """A negative at that place of the original."""
        rgb = decode(self.root / original)
        mask = np.zeros(rgb.shape[:2], np.bool_)
        mask[place] = True
        name = f"{Path(original).stem}_edit.png"
        edit = np.where(mask[..., None], 255 - rgb, rgb)
        self.add(name, edit, "ai_region", mask, pair=original, **more)

    def written(self):
        write_manifest(self.root, pd.DataFrame(self.rows).fillna(""))
        return read_manifest(self.root)


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def leaky(tmp_path_factory, photo_factory):
    """62 photos: 24 reals, of each an edit, of every third an annotated copy, and 6 fakes of
    another size. Tests must not change it."""
    photos = Photos(tmp_path_factory.mktemp("leaky") / "set", photo_factory(400, 400, 5))
    for index in range(24):
        more = {"group": f"g{index}", "split": ("train", "test")[index % 2], "part": "photos"}
        rgb = photos.pixels(*((200, 266), (174, 174))[index // 2 % 2])
        original = photos.add(f"real {index}.jpg", rgb, ("original", "damaged")[index % 2], **more)
        top, left = np.random.default_rng(index).integers(0, 139, 2)
        place = (slice(top, top + 35), slice(left, left + 35))
        photos.add_edit(original, place, damage="cracked", **more)
        if index % 3 == 0:
            rgb[20:40, 30:60] = (255, 0, 0)
            photos.add(f"arrow{index}.png", rgb, "annotated", pair=original, **more)
    for index in range(6):
        more = {"group": f"h{index}", "generator": "g", "part": "generated"}
        photos.add(f"fake{index}.png", photos.pixels(320, 240), "ai_whole", **more)
    reason = [{"part": "generated", "test": "source", "reason": "few"}]
    (photos.root / "audit_exceptions.json").write_text(json.dumps(reason))
    return photos.written()


@pytest.fixture(scope="module")
def neutral(leaky, tmp_path_factory):
    """The leaky set saved again with the default settings; tests must not change it."""
    done = neutralise(leaky, tmp_path_factory.mktemp("neutral") / "set", workers=1)
    assert (done.sizes, done.dropped) == ({(166, 166): 62}, {})
    return read_manifest(done.manifest.root)


@pytest.fixture
def few(tmp_path, photo_factory):
    """Six photos: three reals of 120x100 and, of each, an edit."""
    photos = Photos(tmp_path / "few", photo_factory(400, 400, 6))
    for index in range(3):
        original = photos.add(f"{index}.jpg", photos.pixels(120, 100), "original")
        photos.add_edit(original, np.s_[40:70, 40:80])
    return photos.written()


def run(manifest, out, workers=1, **settings):
    return neutralise(manifest, out, NeutraliseSettings(**settings), workers=workers)


def container(manifest):
    (found,) = (test for test in audit(manifest, quick=True).tests if test.name == "container")
    return found


def contents(root):
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_the_files_are_plain_jpegs_and_tell_nothing(leaky, neutral):
    before, after = container(leaky), container(neutral)
    assert (before.failed, after.measured, after.failed) == (True, True, False)
    with Image.open(leaky.path(leaky.table["file_name"][0])) as image:
        of_reals = (image.quantization, JpegImagePlugin.get_sampling(image))
    for name in neutral.table["file_name"]:
        with Image.open(neutral.path(name)) as image:
            # The size of the smaller reals, but for the offset.
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (166, 166))
            assert not {"exif", "icc_profile", "progressive"} & set(image.info)
            assert (image.quantization, JpegImagePlugin.get_sampling(image)) == of_reals


def test_an_edit_is_cropped_and_saved_like_its_original(neutral):
    edits = np.flatnonzero(neutral.table["mask_file_name"] != "")
    assert len(edits) == 24
    for index in edits:
        row = neutral.table.iloc[index]
        edit, original = (
            np.asarray(Image.open(neutral.path(row[name])), np.int16)
            for name in ("file_name", "pair")
        )
        apart = np.abs(edit - original).max(axis=2)
        mask = read_mask(neutral, index, apart.shape)
        assert mask.sum() >= 35 * 35 * 0.3
        far = ~ndimage.binary_dilation(mask, iterations=32)
        assert apart[far].max() == 0  # the same pixels went through the same save
        assert apart[mask].mean() > 30


def test_what_the_rows_say_is_kept_and_names_follow(leaky, neutral):
    old, new = leaky.table, neutral.table
    assert new["original_file_name"].tolist() == old["file_name"].tolist()
    same = ["label", "kind", "condition", "damage", "generator", "group", "split", "note", "part"]
    pd.testing.assert_frame_equal(new[same], old[same])
    assert new["file_name"][0] == "photos/000000_real_0.jpg"
    renamed = dict(zip(old["file_name"], new["file_name"], strict=True)) | {"": ""}
    assert new["pair"].tolist() == [renamed[pair] for pair in old["pair"]]
    for name, digest in zip(new["file_name"], new["sha256"], strict=True):
        assert hashlib.sha256(neutral.path(name).read_bytes()).hexdigest() == digest
    exceptions = "audit_exceptions.json"
    assert neutral.path(exceptions).read_bytes() == leaky.path(exceptions).read_bytes()


def test_an_interrupted_run_goes_on_to_the_same_bytes(few, tmp_path):
    def stopping(steps, total, description):
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


def test_halves_of_other_sizes_are_cut_never_resized(few, tmp_path):
    large = np.zeros((300, 320, 3), np.uint8)
    large[..., 0], large[..., 1] = np.mgrid[:300, :320] // 2  # the colour tells the place
    Image.fromarray(large).save(few.path("photos/1_edit.png"))
    Image.fromarray(np.full((300, 320), 255, np.uint8)).save(few.path("masks/1_edit.png"))
    done = run(few, tmp_path / "out", sizes=[(80, 64)], quality=(95, 95))
    assert done.sizes == {(80, 64): 6}
    cropped = decode(tmp_path / "out/photos/000003_1_edit.jpg").astype(np.int16)
    assert np.ptp(cropped[:, 0, 0]) == pytest.approx(32, abs=4)
    assert np.ptp(cropped[0, :, 1]) == pytest.approx(40, abs=4)


def test_what_cannot_be_cropped_is_left_out_and_named(few, tmp_path):
    """A pair with a small half, and an edit whose region lies outside of every crop."""
    Image.new("RGB", (60, 60)).save(few.path("photos/2.jpg"))
    mask = np.zeros((100, 120), np.uint8)
    mask[:, 119] = 255
    Image.fromarray(mask).save(few.path("masks/0_edit.png"))
    done = run(few, tmp_path / "out", sizes=[(90, 80)])
    assert len(done.manifest) == 3
    assert list(done.dropped) == ["photos/0_edit.png", "photos/2.jpg", "photos/2_edit.png"]
    assert "60x60 pixels, 98x88" in done.dropped["photos/2.jpg"]
    assert "'photos/2.jpg'" in done.dropped["photos/2_edit.png"]
    assert pd.read_csv(tmp_path / "out/dropped.csv")["file_name"].tolist() == list(done.dropped)
    assert not (tmp_path / "out/photos/000001_0_edit.jpg").exists()


def test_sizes_that_a_class_cannot_give_are_refused(few, tmp_path):
    with pytest.raises(ManifestError, match=r"'photos/0\.jpg'.*120x100"):
        run(few, tmp_path / "out", sizes=[(512, 512)])
    for name in few.table["file_name"]:
        Image.new("RGB", (39, 120)).save(few.path(name), "PNG")
    with pytest.raises(ManifestError, match="32x32"):
        run(few, tmp_path / "out")


def test_a_small_crop_of_a_large_photo_holds_its_mask(tmp_path):
    large = Photos(tmp_path / "set", np.full((600, 600, 3), 90, np.uint8))
    for index in range(8):
        top, left = np.random.default_rng(index).integers(0, 560, 2)
        original = large.add(f"{index}.jpg", large.pixels(600, 600), "original")
        large.add_edit(original, (slice(top, top + 30), slice(left, left + 30)))
    made = run(large.written(), tmp_path / "out", sizes=[(64, 64)]).manifest
    masked = np.flatnonzero(made.table["mask_file_name"] != "")
    shares = [read_mask(made, row, (64, 64)).sum() / 900 for row in masked]
    assert len(shares) == 8
    assert min(shares) > 0.25
    assert np.mean(shares) > 0.5


def test_an_unreadable_photo_stops_the_run(few, tmp_path):
    broken = few.path("photos/1.jpg")
    broken.write_bytes(broken.read_bytes()[:2000])  # the header is whole
    with pytest.raises(PhotoError, match=r"photos/1\.jpg"):
        run(few, tmp_path / "out")
    assert (tmp_path / "out/photos/000000_0.jpg").is_file()


def test_without_a_real_jpeg_the_tables_have_a_fallback(few, tmp_path):
    synthetic = few.subset(few.table["label"] == "synthetic")
    synthetic.table["pair"] = ""
    assert any("85-97" in note for note in run(synthetic, tmp_path / "out").notes)
