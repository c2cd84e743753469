"""A set that leaks its labels fails and names the leak; an honest one passes."""

import io
import json
import shutil
from functools import cache

import pandas as pd
import pytest
from PIL import Image

from realdamage.data.audit import audit, read_exceptions
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import ManifestError

PLAIN = {"format": "JPEG", "quality": 90}


@cache
def small_file(side, options):
    buffer = io.BytesIO()
    Image.new("RGB", (side, 48), (90, 120, 60)).save(buffer, **dict(options))
    return buffer.getvalue()


def write_files(root, rows, save=lambda _: PLAIN):
    """Tiny photos, all of different bytes; `save` gives Pillow's options (and `side`) for a row."""
    root.mkdir(exist_ok=True)
    rows = [{"file_name": f"{index:04}.img", **row} for index, row in enumerate(rows)]
    for index, row in enumerate(rows):
        options = {"side": 64, **save(row)}
        content = small_file(options.pop("side"), tuple(sorted(options.items())))
        (root / row["file_name"]).write_bytes(
            content + b"%06d" % index
        )  # bytes after the picture's end change nothing
    write_manifest(root, pd.DataFrame(rows).fillna(""))
    return read_manifest(root)


def pairs(n, **columns):
    """`n` groups of a real and a synthetic photo; `columns`: by number of the group and label."""
    return [
        {
            "label": label,
            "group": f"g{index}",
            **{name: value(index, label) for name, value in columns.items()},
        }
        for index in range(n)
        for label in ("real", "synthetic")
    ]


def result(report, name, *, allowed=False):
    (found,) = (
        test for test in report.tests if test.name == name and bool(test.exception) == allowed
    )
    return found


def problems(report):
    return {problem.kind: [item.files for item in problem.items] for problem in report.problems}


def test_edits_written_as_png_are_found_by_their_format(tmp_path):
    manifest = write_files(
        tmp_path, pairs(40), lambda row: PLAIN if row["label"] == "real" else {"format": "PNG"}
    )
    report = audit(manifest, quick=True)
    found = result(report, "container")
    assert (found.failed, report.passed) == (True, False)
    assert found.auroc > 0.99
    assert found.low > 0.95
    assert {"format", "tables", "subsampling"} == set(found.columns)
    assert "format PNG: 0 real, 40 synthetic" in found.advice
    labels = dict(zip(manifest.table["file_name"], manifest.table["label"], strict=True))
    assert [labels[name] for name in found.examples] == ["real"] * 4 + ["synthetic"] * 4


def test_the_weight_of_a_file_is_reported_but_never_blocks(tmp_path):
    manifest = write_files(tmp_path, pairs(30))
    for name, label in zip(manifest.table["file_name"], manifest.table["label"], strict=True):
        with (tmp_path / name).open("ab") as file:
            file.write(b"\0" * (100 if label == "real" else 200))
    report = audit(manifest, workers=1)
    found = result(report, "bytes")
    assert found.low > 0.9
    assert (found.failed, found.blocking) == (False, False)
    assert found.note
    assert not report.failed_tests


def source(index, label):
    return f"shop{index % 3}" if label == "real" or index % 20 == 0 else "x"


def damage(index, label):
    return "" if index % 2 else "torn" if label == "real" else "cracked"


def painted(index, label):
    return DAMAGES[index % 10] if label == "synthetic" else ""


def condition(index, label):
    """Of the original: what was painted is in the other column."""
    return "intact" if index < 40 else "unknown"


@pytest.mark.parametrize(
    ("name", "rows", "tested", "advice"),
    [
        ("source", pairs(60, source=source), 120, "source x: 0 real, 57 synthetic"),
        ("damage", pairs(60, damage=damage), 60, "damage torn: 30 real, 0 synthetic"),
        (
            "condition",
            pairs(60, damage=painted, condition=condition),
            100,  # 20 real photos say nothing
            "shows damage no: 40 real, 0 synthetic",
        ),
    ],
)
def test_a_column_that_tells_the_classes_apart_fails_and_its_values_are_counted(
    tmp_path, name, rows, tested, advice
):
    report = audit(write_files(tmp_path, rows), quick=True)
    assert [test.name for test in report.failed_tests] == [name]
    found = result(report, name)
    assert found.rows == tested
    assert advice in found.advice
    values = json.loads(report.to_json(), parse_constant=pytest.fail)  # no NaN
    assert values["passed"] is False
    assert values["verdict"]["verdict"] == "failed, overridden"
    for test in report.tests:
        figures = values["verdict"]["tests"][test.name]
        assert (figures == [None] * 3) == (not test.measured) == bool(test.note)


GENERATED = {"part": "generated", "test": "source", "reason": "no real photos"}


def test_a_part_may_leak_when_somebody_says_why(tmp_path):
    """Honest photos, and a part of generated ones whose source tells."""
    rows = [row | {"source": "shop", "part": "photos"} for row in pairs(30)]
    source = {"real": "web", "synthetic": "x"}
    rows += [
        row | {"source": source[row["label"]], "part": "generated", "group": f"x{row['group']}"}
        for row in pairs(20)
    ]
    manifest = write_files(tmp_path, rows)

    def write(content):
        (manifest.root / "audit_exceptions.json").write_text(json.dumps(content))

    write([GENERATED | {"part": "photos"}])  # excuses no other part
    assert not audit(manifest, quick=True).passed
    write([GENERATED])
    report = audit(manifest, quick=True)
    assert report.passed
    judged, allowed = result(report, "source"), result(report, "source", allowed=True)
    assert (judged.rows, allowed.rows, allowed.part) == (60, 40, "generated")
    assert (allowed.auroc, allowed.failed) == (1.0, False)
    assert result(report, "container").rows == 100
    said = report.verdict()
    assert said["verdict"] == "passed"
    assert said["tests"]["source"] == [0.5, 0.5, 0.5]
    assert said["exceptions"] == [{**GENERATED, "auroc": [1.0, 1.0, 1.0]}]
    faulty = [
        ([GENERATED | {"test": "sauce"}], "entry 1.*'sauce'.*container, source"),
        ([GENERATED | {"reason": " "}], "entry 1.*reason"),
        ([{"part": "generated", "test": "source"}], "reason"),
        (GENERATED, "JSON list"),
    ]
    for content, named in faulty:
        write(content)
        with pytest.raises(ManifestError, match=rf"audit_exceptions\.json.*{named}"):
            read_exceptions(manifest)


