"""Every layout becomes the same kind of manifest; what fits none is named."""

import pandas as pd
import pytest

from realdamage.data.manifest import read_manifest
from realdamage.data.readers import (
    Reader,
    find_layout,
    read_dataset,
    reader_from_yaml,
    write_metadata,
)
from realdamage.data.vocabulary import KNOWN_COLUMNS
from realdamage.errors import ConfigError, ManifestError, MissingManifestError


@pytest.fixture
def touch(tmp_path):
    """`touch(names…)` makes empty files in a folder, which it returns: no reader opens a photo."""

    def make(*names):
        root = tmp_path / "set"
        root.mkdir(exist_ok=True)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    return make


def records(table, *columns):
    return list(table[list(columns)].itertuples(index=False, name=None))


# --- Tables ---


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_reads_the_same_from_both_forms(touch, suffix):
    root = touch("a.jpg", "x/b.jpg", "x/b_mask.png")
    rows = [
        {"file_name": "a.jpg", "label": "real", "area": None, "count": 3},
        {"file_name": "x/b.jpg", "label": "synthetic", "pair": "a.jpg", "area": 0.25, "count": 4},
    ]
    frame = pd.DataFrame(rows).assign(mask_file_name=[None, "x/b_mask.png"])
    path = root / f"metadata.{suffix}"
    if suffix == "csv":
        frame.to_csv(path)  # pandas writes its index as a column without a name
    else:
        frame.to_parquet(path)
    manifest = read_dataset(path)
    assert (find_layout(path), manifest.root) == ("table", root)
    assert list(manifest.table.columns) == [*KNOWN_COLUMNS, "area", "count"]
    columns = ("file_name", "label", "kind", "group", "mask_file_name", "area", "count")
    assert records(manifest.table, *columns) == [
        ("a.jpg", "real", "original", "a.jpg", "", "", "3"),
        ("x/b.jpg", "synthetic", "", "a.jpg", "x/b_mask.png", "0.25", "4"),
    ]


# --- Folders named after labels ---


def test_folders_of_any_name_and_depth_also_in_folders_of_splits(touch):
    root = touch("Real/a.jpg", "authentic/deep/er/b.PNG", "fake/a.jpg", "valid/AI/c.webp")
    touch("real/notes.txt", "real/.hidden.jpg", "test/real/d.jpg")
    assert find_layout(root) == "folders"
    table = read_dataset(root, Reader(constants={"source": "shop"})).table
    assert set(table["source"]) == {"shop"}
    assert records(table, "file_name", "label", "kind", "group", "split") == [
        ("Real/a.jpg", "real", "original", "Real/a.jpg", ""),
        ("authentic/deep/er/b.PNG", "real", "original", "authentic/deep/er/b.PNG", ""),
        ("fake/a.jpg", "synthetic", "", "fake/a.jpg", ""),
        ("test/real/d.jpg", "real", "original", "test/real/d.jpg", "test"),
        ("valid/AI/c.webp", "synthetic", "", "valid/AI/c.webp", "val"),
    ]


def test_photos_that_are_all_real_make_a_manifest(touch):
    root = touch("d.jpg", "e/f.png", "e/notes.txt", "real/a.jpg")
    with pytest.raises(ManifestError, match="outside of the folders"):
        read_dataset(root)
    table = read_dataset(root, Reader("real")).table
    assert records(table, "file_name", "label", "kind", "condition") == [
        ("d.jpg", "real", "original", ""),
        ("e/f.png", "real", "original", ""),
        ("real/a.jpg", "real", "original", ""),
    ]


# --- FraudBench ---

REVIEW = "Home & Kitchen/{}/Review_7/IMG_1{}"


def test_fraudbench_has_category_generator_and_review(touch):
    negative, positive = REVIEW.format("Negative", ".jpg"), REVIEW.format("Positive", ".jpg")
    qwen = REVIEW.format("DeepFake/qwen-image-edit-max", ".png")
    wan = REVIEW.format("DeepFake/wan2.7-image-pro", ".png")
    root = touch(negative, qwen, wan, "Books/Negative/Review_7/IMG_1.jpg")
    touch("Home & Kitchen/Negative/Review_7/MetaReview_7.json")
    manifest = read_dataset(root)
    assert find_layout(root) == "fraudbench"
    assert set(manifest.table["source"]) == {"fraudbench"}
    columns = ("file_name", "label", "kind", "condition", "generator", "family", "group")
    group = "Home & Kitchen/Review_7"
    damaged = ("real", "damaged", "damaged", "", "")
    assert records(manifest.table, *columns) == [
        ("Books/Negative/Review_7/IMG_1.jpg", *damaged, "Books/Review_7"),
        (qwen, "synthetic", "ai_whole", "intact", "qwen-image-edit-max", "qwen", group),
        (wan, "synthetic", "ai_whole", "intact", *["wan2.7-image-pro"] * 2, group),
        (negative, *damaged, group),
    ]
    # Both classes show damage, so that damage does not separate them.
    assert set(manifest.table["damage"]) == {"other"}
    assert set(manifest.table["category"]) == {"Books", "Home & Kitchen"}
    # The negative review of the same number is another product, so an edit is not its pair.
    assert set(manifest.table["pair"]) == {""}
    touch(positive)
    found = records(read_dataset(root).table, "file_name", "kind", "condition", "damage", "pair")
    assert (positive, "original", "intact", "", "") in found
    assert (qwen, "ai_whole", "intact", "other", positive) in found
    touch(REVIEW.format("Positive", ".webp"))  # which of the two was edited is unknown
    assert set(read_dataset(root).table["pair"]) == {""}


