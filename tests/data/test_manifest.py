"""The manifest is read as it was written, and every breach of its contract is named."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import read_manifest, read_mask, write_manifest
from realdamage.data.vocabulary import KNOWN_COLUMNS
from realdamage.errors import ManifestError, MissingManifestError


@pytest.fixture
def write_folder(tmp_path):
    """`write_folder(csv_text, files=(…))` writes metadata.csv and empty files, because reading a
    manifest opens none."""

    def write(text, files=("a.jpg", "b.jpg", "c.jpg")):
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


def test_a_csv_is_read_as_text_and_what_follows_is_filled_in(write_folder):
    """It has a BOM, quotes, a blank line, columns of its own and one without a name."""
    text = (
        "\ufefffile_name,label,kind,condition,group,pair,camera,\r\n"
        'a.jpg,real,,damaged,0012,,"two\nlines",0\r\n\r\n'
        '"b,1.jpg",real,,intact,,,"said ""no""",1\r\n'
        "c.jpg,synthetic,,,,a.jpg,,2\r\n"
        "d.jpg,real,annotated,damaged,,,NA,3\r\n"
    )
    folder = write_folder(text, files=("a.jpg", "b,1.jpg", "c.jpg", "d.jpg"))
    table = read_manifest(folder).table
    assert list(table.columns) == [*KNOWN_COLUMNS, "camera"]  # an index of pandas has no name
    assert table["file_name"].tolist() == ["a.jpg", "b,1.jpg", "c.jpg", "d.jpg"]
    assert table["camera"].tolist() == ["two\nlines", 'said "no"', "", "NA"]
    assert table["licence"].tolist() == [""] * 4
    assert table["kind"].tolist() == ["damaged", "original", "", "annotated"]
    assert table["group"].tolist() == ["0012", "b,1.jpg", "0012", "d.jpg"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("file_name,label\na.jpg,real\nb.jpg,fake\n", "row 3, column label: found 'fake'"),
        ("file_name,label\na.jpg,Real\n", "Did you mean 'real'?"),
        ("file_name,label,kind\na.jpg,real,pasted\n", "row 2, column kind"),
        ("file_name,label,kind,condition\na.jpg,real,damaged,intact\n", "column condition"),
        ("file_name,label,generator\na.jpg,real,sd3\n", "column generator: found 'sd3'"),
        ("file_name,label,sha256\na.jpg,real,ABC\n", "column sha256: found 'ABC'"),
        ("file_name,label\n,real\n", "row 2, column file_name"),
        ("file_name,label\n/etc/passwd,real\n", "column file_name"),
        ("file_name,label\nx\\..\\..\\a.jpg,real\n", "forward slashes"),
        ("file_name,label,mask_file_name\na.jpg,synthetic,../m.png\n", "column mask_file_name"),
        ("file_name,label\na.jpg,real\nb.jpg,real\na.jpg,real\n", "already in row 2"),
        ("file_name,label\na.jpg,real\nz.jpg,real\n", "row 3, column file_name: 'z.jpg'"),
        ("file_name,label,pair\na.jpg,synthetic,bb.jpg\nb.jpg,real,\n", "column pair: 'bb.jpg'"),
        ("file_name,label,pair\na.jpg,real,a.jpg\n", "column pair: 'a.jpg'"),
        ('file_name,label\n"a.jpg,real\n', "row 1"),
        ("file_name,label\n", "no rows"),
        ("filename,label\na.jpg,real\n", "Rename 'filename'"),
        ("file_name,label,label\na.jpg,real,real\n", "'label' occurs twice"),
        (b"file_name,label\na.jpg,real\nb\xe9.jpg,real\n", "not UTF-8"),
    ],
)
def test_a_broken_rule_is_named(write_folder, text, named):
    folder = write_folder(text, files=("a.jpg", "b.jpg", "c.jpg", "x/a.jpg"))
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    assert named in str(caught.value)
    assert str(folder / "metadata.csv") in str(caught.value)


def test_a_path_without_a_manifest_says_what_to_do(tmp_path):
    (tmp_path / "photo.JPG").touch()
    with pytest.raises(ManifestError, match="file_name,label"):
        read_manifest(tmp_path)
    with pytest.raises(MissingManifestError, match="nowhere"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"photo\.JPG: not a CSV file"):
        read_manifest(tmp_path / "photo.JPG")


def test_what_is_written_is_read_back(tmp_path):
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
    # The Hugging Face reader would read columns without a value as numbers.
    assert path.read_text().splitlines()[0] == "file_name,label,pair,mask_file_name,area"
    back = read_manifest(tmp_path, check_files=False)
    assert back.table["area"].tolist() == ["0.25", ""]
    assert back.table["pair"].tolist() == ["b.jpg", ""]
    # The digest depends on the content alone, not on the order of rows and columns.
    same, other = back.table.iloc[::-1, ::-1], back.table.assign(area="0.5")
    for number, (variant, is_equal) in enumerate(((same, True), (other, False))):
        write_manifest(tmp_path / str(number), variant)
        again = read_manifest(tmp_path / str(number), check_files=False)
        assert (again.digest() == back.digest()) == is_equal


def test_a_table_that_breaks_the_contract_is_not_written(tmp_path):
    with pytest.raises(ManifestError, match="row 2, column label: found 'fake'"):
        write_manifest(tmp_path, pd.DataFrame({"file_name": ["a.jpg"], "label": ["fake"]}))
    with pytest.raises(ManifestError, match="no rows"):
        write_manifest(tmp_path, pd.DataFrame({"file_name": [], "label": []}))
    assert list(tmp_path.iterdir()) == []


def _with_mask(folder, mask):
    mask.save(folder / "m.png")
    names, masks = ["a.jpg", "b.jpg"], ["m.png", ""]
    table = pd.DataFrame({"file_name": names, "label": "synthetic", "mask_file_name": masks})
    write_manifest(folder, table)
    return read_manifest(folder, check_files=False)


@pytest.mark.parametrize("mode", ["1", "P", "RGB"])
def test_a_mask_is_true_where_it_is_bright(tmp_path, mode):
    expected = np.zeros((4, 6), dtype=bool)
    expected[1:3, 2:5] = True
    image = Image.fromarray(np.where(expected, 255, 0).astype(np.uint8)).convert(mode)
    np.testing.assert_array_equal(read_mask(_with_mask(tmp_path, image), 0, (4, 6)), expected)


def test_a_mask_that_is_missing_unreadable_or_does_not_fit_is_named(tmp_path):
    for mask, named in (
        (Image.new("L", (4, 6)), r"m\.png.*4×6 pixels.*'a\.jpg' is 6×4"),
        (Image.new("L", (6, 4), 1), "0 and 255"),
        (Image.new("I;16", (6, 4)), "mode I;16"),
    ):
        with pytest.raises(ManifestError, match=named):
            read_mask(_with_mask(tmp_path, mask), 0, (4, 6))
    manifest = _with_mask(tmp_path, Image.new("L", (6, 4)))
    with pytest.raises(ManifestError, match=r"'b\.jpg'"):
        read_mask(manifest, 1, (4, 6))
    (tmp_path / "m.png").write_bytes(b"not a picture")
    with pytest.raises(ManifestError, match=r"m\.png.*'a\.jpg'"):
        read_mask(manifest, 0, (4, 6))
