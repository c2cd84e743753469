"""What people type before training: `realdamage manifest`, `split`, `audit`, `neutralise`."""

import json

import pandas as pd
import pytest
from PIL import Image

from realdamage.core.model_file import read_model_file
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.splits import with_split_table
from realdamage.errors import ManifestError


@pytest.fixture
def folder(tmp_path):
    """40 real photos of 20 groups, half of them damaged, each with an edit; empty files, a column
    of their own."""
    rows = []
    for index in range(40):
        own = {"group": f"mug-{index // 2}", "claim": f"c{index}"}
        kind = "damaged" if index < 20 else "original"
        edit = {"label": "synthetic", "kind": "ai_region", "pair": f"{index}.jpg"}
        rows.append({"file_name": f"{index}.jpg", "label": "real", "kind": kind, **own})
        rows.append({"file_name": f"{index}_edit.jpg", **edit, **own})
    for row in rows:
        (tmp_path / row["file_name"]).touch()
    write_manifest(tmp_path, pd.DataFrame(rows).fillna(""))
    return tmp_path


def test_a_manifest_is_written_once_and_then_checked(type_in, tmp_path):
    root = tmp_path / "set"
    for name in ("real/a.jpg", "real/b.jpg", "fake/c.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    code, out, _ = type_in("manifest", root, "--layout", "folders")
    assert code == 0
    assert out.splitlines()[:2] == [f"{root}/metadata.csv: 3 photos", "label   2 real, 1 synthetic"]
    # Nothing shows which photos belong together.
    assert out.endswith(f"next: realdamage split {root} --near-duplicates\n")
    before = (root / "metadata.csv").read_bytes()
    (root / "fake/d.jpg").touch()
    code, out, _ = type_in("manifest", root)
    assert (code, "3 photos" in out) == (0, True)
    assert type_in("manifest", root, "--layout", "folders").code == 2
    assert (root / "metadata.csv").read_bytes() == before
    assert type_in("manifest", root, "--layout", "folders", "--overwrite").code == 0
    assert len(read_manifest(root)) == 4


def test_a_table_is_mapped_by_a_file(type_in, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.jpg").touch()
    (tmp_path / "set/shots.csv").write_text("path,label\na.jpg,real\n")
    (tmp_path / "map.yaml").write_text("columns: {file_name: path}\nconstants: {source: acme}\n")
    table, mapping = tmp_path / "set/shots.csv", ("--columns", tmp_path / "map.yaml")
    assert type_in("manifest", table).code == 3
    out = type_in("manifest", table, *mapping).out
    assert "1 acme" in out
    assert f"recipe.source.root={tmp_path / 'set'}\n" in out  # all photos are real
    assert read_manifest(tmp_path / "set").table["file_name"].tolist() == ["a.jpg"]
    assert type_in("manifest", table, "--columns", tmp_path / "none.yaml").code == 2


def test_splits_are_written_and_keep_groups_and_other_columns(type_in, folder):
    done = type_in("split", folder, "--fractions", "train=0.5,val=0.25,policy=0.25")
    assert done.code == 0
    table = read_manifest(folder).table
    assert table.groupby("group")["split"].nunique().max() == 1
    assert table["split"].value_counts().to_dict() == {"train": 40, "val": 20, "policy": 20}
    assert set(table["claim"]) == {f"c{index}" for index in range(40)}
    before = (folder / "metadata.csv").read_bytes()
    code, _, err = type_in("split", folder, "--seed", "1")
    assert (code, "--overwrite" in err) == (2, True)
    assert (folder / "metadata.csv").read_bytes() == before
    damaged = ("--damaged", "train=0.2,policy=0.8")
    assert type_in("split", folder, "--seed", "1", "--overwrite", *damaged).code == 0
    table = read_manifest(folder).table
    counts = pd.crosstab(table["kind"], table["split"])
    assert counts.loc["damaged"].to_dict() == {"policy": 16, "test": 0, "train": 4, "val": 0}
    assert (counts.loc["original"] > 0).all()


def test_the_default_leaves_photos_for_a_guarantee(
    type_in, write_set, save_red_model, tmp_path, monkeypatch
):
    root = write_set(tmp_path / "photos", groups=30, splits=False)
    model = save_red_model(tmp_path / "model.onnx")
    brighter = [min(255, value + 60) for value in range(256)] + 2 * list(range(256))
    for name in read_manifest(root).table.query("label == 'synthetic'")["file_name"]:
        Image.open(root / name).point(brighter).save(root / name)  # red is what the model finds
    out = type_in("split", root).out
    table = read_manifest(root).table
    smallest = out.splitlines()[-1].rpartition("--alpha ")[2]
    groups = table[table["kind"] == "damaged"].groupby("split")["group"].nunique()["policy"]
    exact = 1 - 0.05 ** (1 / groups)  # Clopper-Pearson, no error among them
    assert float(smallest) == pytest.approx(exact, abs=1e-4)
    calibrate = ("calibrate", model, "--manifest", root, "--alpha")
    done = type_in(*calibrate, smallest)
    policy = read_model_file(model)[1].policy
    assert done.code == 0
    assert policy is not None
    assert f"{policy.t_synthetic:+.3f}" in done.out
    assert policy.guarantee is not None
    assert policy.guarantee.alpha == float(smallest)
    assert "--overwrite" in type_in(*calibrate, smallest).out  # nothing has changed
    assert type_in(*calibrate, smallest, "--overwrite").out == done.out
    assert type_in(*calibrate, smallest, "--fpr", "0.01").code == 2
    assert type_in(*calibrate, float(smallest) - 0.001).code == 3
    # The model in the package is never changed.
    before, own = model.read_bytes(), tmp_path / "own.onnx"
    monkeypatch.setattr("realdamage.core.detector.PACKAGED_MODEL", model)
    packaged = ("calibrate", "packaged", "--manifest", root, "--fpr", "0.1")
    assert type_in(*packaged).code == 2
    code, _, err = type_in("calibrate", "packagd", "--manifest", root)
    assert (code, "Did you mean 'packaged'?" in err) == (2, True)
    assert type_in(*packaged, "--output", own).code == 0
    assert model.read_bytes() == before
    assert (read_model_file(own)[1].policy or policy).fpr == 0.1


def test_near_duplicates_stay_together(type_in, tmp_path, photo_factory):
    """An edit and its original are in one group already; a second save of a photo is news."""
    rows = []
    for index in range(6):
        name, edit = f"{index}.jpg", f"{index}_edit.jpg"
        image = Image.fromarray(photo_factory(96, 128, index))
        image.save(tmp_path / name, quality=90)
        image.save(tmp_path / edit, quality=70)
        rows.append({"file_name": name, "label": "real", "pair": ""})
        rows.append({"file_name": edit, "label": "synthetic", "pair": name})
    write_manifest(tmp_path, pd.DataFrame(rows))
    command = ("split", tmp_path, "--fractions", "train=0.5,test=0.5", "--near-duplicates")
    assert type_in(*command).out.startswith("6 pairs of photos look alike")
    image.save(tmp_path / "again.jpg", quality=80)
    rows.append({"file_name": "again.jpg", "label": "real", "pair": ""})
    write_manifest(tmp_path, pd.DataFrame(rows))
    first = type_in(*command, "--overwrite").out.splitlines()[0]
    assert first == "8 pairs of photos look alike: 7 groups became 6"
    splits = read_manifest(tmp_path).table.set_index("file_name")["split"]
    assert splits["again.jpg"] == splits["5.jpg"] == splits["5_edit.jpg"]


def test_a_split_table_keeps_the_splits_of_photos_that_lie_elsewhere(
    type_in, folder, tmp_path_factory
):
    splits = tmp_path_factory.mktemp("splits") / "splits.csv"
    before = (folder / "metadata.csv").read_bytes()
    assert type_in("split", folder, "--output", splits).code == 0
    assert (folder / "metadata.csv").read_bytes() == before
    manifest = with_split_table(read_manifest(folder), splits)
    listed = pd.read_csv(splits, dtype=str)
    assert list(manifest.table["split"]) == list(listed["split"])
    assert set(manifest.table["split"]) == {"train", "val", "test", "policy"}
    assert type_in("split", folder, "--output", splits).code == 2

    (folder / "3.jpg").write_bytes(b"another photo")
    with pytest.raises(ManifestError, match=r"3\.jpg"):
        with_split_table(read_manifest(folder), splits)


def test_an_honest_set_passes_the_audit(type_in, tiny_manifest):
    code, out, _ = type_in("audit", tiny_manifest, "--workers", "1")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith(f"{tiny_manifest}: 44 photos, 20 real and 24 synthetic")
    assert lines[-1] == "audit passed"


@pytest.mark.parametrize(
    ("groups", "code", "last"),
    [(4, 3, "audit: nothing could be measured"), (8, 1, "audit failed: source")],
)
def test_a_leaking_set_and_one_too_small_to_measure_do_not_pass(
    type_in, write_set, tmp_path, groups, code, last
):
    root, page, report = write_set(tmp_path / "s", groups), tmp_path / "a.html", tmp_path / "a.json"
    table = read_manifest(root).table
    source = table["source"].where(table["label"] == "real", "generated/x")
    write_manifest(root, table.assign(source=source))
    done = type_in("audit", root, "--quick", "--json", report, "--html", page)
    assert done.code == code
    assert done.out.splitlines()[-1].startswith(last)
    assert last in page.read_text()
    assert json.loads(report.read_text())["passed"] is False
    (root / "photos/00_original.png").unlink()
    done = type_in("audit", root, "--quick")
    assert done.code == 1  # a fault that was found still counts
    assert done.out.splitlines()[-1].endswith("1 unreadable")


def test_a_set_is_saved_again_and_counted(type_in, write_set, tmp_path):
    photos = write_set(tmp_path / "in", 4)
    out = tmp_path / "out"
    done = type_in("neutralise", photos, out, "--quality", "75-95", "--workers", "1")
    first, sizes, left_out, following = done.out.splitlines()
    assert first == f"{out}: 11 photos (5 real, 6 synthetic)"
    assert sum(int(size.rpartition(" ")[2]) for size in sizes.split(", ")) == 11
    assert left_out == "left out 0"
    assert following == f"next: realdamage audit {out}"
    assert done.err == ""
    assert read_manifest(out).table["file_name"].str.endswith(".jpg").all()
    command = ("neutralise", photos, out)
    code, _, err = type_in(*command, "--seed", "1")  # other settings
    assert (code, "--overwrite" in err) == (2, True)
    assert type_in(*command, "--seed", "1", "--workers", "1", "--overwrite").code == 0
    assert type_in("neutralise", photos, photos / "out").code == 2  # inside the set
    code, _, err = type_in("neutralise", photos, tmp_path / "other", "--sizes", "80")
    assert (code, "384x512" in err) == (2, True)
    assert not (tmp_path / "other").exists()
