"""The manifest is read as it was written, and everything that breaks its contract is named."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import (
    KNOWN_COLUMNS,
    Manifest,
    read_manifest,
    read_mask,
    write_manifest,
)
from realdamage.errors import ManifestError, RealDamageError

WriteFolder = Callable[..., Path]
SHARED = Path(__file__).parents[3] / "shared"


def test_missing_columns_are_empty_and_extra_ones_pass_through(write_folder: WriteFolder) -> None:
    folder = write_folder("file_name,label,camera\na.jpg,real,Pixel 9\nb.jpg,synthetic,\n")
    table = read_manifest(folder).table
    assert list(table.columns) == [*KNOWN_COLUMNS, "camera"]
    assert table["camera"].tolist() == ["Pixel 9", ""]
    assert table["licence"].tolist() == ["", ""]


def test_kind_and_group_follow_from_the_rest(write_folder: WriteFolder) -> None:
    folder = write_folder(
        "file_name,label,kind,condition,group,pair\n"
        "a.jpg,real,,damaged,shoe,\n"
        "b.jpg,real,,intact,,\n"
        "c.jpg,synthetic,,,,a.jpg\n"
        "d.jpg,real,annotated,damaged,,\n",
        files=("a.jpg", "b.jpg", "c.jpg", "d.jpg"),
    )
    table = read_manifest(folder).table
    assert table["kind"].tolist() == ["damaged", "original", "", "annotated"]
    assert table["group"].tolist() == ["shoe", "b.jpg", "shoe", "d.jpg"]


def test_a_csv_of_another_name_is_read_relative_to_its_folder(write_folder: WriteFolder) -> None:
    folder = write_folder("file_name,label\na.jpg,real\n")
    other = folder / "held_out.csv"
    other.write_text("file_name,label\nb.jpg,real\n")
    manifest = read_manifest(other)
    assert manifest.path(manifest.table["file_name"][0]) == folder / "b.jpg"


def test_a_byte_order_mark_blank_lines_and_quoted_cells_are_read(write_folder: WriteFolder) -> None:
    text = b'\xef\xbb\xbffile_name,label,note\r\n"a,1.jpg",real,"two\nlines"\r\n\r\nb.jpg,real,"said ""no"""\r\n'
    table = read_manifest(write_folder(text, files=("a,1.jpg", "b.jpg"))).table
    assert table["file_name"].tolist() == ["a,1.jpg", "b.jpg"]
    assert table["note"].tolist() == ["two\nlines", 'said "no"']


def test_words_that_mean_missing_elsewhere_stay_words(write_folder: WriteFolder) -> None:
    table = read_manifest(write_folder("file_name,label,source,group\na.jpg,real,NA,0012\n")).table
    assert (table["source"][0], table["group"][0]) == ("NA", "0012")