# --- Tables with other columns ---

FAKE = {"file_name": "path", "label": "fake"}
MAPPING = """
columns:
  file_name: path
  label: fake
  group: product
values:
  label: {0: real, yes: synthetic}
constants:
  source: acme
"""
SHOTS = (
    "path,fake,product,label,source,price\na.jpg,0,12,what,them,3.5\nx/b.jpg,yes,12,else,them,\n"
)


@pytest.fixture
def table(touch, tmp_path):
    root = touch("a.jpg", "x/b.jpg")
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    path = root / "shots.csv"
    path.write_text(SHOTS)
    return path


def test_a_mapping_renames_columns_and_words(table, tmp_path):
    manifest = read_dataset(table, reader_from_yaml(tmp_path / "mapping.yaml"))
    assert manifest.root == table.parent
    assert records(manifest.table, "file_name", "label", "group", "source", "price") == [
        ("a.jpg", "real", "12", "acme", "3.5"),
        ("x/b.jpg", "synthetic", "12", "acme", ""),
    ]
    assert not {"path", "product"} & set(manifest.table)


def test_absolute_paths_are_taken_relative_to_a_folder(touch, tmp_path):
    root = touch("shop/a.jpg", "shop/b.jpg", "masks/b.png")
    link = tmp_path / "link"
    link.symlink_to(root)
    table = tmp_path / "elsewhere.csv"

    def write(first, then):
        table.write_text(
            f"file_name,label,pair,mask_file_name\n{first}/shop/a.jpg,real,,\n"
            f"{then}/shop/b.jpg,synthetic,{first}/shop/a.jpg,masks/b.png\n"
        )

    expected = [("shop/a.jpg", "", ""), ("shop/b.jpg", "shop/a.jpg", "masks/b.png")]
    for given in (root, link):
        write(given.resolve(), given)
        reader = Reader(layout="table", relative_to=str(given))
        found = read_dataset(table, reader)
        assert records(found.table, "file_name", "pair", "mask_file_name") == expected
        assert found.root == given
    assert write_metadata(table, reader)[0] == link / "metadata.csv"
    assert read_manifest(root).table["pair"].tolist() == ["", "shop/a.jpg"]
    write(root, "/other")
    with pytest.raises(ManifestError) as caught:
        read_dataset(table, Reader(layout="table", relative_to=str(root)))
    assert (caught.value.code, "row 3" in str(caught.value)) == ("outside", True)
    with pytest.raises(ConfigError, match="relative_to"):
        read_dataset(table, Reader(layout="table", relative_to=str(tmp_path / "gone")))


def test_a_wrong_mapping_is_named(table, tmp_path):
    path = tmp_path / "mapping.yaml"
    for mapping, named in (
        ("columns: {lable: fake}", "columns.lable.*'label'"),
        ("columns: [label]", "columns, values and constants"),
        ("values: label", "columns, values and constants"),
        ("colums: {label: fake}", "'colums'.*'columns'"),
        ("", "layout, columns"),
        ("layout: folder", "'folder'.*'folders'"),
        ("a: [", "YAML"),
    ):
        path.write_text(mapping)
        with pytest.raises(ConfigError, match=named) as caught:
            reader_from_yaml(path)
        assert str(path) in str(caught.value)
    # Some fit no column or word of their table.
    zero = {"label": {"0": "real"}}
    for reader, named in (
        (Reader(columns={**FAKE, "file_name": "pth"}), "'pth'.*'path'"),
        (Reader(columns=FAKE, values=zero), "row 3, column label: found 'yes'"),
        (Reader(), "'file_name'.*mapped"),
    ):
        with pytest.raises((ManifestError, ConfigError), match=named):
            read_dataset(table, reader)


# --- What cannot be read ---


@pytest.mark.parametrize(
    ("names", "layout", "named"),
    [
        ((), "auto", "real, authentic"),
        (("a.txt",), "real", "no photos"),
        (("a.jpg", "b/c.jpg", "b/metadata.csv"), "real", r"b/metadata\.csv"),
        (("real/a.jpg", "fake/b.jpg", "c.jpg", "unsure/d.jpg"), "auto", "2 photos.*'c.jpg'"),
        (("x/Negative/Review_1/a.jpg",), "fraudbench", "1 real and 0 synthetic"),
        (("real/a.jpg",), "table", "not a file"),
    ],
)
def test_a_folder_of_no_or_half_a_layout_is_named(touch, names, layout, named):
    with pytest.raises(ManifestError, match=named):
        read_dataset(touch(*names), Reader(layout))


def test_missing_paths_and_mappings_without_a_table_are_refused(touch):
    root = touch("real/a.jpg", "fake/b.jpg")
    for layout in ("auto", "table", "folders", "manifest"):
        with pytest.raises(MissingManifestError, match="nowhere"):
            read_dataset(root / "nowhere", Reader(layout))
    with pytest.raises(ConfigError, match="layout folders"):
        read_dataset(root, Reader(columns={"label": "x"}))
