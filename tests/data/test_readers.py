"""Every layout becomes the same kind of manifest, and what fits none is told what would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from realdamage.commands.cli import main
from realdamage.data.manifest import KNOWN_COLUMNS, read_manifest
from realdamage.data.mapping import LAYOUTS
from realdamage.data.readers import (
    Reader,
    find_layout,
    read_dataset,
    reader_from_mapping,
    reader_from_yaml,
)
from realdamage.errors import ConfigError, ManifestError, UsageError

Touch = Callable[..., Path]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """`touch(names…)` makes empty files in a folder, which it returns: no reader opens a photo."""

    def make(*names: str) -> Path:
        root = tmp_path / "set"
        for name in ("", *names):
            path = root / name
            (path.parent if name else path).mkdir(parents=True, exist_ok=True)
            if name:
                path.touch()
        return root

    return make


def records(table: pd.DataFrame, *columns: str) -> list[tuple[str, ...]]:
    return list(table[list(columns)].itertuples(index=False, name=None))


def write_jsonl(path: Path, *objects: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")


# --- image folders ---


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_image_folder_reads_the_same_from_every_form(touch: Touch, suffix: str) -> None:
    root = touch("a.jpg", "x/b.jpg", "x/b_mask.png")
    frame = pd.DataFrame(
        {
            "file_name": ["a.jpg", "x/b.jpg"],
            "label": ["real", "synthetic"],
            "mask_file_name": [None, "x/b_mask.png"],
            "pair": [None, "a.jpg"],
            "area": [None, 0.25],
            "count": [3, 4],
            "checked": [True, False],
        }
    )
    if suffix == "csv":
        frame.to_csv(root / "metadata.csv")  # pandas writes its index as a column without a name
    elif suffix == "jsonl":
        frame.to_json(root / "metadata.jsonl", orient="records", lines=True)
    else:
        frame.to_parquet(root / "metadata.parquet")
    manifest = read_dataset(root)
    assert find_layout(root) == ("manifest" if suffix == "csv" else "imagefolder")
    assert manifest.root == root
    assert list(manifest.table.columns) == [*KNOWN_COLUMNS, "area", "count", "checked"]
    columns = ("file_name", "label", "kind", "group", "mask_file_name", "area", "count")
    assert records(manifest.table, *columns) == [
        ("a.jpg", "real", "original", "a.jpg", "", "", "3"),
        ("x/b.jpg", "synthetic", "", "a.jpg", "x/b_mask.png", "0.25", "4"),
    ]
    assert [word.lower() for word in manifest.table["checked"]] == ["true", "false"]


def test_split_folders_become_one_manifest_that_looks_down_on_them(touch: Touch) -> None:
    names = ("a.jpg", "b.jpg", "m.png")
    root = touch(*(f"{folder}/{name}" for folder in ("Train", "dev", "test") for name in names))
    rows = [
        {"file_name": "a.jpg", "label": "real", "group": "shoe"},
        {"file_name": "b.jpg", "label": "synthetic", "pair": "a.jpg", "mask_file_name": "m.png"},
    ]
    for folder in ("Train", "dev"):
        write_jsonl(root / folder / "metadata.jsonl", *rows)
    write_jsonl(
        root / "test/metadata.jsonl",
        {"file_name": "b.jpg", "label": "real", "split": "test", "camera": "X1"},
    )
    manifest = read_dataset(root)
    columns = ("file_name", "split", "pair", "mask_file_name", "group", "camera")
    assert records(manifest.table, *columns) == [
        ("Train/a.jpg", "train", "", "", "shoe", ""),
        ("Train/b.jpg", "train", "Train/a.jpg", "Train/m.png", "shoe", ""),
        ("dev/a.jpg", "val", "", "", "shoe", ""),
        ("dev/b.jpg", "val", "dev/a.jpg", "dev/m.png", "shoe", ""),
        # A group of its own, although photos of this name lie in the other folders too.
        ("test/b.jpg", "test", "", "", "test/b.jpg", "X1"),
    ]


def test_a_fault_in_a_split_folder_is_named_in_its_own_file(touch: Touch) -> None:
    root = touch("train/a.jpg", "val/b.jpg")
    write_jsonl(root / "train/metadata.jsonl", {"file_name": "a.jpg", "label": "real"})
    bad = root / "val/metadata.jsonl"
    write_jsonl(bad, {"file_name": "z.jpg", "label": "real"})
    with pytest.raises(
        ManifestError, match=r"val/metadata\.jsonl, row 1, column file_name: 'z\.jpg' is not a file"
    ):
        read_dataset(root)
    assert len(read_dataset(root, check_files=False)) == 2
    write_jsonl(bad, {"file_name": "b.jpg", "label": "real", "split": "train"})
    with pytest.raises(
        ManifestError, match=r"row 1, column split: found 'train' in a folder of split 'val'"
    ):
        read_dataset(root)
    write_jsonl(bad, {"file_name": "../train/a.jpg", "label": "real"})
    with pytest.raises(ManifestError, match="which leaves the folder"):
        read_dataset(root)


def test_numbers_for_labels_are_not_guessed_at(touch: Touch) -> None:
    root = touch("a.jpg", "b.jpg")
    frame = pd.DataFrame({"file_name": ["a.jpg", "b.jpg"], "label": [0, 1]})
    frame.to_parquet(root / "metadata.parquet")
    with pytest.raises(
        ManifestError,
        match=r"row 1, column label: found '0'.*values: \{label: \{'0': real or synth",
    ):
        read_dataset(root)
    reader = Reader(values={"label": {"0": "synthetic", "1": "real"}})
    assert read_dataset(root, reader).table["label"].tolist() == ["synthetic", "real"]


def test_of_two_forms_of_metadata_ours_counts_and_of_two_others_none(touch: Touch) -> None:
    root = touch("a.jpg")
    write_jsonl(root / "metadata.jsonl", {"file_name": "a.jpg", "label": "synthetic"})
    pd.DataFrame({"file_name": ["a.jpg"], "label": ["real"]}).to_parquet(root / "metadata.parquet")
    with pytest.raises(
        ManifestError, match=r"metadata\.jsonl and metadata\.parquet are both there"
    ):
        read_dataset(root)
    (root / "metadata.csv").write_text("file_name,label\na.jpg,real\n")
    assert read_dataset(root).table["label"].tolist() == ["real"]


# --- folders that say the label ---


def test_real_and_synthetic_folders_of_any_name_and_depth(touch: Touch) -> None:
    root = touch(
        "Real/a.jpg",
        "authentic/deep/er/b.PNG",
        "fake/a.jpg",
        "AI/c.webp",
        "real/notes.txt",
        "real/.hidden.jpg",
    )
    manifest = read_dataset(root)
    assert find_layout(root) == "folders"
    assert records(manifest.table, "file_name", "label", "kind", "group", "split", "source") == [
        ("AI/c.webp", "synthetic", "", "AI/c.webp", "", ""),
        ("Real/a.jpg", "real", "original", "Real/a.jpg", "", ""),
        ("authentic/deep/er/b.PNG", "real", "original", "authentic/deep/er/b.PNG", "", ""),
        ("fake/a.jpg", "synthetic", "", "fake/a.jpg", "", ""),
    ]


def test_label_folders_may_lie_in_split_folders(touch: Touch) -> None:
    root = touch("train/real/a.jpg", "train/fake/b.jpg", "valid/real/c.jpg", "test/fake/d.jpg")
    table = read_dataset(root, Reader(constants={"source": "shop"})).table
    assert records(table, "file_name", "label", "split", "source") == [
        ("test/fake/d.jpg", "synthetic", "test", "shop"),
        ("train/fake/b.jpg", "synthetic", "train", "shop"),
        ("train/real/a.jpg", "real", "train", "shop"),
        ("valid/real/c.jpg", "real", "val", "shop"),
    ]


def test_photos_that_are_all_real_make_a_manifest(
    touch: Touch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch("real/a.jpg", "real/b/c.jpg")
    assert find_layout(root) == "folders"
    assert records(read_dataset(root).table, "file_name", "label") == [
        ("real/a.jpg", "real"),
        ("real/b/c.jpg", "real"),
    ]
    plain = touch("d.jpg", "e/f.png", "e/notes.txt")
    with pytest.raises(
        ManifestError, match="outside of the folders"
    ):  # nothing tells what they are
        read_dataset(plain)
    for option in ((), ("--overwrite",)):
        assert main(["manifest", str(plain), "--layout", "real", *option]) == 0
        table = read_manifest(plain).table
        assert list(table["file_name"]) == ["d.jpg", "e/f.png", "real/a.jpg", "real/b/c.jpg"]
        assert set(zip(table["label"], table["kind"], table["condition"], strict=True)) == {
            ("real", "original", "")
        }
    out = capsys.readouterr().out
    assert f"next: realdamage split {plain} --near-duplicates\n" in out
    assert f"realdamage-synthesize +recipe=codecs recipe.source.root={plain}\n" in out


def test_a_linked_folder_is_followed_once(touch: Touch, tmp_path: Path) -> None:
    root = touch("fake/a.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b.jpg").touch()
    (root / "real").symlink_to(tmp_path / "elsewhere")
    (root / "real/again").symlink_to(root / "real")
    assert read_dataset(root).table["file_name"].tolist() == ["fake/a.jpg", "real/b.jpg"]


# --- FraudBench ---

REVIEW = "Home & Kitchen/{}/Review_7/IMG_1{}"


def test_fraudbench_tells_category_generator_and_review(touch: Touch) -> None:
    root = touch(
        REVIEW.format("Negative", ".jpg"),
        REVIEW.format("DeepFake/qwen-image-edit-max", ".png"),
        REVIEW.format("DeepFake/wan2.7-image-pro", ".png"),
        "Home & Kitchen/DeepFake/Metadata/Edit_7.json",
        "Home & Kitchen/Negative/Review_7/MetaReview_7.json",
        "Books/Negative/Review_7/IMG_1.jpg",
    )
    table = read_dataset(root).table.set_index("file_name")
    assert find_layout(root) == "fraudbench"
    assert len(table) == 4
    real = table.loc[REVIEW.format("Negative", ".jpg")]
    assert (real["label"], real["kind"], real["condition"]) == ("real", "damaged", "damaged")
    assert (real["source"], real["category"], real["group"]) == (
        "fraudbench",
        "Home & Kitchen",
        "Home & Kitchen/Review_7",
    )
    edit = table.loc[REVIEW.format("DeepFake/qwen-image-edit-max", ".png")]
    assert (edit["label"], edit["kind"], edit["condition"]) == ("synthetic", "ai_whole", "intact")
    assert (edit["generator"], edit["family"]) == ("qwen-image-edit-max", "qwen")
    # What the photo shows is damage in both, so that damage does not tell them apart.
    assert edit["damage"] == real["damage"] == "other"
    assert edit["group"] == real["group"]
    # The negative review of the same number is another product: an edit starts from an undamaged photo.
    assert edit["pair"] == ""
    assert (
        table.loc[REVIEW.format("DeepFake/wan2.7-image-pro", ".png"), "family"]
        == "wan2.7-image-pro"
    )
    assert table.loc["Books/Negative/Review_7/IMG_1.jpg", "group"] == "Books/Review_7"


def test_a_fraudbench_edit_is_paired_with_the_one_undamaged_photo_of_its_name(touch: Touch) -> None:
    positive = REVIEW.format("Positive", ".jpg")
    root = touch(
        positive,
        REVIEW.format("DeepFake/gpt-image-2", ".png"),
        REVIEW.format("DeepFake/gpt-image-2", ".jpg"),
    )
    table = read_dataset(root).table.set_index("file_name")
    assert records(table.loc[[positive]], "label", "kind", "condition", "damage") == [
        ("real", "original", "intact", "")
    ]
    assert set(table.loc[table["label"] == "synthetic", "pair"]) == {positive}
    touch(REVIEW.format("Positive", ".webp"))
    assert set(read_dataset(root).table["pair"]) == {""}


def test_photos_outside_of_reviews_are_left_out_aloud(
    touch: Touch, caplog: pytest.LogCaptureFixture
) -> None:
    root = touch(
        REVIEW.format("Negative", ".jpg"),
        REVIEW.format("DeepFake/x", ".jpg"),
        "static/pipeline.png",
    )
    assert len(read_dataset(root)) == 2
    assert (
        "1 photos lie in no Review_* folder of FraudBench and are left out, such as 'static/pipeline.png'"
        in caplog.text
    )


# --- tables with other columns ---

PATH = {"file_name": "path"}
WORDS = {"0": "real", "yes": "synthetic"}
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


@pytest.fixture
def table(touch: Touch, tmp_path: Path) -> Path:
    root = touch("a.jpg", "x/b.jpg")
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    path = root / "shots.csv"
    path.write_text(
        "path,fake,product,label,source,price\na.jpg,0,12,whatever,theirs,3.50\nx/b.jpg,yes,12,else,theirs,\n"
    )
    return path


def test_a_mapping_renames_columns_and_words_and_adds_constants(
    table: Path, tmp_path: Path
) -> None:
    manifest = read_dataset(table, reader_from_yaml(tmp_path / "mapping.yaml"))
    assert manifest.root == table.parent
    assert records(manifest.table, "file_name", "label", "group", "source", "price") == [
        ("a.jpg", "real", "12", "acme", "3.50"),
        ("x/b.jpg", "synthetic", "12", "acme", ""),
    ]
    assert "path" not in manifest.table
    assert "product" not in manifest.table


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_other_tables_read_the_same_with_the_same_mapping(
    table: Path, tmp_path: Path, suffix: str
) -> None:
    frame = pd.read_csv(table, dtype={"fake": "category"})
    other = table.with_suffix(f".{suffix}")
    if suffix == "jsonl":
        frame.to_json(other, orient="records", lines=True)
    else:
        frame.to_parquet(other)
    reader = reader_from_yaml(tmp_path / "mapping.yaml")
    expected = read_dataset(table, reader).table.drop(columns="price")
    pd.testing.assert_frame_equal(read_dataset(other, reader).table.drop(columns="price"), expected)


def test_a_column_of_theirs_that_means_something_else_can_be_shut_out(touch: Touch) -> None:
    root = touch("a.jpg")
    path = root / "shots.csv"
    path.write_text("file_name,label,kind\na.jpg,real,shoes\n")
    with pytest.raises(ManifestError, match="column kind: found 'shoes'"):
        read_dataset(path)
    assert read_dataset(path, Reader(columns={"kind": ""})).table["kind"].tolist() == ["original"]


def test_hydra_gives_the_same_reader_as_yaml(tmp_path: Path) -> None:
    pytest.importorskip("hydra")
    path = tmp_path / "mapping.yaml"
    path.write_text(MAPPING + "layout: table\n")
    from realdamage.configuration import compose

    config = compose(
        "evaluate",
        [
            "checkpoint=m.onnx",
            "data.reader.layout=table",
            "+data.reader.columns={file_name: path, label: fake, group: product}",
            "+data.reader.values.label={0: real, yes: synthetic}",
            "+data.reader.constants.source=acme",
        ],
    )
    assert reader_from_mapping(config.data.reader) == reader_from_yaml(path)
    assert (
        reader_from_mapping(compose("train", ["data=table"]).data.reader).columns["label"]
        == "is_generated"
    )
    assert reader_from_mapping(None) == Reader()
    assert reader_from_mapping({"values": {"label": {True: "real", False: "synthetic"}}}).values[
        "label"
    ] == {
        "true": "real",
        "false": "synthetic",
    }
    with pytest.raises(ConfigError, match=r"did you mean data\.reader\.columns"):
        compose("evaluate", ["data.reader.colums.label=fake"])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            "column: {label: fake}",
            "unknown key 'column'; allowed: layout, columns, values, constants. Did you mean 'columns'",
        ),
        ("label: fake", "unknown key 'label'; .* Put it under columns: {label: …}"),
        ("columns: {lable: fake}", "columns.lable: not a column of ours.* Did you mean 'label'"),
        ("columns: [label]", "columns: found .*Write it as `key: value`"),
        ("columns: {label: {a: b}}", "columns.label: found .*, not a single word"),
        ("values: {label: {0: fake}}", "values.label.0: found 'fake'; allowed: real, synthetic"),
        ("constants: {label: ''}", "constants.label: found ''; allowed: real, synthetic"),
        ("{columns: {source: a}, constants: {source: b}}", "constants.source: also in columns"),
        ("layout: folder", "layout 'folder' is unknown; .* Did you mean 'folders'"),
        ("a: [", "not valid YAML"),
        ("- label", "found list. Write the keys columns, values and constants"),
    ],
)
def test_a_mapping_that_is_off_is_named(tmp_path: Path, mapping: str, message: str) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(mapping)
    with pytest.raises(ConfigError, match=message) as caught:
        reader_from_yaml(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (
            Reader(columns={"file_name": "pth", "label": "fake"}),
            "no column 'pth', which is to be our 'file_name'; found: path, fake, .* Did you mean 'path'",
        ),
        (
            Reader(columns={**PATH, "label": "fake"}, values={"label": {"0": "real"}}),
            r"shots\.csv, row 3, column label: 'yes' has no mapping; values\.label maps '0'\..*\{label: \{'yes': …",
        ),
        (
            Reader(columns=PATH, values={"kind": {"0": "original"}}),
            "values.kind: .*has no column of that name",
        ),
        (
            Reader(),
            r"shots\.csv: no column 'file_name'; found: path, .*columns: \{file_name: THEIR_COLUMN\}",
        ),
        (
            Reader(columns=PATH),
            r"row 2, column label: found 'whatever'; .*'whatever': real or synthetic, 'else'",
        ),
        (
            Reader(
                columns={**PATH, "label": "fake"},
                values={"label": WORDS},
                constants={"generator": "x"},
            ),
            "column generator: found 'x' on a photo with label 'real'",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_its_table_is_named(
    table: Path, reader: Reader, message: str
) -> None:
    with pytest.raises((ManifestError, ConfigError), match=message):
        read_dataset(table, reader)


def test_a_misspelt_column_is_renamed_in_our_own_file_and_mapped_in_others(touch: Touch) -> None:
    root = touch("a.jpg")
    (root / "metadata.csv").write_text("file_name,lable\na.jpg,real\n")
    with pytest.raises(ManifestError, match="Column 'lable': rename it to 'label'") as caught:
        read_dataset(root)
    assert "--columns" not in str(caught.value)
    (root / "metadata.csv").rename(root / "shots.csv")
    with pytest.raises(
        ManifestError,
        match=r"columns: \{label: lable\}, .* \(realdamage manifest --columns FILE, data",
    ):
        read_dataset(root / "shots.csv")


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("names", "layout", "message"),
    [
        (
            (),
            "auto",
            r"\(no photos below it\).*Also read: metadata\.jsonl.*folders real, authentic, synthetic, fake, ai",
        ),
        (("x/a.jpg",), "auto", r"\(1 photos below it\)"),
        (
            (),
            "folders",
            "no photos in folders of this layout. Real photos belong into a folder real, authentic;",
        ),
        (("real/a.txt", "fake/b.txt"), "auto", "no photos in folders of this layout"),
        (("a.txt",), "real", "no photos in this folder"),
        (("a.jpg", "b/c.jpg", "b/metadata.csv"), "real", r"b/metadata\.csv describes some of them"),
        (
            ("real/a.jpg", "fake/b.jpg", "c.jpg", "unsure/d.jpg"),
            "auto",
            "2 photos lie outside .* such as 'c.jpg'",
        ),
        (
            ("x/Negative/Review_1/a.jpg",),
            "fraudbench",
            "1 photos, all real; synthetic photos are missing",
        ),
        (
            ("real/a.jpg", "fake/b.jpg"),
            "imagefolder",
            "no image folder. Looked for metadata.csv, metadata.jsonl",
        ),
        (("real/a.jpg",), "table", "a folder. Name the table itself"),
        (("real/a.jpg",), "manifest", "no metadata.csv in this folder"),
    ],
)
def test_a_folder_of_no_or_half_a_layout_is_told_what_is_missing(
    touch: Touch, names: tuple[str, ...], layout: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        read_dataset(touch(*names), Reader(layout))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.jsonl",
            b'{"file_name": "a.jpg", "label": "real"}\n\n{"file_name": \n',
            "row 3: not valid JSON",
        ),
        ("metadata.jsonl", b'["a.jpg", "real"]\n', "row 1: found .*, not an object"),
        ("metadata.jsonl", b'{"file_name": "\xe9"}\n', "row 1: not UTF-8"),
        (
            "metadata.jsonl",
            b'{"file_name": "a.jpg", "label": "real"}\n' * 2,
            "row 2, column file_name: 'a.jpg' is already",
        ),
        ("metadata.parquet", b"PAR1 and then nothing", "cannot be read as Parquet"),
        ("metadata.jsonl", b"", "no rows"),
        ("shots.csv", b"file_name;label\na.jpg;real\n", "separated by ';'"),
        ("shots.csv", b"file_name,label,label\na.jpg,real,real\n", "'label' occurs twice"),
        ("shots.csv", b"file_name,label\n/etc/a.jpg,real\n", "an absolute path"),
        ("shots.csv", b"file_name,label\n../set2/a.jpg,real\n", "which leaves the folder"),
        ("shots.xlsx", b"", r"not a table \(\.csv, \.jsonl, \.parquet\)"),
    ],
)
def test_a_broken_table_is_named_with_its_row(
    touch: Touch, name: str, content: bytes, message: str
) -> None:
    root = touch("a.jpg")
    (root / name).write_bytes(content)
    with pytest.raises(ManifestError, match=message) as caught:
        read_dataset(root if name.startswith("metadata") else root / name)
    assert str(root / name) in str(caught.value)


def test_photos_inside_of_parquet_are_left_out_aloud(
    touch: Touch, caplog: pytest.LogCaptureFixture
) -> None:
    root = touch("a.jpg")
    image = {"bytes": b"\xff\xd8", "path": "a.jpg"}
    frame = pd.DataFrame(
        {"file_name": ["a.jpg"], "label": ["real"], "image": [image], "boxes": [[[1, 2], [3, 4]]]}
    )
    frame.to_parquet(root / "metadata.parquet")
    assert read_dataset(root).table["boxes"].tolist() == ["[[1, 2], [3, 4]]"]
    assert "left out ['image'], which hold bytes" in caplog.text


def test_paths_that_are_not_there_and_mappings_without_a_table_are_refused(touch: Touch) -> None:
    root = touch("real/a.jpg", "fake/b.jpg")
    with pytest.raises(ManifestError, match="no such file or folder"):
        read_dataset(root / "nowhere")
    with pytest.raises(ManifestError, match="no such file"):
        read_dataset(root / "nowhere.csv", Reader("table"))
    with pytest.raises(ManifestError, match="no such folder"):
        read_dataset(root / "nowhere", Reader("folders"))
    with pytest.raises(ConfigError, match="columns and values belong to tables"):
        read_dataset(root, Reader(columns={"label": "x"}))


# --- the command ---


def test_the_command_writes_a_manifest_that_all_others_read(
    touch: Touch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch("real/a.jpg", "real/b.jpg", "fake/c.jpg")
    assert main(["manifest", str(root)]) == 0
    out = capsys.readouterr().out
    assert (
        f"{root}/metadata.csv: 3 photos\nlabel   2 real, 1 synthetic\nkind    2 original, 1 (not told)\n"
        in out
    )
    assert out.endswith(
        f"next: realdamage split {root} --near-duplicates\n"
    )  # nothing tells who belongs together
    assert read_manifest(root).table["label"].value_counts().to_dict() == {
        "real": 2,
        "synthetic": 1,
    }


def test_the_command_keeps_a_manifest_that_is_there(
    touch: Touch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch("real/a.jpg", "fake/c.jpg")
    assert main(["manifest", str(root)]) == 0
    before = (root / "metadata.csv").read_bytes()
    touch("fake/d.jpg")
    capsys.readouterr()
    assert main(["manifest", str(root)]) == 0
    checked = capsys.readouterr().out
    assert (
        f"{root}/metadata.csv: 2 photos, as the file that is there says; nothing was written\n"
        in checked
    )
    assert "1 real" in checked
    assert "1 synthetic" in checked
    assert (
        main(["manifest", str(root), "--overwrite"]) == 2
    )  # it would only read again what it wrote
    assert (
        "say what else to read: --layout manifest, imagefolder, folders" in capsys.readouterr().err
    )
    assert main(["manifest", str(root), "--layout", "folders"]) == 2
    assert "is there already. Keep it, or replace it with --overwrite" in capsys.readouterr().err
    assert (root / "metadata.csv").read_bytes() == before
    assert main(["manifest", str(root), "--overwrite", "--layout", "folders"]) == 0
    assert len(read_manifest(root)) == 3


def test_the_command_finds_fault_with_a_manifest_that_is_there(
    touch: Touch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch("a.jpg")
    (root / "metadata.csv").write_text("file_name,label\na.jpg,reel\n")
    assert main(["manifest", str(root)]) == 3
    assert "row 2, column label: found 'reel'" in capsys.readouterr().err


def test_the_command_takes_a_table_and_its_mapping(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "manifest",
                str(table),
                "--columns",
                str(tmp_path / "mapping.yaml"),
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert "2 acme" in capsys.readouterr().out
    written = read_manifest(tmp_path).table
    assert records(written, "file_name", "label", "group") == [
        ("set/a.jpg", "real", "12"),
        ("set/x/b.jpg", "synthetic", "12"),
    ]
    assert main(["manifest", str(table), "--columns", str(tmp_path / "none.yaml")]) == 2
    assert main(["manifest", str(table), "--out", str(table.parent / "x")]) == 2
    assert "choose the photos' folder or one above" in capsys.readouterr().err
    assert main(["manifest", str(table)]) == 3


def test_a_folder_above_changes_groups_that_are_names_of_photos(touch: Touch) -> None:
    root = touch("a.jpg", "b.jpg")
    write_jsonl(
        root / "metadata.jsonl",
        {"file_name": "a.jpg", "label": "real"},
        {"file_name": "b.jpg", "label": "synthetic", "pair": "a.jpg"},
    )
    assert main(["manifest", str(root), "--out", str(root.parent)]) == 0
    assert records(read_manifest(root.parent).table, "group", "pair") == [
        ("set/a.jpg", ""),
        ("set/a.jpg", "set/a.jpg"),
    ]


def test_the_command_says_which_table_is_stale(
    touch: Touch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch("a.jpg")
    write_jsonl(root / "metadata.jsonl", {"file_name": "a.jpg", "label": "real", "split": "test"})
    assert main(["manifest", str(root)]) == 0
    captured = capsys.readouterr()
    assert f"{root}/metadata.jsonl is no longer read; remove it" in captured.err
    assert "next:" not in captured.out


def test_the_command_offers_the_layouts_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "x", "--layout", "nonsense"]) == 2
    offered = capsys.readouterr().err.splitlines()[-1]
    assert [name for name in LAYOUTS if f"'{name}'" in offered] == list(LAYOUTS)
    assert offered.count(",") == len(LAYOUTS) - 1


def test_splits_go_into_photos_of_any_layout(touch: Touch) -> None:
    root = touch(*(f"{label}/{index}.jpg" for label in ("real", "fake") for index in range(20)))
    assert main(["split", str(root)]) == 0
    table = read_manifest(root).table
    assert table["split"].value_counts().to_dict() == {
        "train": 22,
        "policy": 8,
        "test": 6,
        "val": 4,
    }
    assert issubclass(ConfigError, UsageError)