BAD_ROWS = {
    "a wrong label": (
        "file_name,label\na.jpg,real\nb.jpg,fake\n",
        "row 3, column label: found 'fake'; allowed: real, synthetic",
    ),
    "a near match": ("file_name,label\na.jpg,Real\n", "Did you mean 'real'?"),
    "an empty label": (
        "file_name,label\na.jpg,\n",
        "row 2, column label: found ''; allowed: real, synthetic",
    ),
    "a wrong kind": (
        "file_name,label,kind\na.jpg,synthetic,ai_regions\n",
        "Did you mean 'ai_region'?",
    ),
    "a kind of the other label": (
        "file_name,label,kind\na.jpg,real,pasted\n",
        "'pasted' is a kind of synthetic photo",
    ),
    "a wrong damage": ("file_name,label,damage\na.jpg,real,crack\n", "allowed: cracked, scratched"),
    "a wrong condition": (
        "file_name,label,condition\na.jpg,real,broken\n",
        "allowed: intact, damaged, unknown, or empty",
    ),
    "damaged yet intact": (
        "file_name,label,kind,condition\na.jpg,real,damaged,intact\n",
        "beside kind 'damaged'",
    ),
    "a wrong split": (
        "file_name,label,split\na.jpg,real,dev\n",
        "allowed: train, val, test, policy, or empty",
    ),
    "a generator on a real photo": (
        "file_name,label,generator\na.jpg,real,sd3\n",
        "column generator: found 'sd3'",
    ),
    "a wrong digest": (
        "file_name,label,sha256\na.jpg,real,ABC\n",
        "64 lower-case hexadecimal digits",
    ),
    "an empty file name": ("file_name,label\n,real\n", "row 2, column file_name: is empty"),
    "a path that leaves the root": (
        "file_name,label\n../a.jpg,real\n",
        "which leaves the folder of the manifest",
    ),
    "a path that leaves it on a detour": (
        "file_name,label\nx/../../a.jpg,real\n",
        "which leaves the folder",
    ),
    "an absolute path": ("file_name,label\n/etc/passwd,real\n", "an absolute path"),
    "a drive letter": ("file_name,label\nC:/a.jpg,real\n", "an absolute path"),
    "backslashes": ("file_name,label\nx\\..\\..\\a.jpg,real\n", "forward slashes"),
    "a mask outside": (
        "file_name,label,mask_file_name\na.jpg,synthetic,../m.png\n",
        "column mask_file_name: found '../m.png'",
    ),
    "a path that is not plain": (
        "file_name,label\n./x/../a.jpg,real\n",
        "write the same path plainly: 'a.jpg'",
    ),
    "a duplicate row": (
        "file_name,label\na.jpg,real\nb.jpg,real\na.jpg,real\n",
        "row 4, column file_name: 'a.jpg' is already in row 2",
    ),
    "a missing file": (
        "file_name,label\na.jpg,real\nz.jpg,real\n",
        "row 3, column file_name: 'z.jpg' is not a file under",
    ),
    "a file of another ending": (
        "file_name,label\na.JPEG,real\n",
        "There is 'a.jpg'; did you mean that?",
    ),
    "a missing folder": (
        "file_name,label\nnowhere/a.jpg,real\n",
        "'nowhere/a.jpg' is not a file under",
    ),
    "a missing mask": (
        "file_name,label,mask_file_name\na.jpg,synthetic,m.png\n",
        "column mask_file_name: 'm.png' is not a file",
    ),
    "a pair without a row": (
        "file_name,label,pair\na.jpg,synthetic,bb.jpg\nb.jpg,real,\n",
        "names no row of this manifest. Did you mean 'b.jpg'?",
    ),
    "a pair like its own name": (
        "file_name,label,pair\nmug_edit.jpg,synthetic,mug_edit2.jpg\nbox.jpg,real,\n",
        "names no row of this manifest. Add the original's row",
    ),
    "a pair with itself": ("file_name,label,pair\na.jpg,real,a.jpg\n", "'a.jpg' is the row itself"),
    "a ragged row": (
        "file_name,label\na.jpg,real\nb.jpg,real,trashnet\n",
        "row 3: 3 values, but there are 2 columns",
    ),
    "an open quote": ('file_name,label\n"a.jpg,real\n', "row 2: not valid CSV"),
    "no rows": ("file_name,label\n", "no rows below the column names"),
    "an empty file": ("", "the column 'file_name' is missing; found: nothing"),
    "a missing column": (
        "filename,label\na.jpg,real\n",
        "'file_name' is missing; found: 'filename', 'label'. Rename 'filename'",
    ),
    "no label column": ("file_name,kind\na.jpg,original\n", "the column 'label' is missing"),
    "semicolons": ("file_name;label\na.jpg;real\n", "separated by ';'"),
    "a column twice": (
        "file_name,label,label\na.jpg,real,real\n",
        "the column 'label' occurs twice",
    ),
    "a column without a name": ("file_name,label,\na.jpg,real,x\n", "column 3 has no name"),
    "not UTF-8": (b"file_name,label\na.jpg,real\nb\xe9.jpg,real\n", "row 3: not UTF-8 (byte 0xe9)"),
}


