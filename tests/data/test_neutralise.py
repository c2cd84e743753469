"""A set whose files leak the classes is saved again; then they no longer do. Rows are kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, JpegImagePlugin

from realdamage.core.decode import decode
from realdamage.data import shortcuts
from realdamage.data.audit import audit
from realdamage.data.manifest import Manifest, read_manifest, read_mask, write_manifest
from realdamage.data.neutralise import NeutraliseSettings, Summary, neutralise
from realdamage.data.shortcuts import LIMIT, Separation, container_auroc
from realdamage.data.splits import components
from realdamage.data.writer import TablePool
from realdamage.errors import ConfigError, ManifestError, PhotoError, RealDamageError, UsageError

SHARED = Path(__file__).parents[3] / "shared"
RGB = npt.NDArray[np.uint8]
T = TypeVar("T")


class _Leaky:
    """Writes a set whose files tell the classes apart, row by row."""

    def __init__(self, root: Path, texture: RGB) -> None:
        self.root, self.texture, self.rows = root, texture, list[dict[str, str]]()
        for folder in ("photos", "masks"):
            (root / folder).mkdir(parents=True)

    def pixels(self, width: int, height: int, seed: int) -> RGB:
        rng = np.random.default_rng(seed)
        moved = np.roll(self.texture, tuple(rng.integers(0, 400, 2)), axis=(0, 1))[:height, :width]
        return np.asarray(
            np.clip(moved.astype(np.int16) + rng.integers(-30, 31, 3), 0, 255).astype(np.uint8)
        )

    def add(
        self, name: str, rgb: RGB, kind: str, mask: npt.NDArray[np.bool_] | None = None, **more: str
    ) -> str:
        name = f"photos/{name}"
        image = Image.fromarray(rgb)
        if name.endswith("png"):
            image.save(self.root / name, compress_level=1)
        elif kind in ("original", "damaged"):
            exif = Image.Exif()
            exif[0x010F] = "Phone"
            image.save(self.root / name, quality=75, subsampling="4:2:0", exif=exif)
        else:
            image.save(self.root / name, quality=95, subsampling="4:4:4")
        mask_name = f"masks/{Path(name).stem}.png" if mask is not None else ""
        if mask is not None:
            Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(self.root / mask_name)
        label = "real" if kind in ("original", "damaged", "annotated") else "synthetic"
        row = {"file_name": name, "label": label, "kind": kind, "mask_file_name": mask_name}
        self.rows.append(row | {"note": f"{kind}, of {name}"} | more)
        return name


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def leaky(
    tmp_path_factory: pytest.TempPathFactory, photo_factory: Callable[[int, int, int], RGB]
) -> Manifest:
    """100 photos. Real: JPEG of quality 75 with EXIF, 200x266 and 174x174. Synthetic: PNG 256x256
    and JPEG of quality 95, 320x240. 12 originals have an edit (PNG, mask), 6 also an annotated
    copy (quality 95)."""
    leaky = _Leaky(tmp_path_factory.mktemp("leaky") / "set", photo_factory(400, 400, 5))
    for index in range(36):
        width, height = ((200, 266), (174, 174))[index % 2]
        kind = ("original", "damaged")[index // 2 % 2]
        leaky.add(
            f"real {index}.jpg",
            leaky.pixels(width, height, index),
            kind,
            group=f"g{index}",
            part="photos",
        )
    for index in range(34):
        width, height, ending = ((256, 256, "png"), (320, 240, "jpg"))[index % 2]
        rgb = leaky.pixels(width, height, 100 + index)
        leaky.add(
            f"fake{index}.{ending}",
            rgb,
            "ai_whole",
            group=f"h{index}",
            generator="g",
            part="generated",
        )
    for index in range(12):
        rgb = leaky.pixels(200, 266, 200 + index)
        more = {"group": f"p{index}", "split": ("train", "test")[index % 2], "part": "photos"}
        original = leaky.add(f"pair{index}.jpg", rgb, "original", None, **more)
        rgb = np.array(decode(leaky.root / original))
        mask = np.zeros((266, 200), np.bool_)
        top, left = np.random.default_rng(index).integers(0, (231, 165))
        mask[top : top + 35, left : left + 35] = True
        edit = np.where(mask[..., None], 255 - rgb, rgb)
        leaky.add(
            f"pair{index}_edit.png",
            edit,
            "ai_region",
            mask,
            pair=original,
            damage="cracked",
            **more,
        )
        if index % 2:
            rgb[20:40, 30:60] = (255, 0, 0)
            leaky.add(f"pair{index}_arrow.jpg", rgb, "annotated", None, pair=original, **more)
    write_manifest(leaky.root, pd.DataFrame(leaky.rows).fillna(""))
    (leaky.root / "audit_exceptions.json").write_text(
        '[{"part": "generated", "test": "source", "reason": "few"}]'
    )
    return read_manifest(leaky.root)


@pytest.fixture(scope="module")
def summary(leaky: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """The leaky set saved again with the default settings; tests must not change it."""
    return neutralise(leaky, tmp_path_factory.mktemp("neutral") / "set", workers=1)


@pytest.fixture(scope="module")
def neutral(summary: Summary) -> Manifest:
    return read_manifest(summary.root)


@pytest.fixture
def few(tmp_path: Path, photo_factory: Callable[[int, int, int], RGB]) -> Manifest:
    """Six photos: three reals of 120x100 and, of each, an edit."""
    few = _Leaky(tmp_path / "few", photo_factory(400, 400, 6))
    mask = np.zeros((100, 120), np.bool_)
    mask[40:70, 40:80] = True
    for index in range(3):
        rgb = few.pixels(120, 100, index)
        pair = few.add(f"{index}.jpg", rgb, "original")
        few.add(
            f"{index}_edit.png",
            np.where(mask[..., None], 255 - rgb, rgb),
            "ai_region",
            mask,
            pair=pair,
        )
    write_manifest(few.root, pd.DataFrame(few.rows).fillna(""))
    return read_manifest(few.root)


def told_by_the_container(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Separation:
    """Without the number of bytes, which the content decides."""
    measured = shortcuts.container_facts

    def without_bytes(path: Any, **more: Any) -> dict[str, Any]:
        return {**measured(path, **more), "bytes": 0}

    with monkeypatch.context() as patch:
        patch.setattr(shortcuts, "container_facts", without_bytes)
        return container_auroc(manifest, n_boot=200)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def stopping_after(groups: int) -> Callable[..., Iterator[Any]]:
    """Progress that is interrupted like a run whose machine goes down."""

    def track(steps: Any, total: int, description: str) -> Iterator[Any]:
        for done, step in enumerate(steps, start=1):
            yield step
            if description == "groups" and done == groups:
                raise KeyboardInterrupt

    return track


def test_the_files_told_the_classes_apart_and_no_longer_do(
    leaky: Manifest, neutral: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told_by_the_container(leaky, monkeypatch).low > 0.9
    assert told_by_the_container(neutral, monkeypatch).low <= LIMIT
    report = audit(neutral, quick=True)
    (container,) = (test for test in report.tests if test.name == "container")
    assert container.measured
    assert not container.failed


def test_every_file_is_a_plain_rgb_jpeg_with_tables_of_the_reals(
    leaky: Manifest, neutral: Manifest
) -> None:
    tables = []
    for name in leaky.table["file_name"][leaky.table["label"] == "real"]:
        with Image.open(leaky.path(name)) as image:
            tables.append((image.quantization, JpegImagePlugin.get_sampling(image)))  # type: ignore[attr-defined]
    for name in neutral.table["file_name"]:
        with Image.open(neutral.path(name)) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert not {"exif", "icc_profile", "progressive"} & set(image.info)
            assert (image.quantization, JpegImagePlugin.get_sampling(image)) in tables  # type: ignore[attr-defined]


def test_all_photos_get_one_size_that_nearly_all_can_give(
    leaky: Manifest, neutral: Manifest, summary: Summary
) -> None:
    sizes = set()
    for name in neutral.table["file_name"]:
        with Image.open(neutral.path(name)) as image:
            sizes.add(image.size)
    assert sizes == {(166, 166)}  # the smaller reals, whole but for the offset
    assert summary.sizes == {(166, 166): 100}
    assert summary.photos == len(leaky) == 100
    assert not summary.dropped


def test_few_small_photos_do_not_make_the_whole_set_small(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for index in range(44):
        shape = (60, 60) if index == 0 else (120, 100)
        Image.new("RGB", shape, (5 * index, 9, 9)).save(root / f"{index}.png")
    labels = ["real", "synthetic"] * 22
    names = [f"{index}.png" for index in range(44)]
    write_manifest(root, pd.DataFrame({"file_name": names, "label": labels}))
    done = neutralise(read_manifest(root), tmp_path / "out", workers=1)
    assert done.sizes == {(112, 92): 43}
    assert [dropped.file_name for dropped in done.dropped] == ["0.png"]


def test_photos_too_small_for_any_crop_are_refused(few: Manifest, tmp_path: Path) -> None:
    for name in few.table["file_name"]:
        Image.new("RGB", (39, 120)).save(few.path(name), "PNG")
    with pytest.raises(ManifestError, match="32x32"):
        neutralise(few, tmp_path / "out", workers=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_each_family_draws_one_of_the_sizes_that_nearly_all_can_give(
    few: Manifest, tmp_path: Path, seed: int
) -> None:
    sizes = [(64, 64), (90, 80), (400, 400)]
    settings = NeutraliseSettings(sizes=sizes, quality=(80, 90), seed=seed)
    done = neutralise(few, tmp_path / "out", settings, workers=1)
    assert sum(done.sizes.values()) == 6
    assert set(done.sizes) <= {(64, 64), (90, 80)}


def test_an_edit_is_cropped_and_saved_like_its_original(neutral: Manifest) -> None:
    table = neutral.table.set_index("file_name")
    edits = table[table["pair"] != ""]
    assert len(edits) == 18
    for name, row in edits.iterrows():
        with (
            Image.open(neutral.path(str(name))) as edit,
            Image.open(neutral.path(row["pair"])) as original,
        ):
            assert edit.size == original.size
            assert edit.quantization == original.quantization  # type: ignore[attr-defined]
            apart = np.abs(np.asarray(edit, np.int16) - np.asarray(original, np.int16)).max(axis=2)
        if not row["mask_file_name"]:
            continue
        mask = read_mask(
            neutral, int(np.flatnonzero(neutral.table["file_name"] == name)[0]), apart.shape
        )
        assert mask.sum() >= 35 * 35 * 0.3
        near = np.asarray(Image.fromarray(mask).convert("L").resize(mask.shape[::-1])) > 0
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        near[max(0, rows[0] - 16) : rows[-1] + 17, max(0, columns[0] - 16) : columns[-1] + 17] = (
            True
        )
        assert apart[~near].max() == 0  # the very same pixels went through the very same save
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
    assert len(set(zip(components(new), components(old), strict=True))) == components(old).max() + 1


def test_any_number_of_workers_gives_the_same_bytes(
    leaky: Manifest, summary: Summary, tmp_path: Path
) -> None:
    some = leaky.subset(np.arange(len(leaky)) >= 70)
    neutralise(some, tmp_path / "one", workers=1)
    neutralise(some, tmp_path / "three", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_an_interrupted_run_goes_on_to_the_same_bytes(few: Manifest, tmp_path: Path) -> None:
    neutralise(few, tmp_path / "whole", workers=1)
    with pytest.raises(KeyboardInterrupt):
        neutralise(few, tmp_path / "resumed", workers=1, progress=stopping_after(1))
    assert not (tmp_path / "resumed" / "metadata.csv").exists()
    first = tmp_path / "resumed" / "photos" / "000000_0.jpg"
    written = first.stat().st_mtime_ns
    neutralise(few, tmp_path / "resumed", workers=1)
    assert first.stat().st_mtime_ns == written
    assert contents(tmp_path / "whole") == contents(tmp_path / "resumed")


def test_a_finished_set_is_left_as_it_is(few: Manifest, tmp_path: Path) -> None:
    done = neutralise(few, tmp_path / "out", workers=1)
    table = read_manifest(done.root).table
    write_manifest(done.root, table.assign(split="train"))
    again = neutralise(few, tmp_path / "out", workers=1)
    assert (again.photos, again.sizes) == (done.photos, done.sizes)
    assert set(read_manifest(done.root).table["split"]) == {"train"}


def test_an_earlier_save_leaves_sizes_and_tables(few: Manifest, tmp_path: Path) -> None:
    plain = neutralise(few, tmp_path / "plain", workers=1)
    past = neutralise(few, tmp_path / "past", NeutraliseSettings(history=True), workers=1)
    assert plain.sizes == past.sizes
    a, b = (
        decode(root.root / "photos" / "000001_0_edit.jpg").astype(np.int16)
        for root in (plain, past)
    )
    assert 0.5 < np.abs(a - b).mean() < 6  # grey levels: one more quantisation, not another crop


def test_each_pair_can_keep_its_size(few: Manifest, tmp_path: Path) -> None:
    done = neutralise(
        few, tmp_path / "out", NeutraliseSettings(sizes=None, quality=(80, 90)), workers=1
    )
    assert done.sizes == {(112, 92): 6}


def test_halves_of_other_sizes_are_cut_to_one_size_and_never_resized(
    few: Manifest, tmp_path: Path
) -> None:
    large = np.zeros((300, 320, 3), np.uint8)
    large[..., 0], large[..., 1] = np.mgrid[:300, :320] // 2  # the colour tells the place
    Image.fromarray(large).save(few.path("photos/1_edit.png"))
    Image.fromarray(np.full((300, 320), 255, np.uint8)).save(few.path("masks/1_edit.png"))
    done = neutralise(
        few, tmp_path / "out", NeutraliseSettings(sizes=[(80, 64)], quality=(95, 95)), workers=1
    )
    assert done.sizes == {(80, 64): 6}
    cropped = decode(done.root / "photos" / "000003_1_edit.jpg").astype(np.int16)
    assert np.ptp(cropped[:, 0, 0]) == pytest.approx(32, abs=4)
    assert np.ptp(cropped[0, :, 1]) == pytest.approx(40, abs=4)


def test_tables_can_be_given_and_are_else_said(few: Manifest, tmp_path: Path) -> None:
    pool = TablePool.of_qualities(50, 50)
    given = neutralise(few, tmp_path / "given", tables=pool, workers=1)
    with Image.open(given.root / "photos" / "000000_0.jpg") as image:
        assert image.quantization[0] == list(pool.entries[0][0][0])  # type: ignore[attr-defined]
    synthetic = few.subset(few.table["label"] == "synthetic")
    synthetic.table["pair"] = ""
    fallen_back = neutralise(synthetic, tmp_path / "fallen", workers=1)
    assert any("85-97" in note for note in fallen_back.notes)


def test_a_turned_photo_comes_out_upright_in_srgb(few: Manifest, tmp_path: Path) -> None:
    rgb = np.zeros((120, 100, 3), np.uint8)
    rgb[:60, :, 0] = 250  # red above
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: 120 wide
    Image.fromarray(np.rot90(rgb)).save(few.path("photos/0.jpg"), exif=exif, quality=95)
    done = neutralise(
        few.subset(few.table["file_name"] == "photos/0.jpg"), tmp_path / "out", workers=1
    )
    assert done.sizes == {(92, 112): 1}
    upright = decode(done.root / "photos" / "000000_0.jpg")
    assert upright[:40, :, 0].min() > 200
    assert upright[70:, :, 0].max() < 50


def test_copies_get_the_same_bytes_and_one_group(few: Manifest, tmp_path: Path) -> None:
    few.path("photos/copy.jpg").write_bytes(few.path("photos/0.jpg").read_bytes())
    table = few.table.assign(group=[f"g{row}" for row in range(6)])
    table = pd.concat(
        [table, table.iloc[:1].assign(file_name="photos/copy.jpg", group="other")],
        ignore_index=True,
    )
    table["sha256"] = [
        hashlib.sha256(few.path(name).read_bytes()).hexdigest() for name in table["file_name"]
    ]
    done = neutralise(Manifest(few.root, table), tmp_path / "out", workers=1)
    new = read_manifest(done.root).table
    assert new["sha256"][0] == new["sha256"][6]
    assert new["group"][0] == new["group"][6] == new["group"][1]


def test_a_pair_with_a_small_half_is_left_out_whole_and_named(
    few: Manifest, tmp_path: Path
) -> None:
    Image.new("RGB", (60, 60)).save(few.path("photos/2.jpg"))
    done = neutralise(few, tmp_path / "out", NeutraliseSettings(sizes=[(90, 80)]), workers=1)
    assert done.photos == 4
    assert [dropped.file_name for dropped in done.dropped] == ["photos/2.jpg", "photos/2_edit.png"]
    assert "60x60 pixels, 98x88" in done.dropped[0].reason
    assert "'photos/2.jpg'" in done.dropped[1].reason
    listed = pd.read_csv(done.root / "dropped.csv")
    assert listed["file_name"].tolist() == ["photos/2.jpg", "photos/2_edit.png"]


def test_an_edit_whose_region_is_cut_away_is_left_out(few: Manifest, tmp_path: Path) -> None:
    mask = np.zeros((100, 120), np.uint8)
    mask[:, 119] = 255  # the last column, which no crop with an offset below 8 can hold
    Image.fromarray(mask).save(few.path("masks/0_edit.png"))
    done = neutralise(few, tmp_path / "out", workers=1)
    assert [dropped.file_name for dropped in done.dropped] == ["photos/0_edit.png"]
    assert "mask" in done.dropped[0].reason
    assert not (done.root / "photos" / "000001_0_edit.jpg").exists()
    assert read_manifest(done.root).table["label"].tolist().count("real") == 3


def test_region_edits_without_a_mask_are_counted(few: Manifest, tmp_path: Path) -> None:
    table = few.table.assign(mask_file_name="")
    settings = NeutraliseSettings(sizes=[(64, 64)])
    done = neutralise(Manifest(few.root, table), tmp_path / "out", settings, workers=1)
    (note,) = done.notes
    assert note.startswith("3 region edits have no mask")


def test_an_unreadable_photo_stops_the_run_or_is_left_out_with_its_pair(
    few: Manifest, tmp_path: Path
) -> None:
    broken = few.path("photos/1.jpg")
    broken.write_bytes(broken.read_bytes()[:2000])  # the header is whole
    with pytest.raises(PhotoError, match=r"photos/1\.jpg"):
        neutralise(few, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "photos" / "000000_0.jpg").is_file()  # what was made is kept
    done = neutralise(few, tmp_path / "out", on_error="skip", workers=2)
    assert done.photos == 4
    assert [dropped.file_name for dropped in done.dropped] == ["photos/1.jpg", "photos/1_edit.png"]
    assert all("photos/1.jpg" in dropped.reason for dropped in done.dropped)


def test_a_file_that_is_no_photo_is_named_before_anything_is_written(
    few: Manifest, tmp_path: Path
) -> None:
    few.path("photos/1.jpg").write_bytes(b"<html>")
    with pytest.raises(PhotoError, match=r"photos/1\.jpg"):
        neutralise(few, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    done = neutralise(few, tmp_path / "out", on_error="skip", workers=1)
    assert "photos/1.jpg" in done.dropped[0].reason
    assert done.photos == 4


def test_a_mask_of_another_size_is_named(few: Manifest, tmp_path: Path) -> None:
    Image.new("L", (10, 10)).save(few.path("masks/2_edit.png"))
    with pytest.raises(ManifestError, match=r"2_edit\.png.*10×10"):
        neutralise(few, tmp_path / "out", workers=2)


def test_the_old_set_is_never_written_into(few: Manifest) -> None:
    before = contents(few.root)
    for out in (few.root, few.root / "below", few.root / "photos" / ".." / "x"):
        with pytest.raises(UsageError) as caught:
            neutralise(few, out, workers=1)
        assert caught.value.code == "inside_source"
    assert contents(few.root) == before


def test_a_folder_that_holds_something_else_is_left_alone(few: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "holiday"
    out.mkdir()
    (out / "me.jpg").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holiday"):
            neutralise(few, out, overwrite=overwrite, workers=1)
    assert contents(out) == {"me.jpg": b"mine"}


def test_other_settings_need_overwrite_which_removes_only_what_was_made(
    few: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    neutralise(few, out, workers=1)
    (out / "photos" / "mine.jpg").write_bytes(b"mine")
    settings = NeutraliseSettings(sizes=[(64, 64)])
    with pytest.raises(UsageError, match="--overwrite"):
        neutralise(few, out, settings, workers=1)
    neutralise(few.subset(np.arange(6) < 4), out, settings, overwrite=True, workers=1)
    assert sorted(path.name for path in (out / "photos").iterdir()) == [
        "000000_0.jpg",
        "000001_0_edit.jpg",
        "000002_1.jpg",
        "000003_1_edit.jpg",
        "mine.jpg",
    ]
    assert json.loads((out / ".parts" / "mark.json").read_text())["settings"]["sizes"] == [[64, 64]]


def test_a_photo_that_changed_since_is_another_set(few: Manifest, tmp_path: Path) -> None:
    neutralise(few, tmp_path / "out", workers=1)
    Image.new("RGB", (120, 100), "red").save(few.path("photos/0.jpg"))
    with pytest.raises(UsageError, match="out"):
        neutralise(few, tmp_path / "out", workers=1)


def test_sizes_that_a_class_cannot_give_are_refused(few: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"'photos/0\.jpg'.*120x100"):
        neutralise(few, tmp_path / "out", NeutraliseSettings(sizes=[(512, 512)]), workers=1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sizes": "large"}, "'large'"),
        ({"sizes": [(64, 16)]}, "64x16"),
        ({"sizes": []}, "sizes"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        NeutraliseSettings(**settings)


def test_a_worker_that_dies_is_told_and_what_was_made_goes_on(
    few: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("realdamage.data.neutralise.decode", lambda path: os._exit(9))
        with pytest.raises(RealDamageError):
            neutralise(few, tmp_path / "out", workers=2)
    assert neutralise(few, tmp_path / "out", workers=1).photos == 6


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the photo sets in ../shared")
def test_real_photos_beside_generated_ones_are_at_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for part, rows in (("photos", 60), ("generated", 50)):
        manifest = read_manifest(SHARED / part)
        (tmp_path / "union").mkdir(exist_ok=True)
        (tmp_path / "union" / part).symlink_to(manifest.root)
        component = components(manifest.table)
        chosen = np.isin(
            component, np.random.default_rng(0).permutation(component.max() + 1)[:rows]
        )
        table = manifest.table[chosen].assign(part=part)
        for column in ("file_name", "pair", "group"):
            table[column] = table[column].where(table[column] == "", f"{part}/" + table[column])
        tables.append(table)
    write_manifest(tmp_path / "union", pd.concat(tables, ignore_index=True).fillna(""))
    union = read_manifest(tmp_path / "union")
    assert told_by_the_container(union, monkeypatch).low > 0.9
    done = neutralise(union, tmp_path / "out")
    assert len(done.dropped) < 0.1 * len(union)
    after = told_by_the_container(read_manifest(done.root), monkeypatch)
    assert after.low <= LIMIT
    assert after.auroc < 0.6