def test_one_label_alone_is_refused(tmp_path):
    manifest = write_files(tmp_path, [row for row in pairs(5) if row["label"] == "real"])
    with pytest.raises(ManifestError, match="5 real, 0 synthetic"):
        audit(manifest, quick=True)


class TestFiles:
    @pytest.fixture(scope="class")
    def written(self, write_set, tmp_path_factory):
        # Too few photos to test for shortcuts, so that these tests are quick.
        return write_set(tmp_path_factory.mktemp("files") / "set", 6)

    @pytest.fixture
    def root(self, written, tmp_path):
        return shutil.copytree(written, tmp_path / "set")

    def change(self, root, **cells):
        """`column=(file, value)`."""
        table = read_manifest(root, check_files=False).table
        for column, (name, value) in cells.items():
            table.loc[table["file_name"] == name, column] = value
        write_manifest(root, table)

    def audit(self, root, **options):
        return audit(read_manifest(root, check_files=False), **{"workers": 1, **options})

    @pytest.mark.parametrize("quick", [True, False])
    def test_an_unreadable_photo_fails_and_is_named(self, root, quick):
        (root / "photos/02_original.png").write_bytes(b"no picture")
        (root / "photos/03_damaged.png").unlink()
        report = self.audit(root, quick=quick)
        unreadable = [("photos/02_original.png",), ("photos/03_damaged.png",)]
        assert problems(report) == {"unreadable": unreadable}
        assert report.failed
        assert report.leaks == ()  # nothing to learn the label from
        assert not any(test.measured for test in report.tests)  # too few photos

    @pytest.mark.parametrize("quick", [True, False])
    def test_the_same_bytes_twice_and_a_group_in_two_splits(self, root, quick):
        shutil.copy(root / "photos/00_original.png", root / "photos/01_damaged.png")
        report = self.audit(root, quick=quick)
        same = ("photos/00_original.png", "photos/01_damaged.png")
        assert problems(report) == {"duplicate": [same]}
        assert not report.failed
        self.change(root, split=("photos/01_damaged.png", "val"))
        shutil.copy(root / "photos/00_original.png", root / "photos/03_ai_region.png")
        report = self.audit(root, quick=quick)
        found = problems(report)
        assert set(found) >= {"label_conflict", "crossing"}
        assert len(found["label_conflict"][0]) == 3
        assert report.failed
        assert "same bytes" in report.leaks[0]
        assert len(report.leaks) == 2

    def test_look_alikes_in_two_splits_are_shown_once_a_group(self, root):
        with Image.open(root / "photos/00_original.png") as image:
            image.save(root / "photos/01_damaged.png", compress_level=1)
            cropped = image.convert("RGB").crop((1, 1, image.width, image.height))
        cropped.save(root / "photos/01_ai_region.png")
        table = read_manifest(root).table
        table.loc[table["group"] == "group01", ["split", "mask_file_name"]] = ["test", ""]
        write_manifest(root, table)
        report = self.audit(root)
        alike = ("photos/00_original.png", "photos/01_damaged.png")
        assert problems(report)["near_duplicate"] == [alike]
        assert not report.failed  # a look-alike is for somebody to look at

    def test_each_fault_of_a_mask(self, root):
        names = ("02_ai_region", "03_ai_region")
        size = {name: Image.open(root / f"photos/{name}.png").size for name in names}
        (root / "masks/00_ai_region.png").unlink()
        Image.new("L", (10, 10), 255).save(root / "masks/01_ai_region.png")
        Image.new("L", size["02_ai_region"], 0).save(root / "masks/02_ai_region.png")
        Image.new("L", size["03_ai_region"], 1).save(root / "masks/03_ai_region.png")
        whole = root / "masks/00_ai_whole.png"
        with Image.open(whole) as image:
            image.paste(0, (0, 0, image.width, round(0.6 * image.height)))
            image.save(whole)
        self.change(root, mask_file_name=("photos/04_ai_region.png", ""))
        self.change(root, mask_file_name=("photos/04_original.png", "masks/04_ai_whole.png"))
        (root / "masks/05_ai_region.png").write_bytes(b"no picture")
        report = self.audit(root)
        full, quick = problems(report), problems(self.audit(root, quick=True))
        assert full == {
            "mask_missing": [("photos/00_ai_region.png",)],
            "mask_on_real": [("photos/04_original.png",)],
            "mask_unusable": [("photos/03_ai_region.png",), ("photos/05_ai_region.png",)],
            "mask_size": [("photos/01_ai_region.png",)],
            "mask_empty": [("photos/02_ai_region.png",)],
            "mask_absent": [("photos/04_ai_region.png",)],
            "mask_partial": [("photos/00_ai_whole.png",)],
        }
        assert set(full) - set(quick) == {"mask_empty", "mask_partial"}
        warnings = {problem.kind for problem in report.problems if problem.severity == "warning"}
        assert warnings == {"mask_absent", "mask_partial"}