@pytest.mark.parametrize(("text", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_broken_rule_is_named(write_folder: WriteFolder, text: str | bytes, message: str) -> None:
    folder = write_folder(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    assert message in str(caught.value)
    assert str(folder / "metadata.csv") in str(caught.value)


def test_the_row_named_is_the_line_of_the_file_even_after_a_cell_of_two_lines(
    write_folder: WriteFolder,
) -> None:
    folder = write_folder('file_name,label,note\na.jpg,real,"two\nlines"\n\nb.jpg,fake,\n')
    with pytest.raises(ManifestError, match=r"row 5, column label"):
        read_manifest(folder)


def test_the_other_rows_with_the_same_fault_are_counted(write_folder: WriteFolder) -> None:
    folder = write_folder("file_name,label\n" + "".join(f"{i}.jpg,fake\n" for i in range(12)))
    with pytest.raises(ManifestError, match="11 more rows with the same fault"):
        read_manifest(folder)


def test_a_folder_instead_of_a_photo_is_missing(write_folder: WriteFolder) -> None:
    folder = write_folder("file_name,label\nx,real\n", files=("x/a.jpg",))
    with pytest.raises(ManifestError, match="'x' is not a file"):
        read_manifest(folder)


def test_files_are_not_looked_for_when_not_asked(write_folder: WriteFolder) -> None:
    folder = write_folder("file_name,label\nnowhere/z.jpg,real\n")
    assert len(read_manifest(folder, check_files=False)) == 1


def test_a_symbolic_link_inside_the_folder_is_followed(
    write_folder: WriteFolder, tmp_path: Path
) -> None:
    folder = write_folder("file_name,label\nlinked/a.jpg,real\n", files=())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").touch()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert len(read_manifest(folder)) == 1


def test_each_folder_is_listed_once(
    write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tuple(f"{folder}/{i}.jpg" for folder in ("x", "y") for i in range(50))
    folder = write_folder(
        "file_name,label\n" + "".join(f"{name},real\n" for name in files), files=files
    )
    listed: list[Path] = []
    scandir = os.scandir

    def count(path: Path) -> object:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", count)
    read_manifest(folder)
    assert sorted(listed) == [folder / "x", folder / "y"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "(no photos below it). Write one beside the photos"),
        (
            lambda folder: (folder / "a.JPG").touch(),
            "(1 photos below it). Write one beside the photos",
        ),
        (
            lambda folder: (folder / "set").mkdir() or (folder / "set/metadata.csv").touch(),
            "Name that folder.",
        ),
    ],
)
def test_a_folder_without_a_manifest_says_what_to_do(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path)
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value)


def test_a_path_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ManifestError, match="no such file or folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match="not a CSV file"):
        read_manifest(tmp_path / "photo.jpg")


def test_a_column_that_looks_misspelt_is_warned_about(
    write_folder: WriteFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_folder("file_name,label,groups,category\na.jpg,real,shoe,shoes\n")
    with caplog.at_level(logging.WARNING):
        read_manifest(folder)
    assert len(caplog.records) == 1
    assert (
        "'groups' is not a known column and is left as it is; did you mean 'group'?" in caplog.text
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "area": [0.25, np.nan],
            "label": ["synthetic", "real"],
            "pair": ["b.jpg", None],
            "file_name": ["x/a.jpg", "b.jpg"],
            "mask_file_name": ["x/a_mask.png", ""],
            "damage": ["", ""],
        }
    )
    path = write_manifest(tmp_path, table)
    assert path == tmp_path / "metadata.csv"
    # Columns without a value would be read as numbers by the Hugging Face reader.
    assert path.read_text().splitlines()[0] == "file_name,label,pair,mask_file_name,area"
    back = read_manifest(tmp_path, check_files=False)
    assert back.table["area"].tolist() == ["0.25", ""]
    assert back.table["pair"].tolist() == ["b.jpg", ""]
    write_manifest(tmp_path / "again", back.table)
    assert read_manifest(tmp_path / "again", check_files=False).digest() == back.digest()


def test_a_table_that_breaks_the_contract_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="row 2, column label: found 'fake'"):
        write_manifest(tmp_path, pd.DataFrame({"file_name": ["a.jpg"], "label": ["fake"]}))
    with pytest.raises(ManifestError, match="no rows"):
        write_manifest(tmp_path, pd.DataFrame({"file_name": [], "label": []}))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame({"file_name": ["a.jpg"], "label": ["real"]})
    before = write_manifest(tmp_path, table).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RealDamageError, match="No space left"):
        write_manifest(tmp_path, table.assign(label="synthetic"))
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.csv"]
    assert (tmp_path / "metadata.csv").read_bytes() == before


def test_beyond_ten_thousand_rows_those_with_a_mask_are_spread_out(tmp_path: Path) -> None:
    n = 12_000
    table = pd.DataFrame(
        {"file_name": [f"{i:05}.jpg" for i in range(n)], "label": "real", "mask_file_name": ""}
    )
    table.loc[n - 12 :, ["label", "mask_file_name"]] = ["synthetic", "m.png"]
    write_manifest(tmp_path, table)
    written = read_manifest(tmp_path, check_files=False).table
    at = np.flatnonzero(written["mask_file_name"] != "")
    assert len(written) == n
    assert len(at) == 12
    assert np.diff(at).max() <= 1_001


def test_a_subset_is_renumbered_and_a_split_selected(write_folder: WriteFolder) -> None:
    manifest = read_manifest(
        write_folder("file_name,label,split\na.jpg,real,train\nb.jpg,real,val\nc.jpg,real,val\n")
    )
    chosen = manifest.select(split="val")
    assert chosen.table["file_name"].tolist() == ["b.jpg", "c.jpg"]
    assert chosen.table.index.tolist() == [0, 1]
    assert manifest.subset(np.array([True, False, False])).table["file_name"].tolist() == ["a.jpg"]
    with pytest.raises(
        ManifestError, match=r"no photo has split 'test' \(photos per split: val: 2, train: 1\)"
    ):
        manifest.select(split="test")


def test_the_digest_depends_on_content_alone(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"file_name": ["a.jpg", "b.jpg"], "label": ["real", "synthetic"], "z": "1", "y": "2"}
    )
    digests = []
    for name, variant in {
        "same": table,
        "reordered": table.iloc[::-1][["z", "label", "y", "file_name"]],
        "relabelled": table.assign(label="real"),
    }.items():
        write_manifest(tmp_path / name, variant)
        digests.append(read_manifest(tmp_path / name, check_files=False).digest())
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 64


def _with_mask(folder: Path, mask: Image.Image) -> Manifest:
    folder.mkdir(exist_ok=True)
    mask.save(folder / "m.png")
    table = pd.DataFrame(
        {"file_name": ["a.jpg", "b.jpg"], "label": "synthetic", "mask_file_name": ["m.png", ""]}
    )
    write_manifest(folder, table)
    return read_manifest(folder, check_files=False)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_mask_is_true_where_it_is_bright(tmp_path: Path, mode: str) -> None:
    expected = np.zeros((4, 6), dtype=bool)
    expected[1:3, 2:5] = True
    manifest = _with_mask(
        tmp_path, Image.fromarray(np.where(expected, 255, 0).astype(np.uint8)).convert(mode)
    )
    np.testing.assert_array_equal(read_mask(manifest, 0, (4, 6)), expected)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (6, 5)), r"m\.png: the mask is 6×5 pixels, but its photo 'a\.jpg' is 6×4"),
        (Image.new("L", (4, 6)), "the mask is 4×6 pixels"),
        (Image.new("L", (6, 4), 1), "values are 0 and 1. Write 0 and 255"),
        (Image.new("I;16", (6, 4)), "a mask of mode I;16. Save it as 8-bit greyscale"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(
    tmp_path: Path, mask: Image.Image, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        read_mask(_with_mask(tmp_path, mask), 0, (4, 6))


def test_no_mask_and_an_unreadable_one_are_named(tmp_path: Path) -> None:
    manifest = _with_mask(tmp_path, Image.new("L", (6, 4)))
    with pytest.raises(ManifestError, match=r"'b\.jpg' has no mask"):
        read_mask(manifest, 1, (4, 6))
    (tmp_path / "m.png").write_bytes(b"not a picture")
    with pytest.raises(ManifestError, match=r"m\.png: the mask of 'a\.jpg' cannot be read"):
        read_mask(manifest, 0, (4, 6))


@pytest.mark.shared
@pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the photo sets that lie beside the checkout in ../shared"
)
@pytest.mark.parametrize(
    ("name", "photos"), [("photos", 2728), ("generated", 530), ("foreign", 87)]
)
def test_the_shared_sets_are_valid(name: str, photos: int) -> None:
    assert len(read_manifest(SHARED / name)) == photos
