"""A recipe gives the same set however it is run, never mixes two sets, and saves all photos of a
group alike."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image, JpegImagePlugin
from scipy import ndimage

from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.splits import check_splits, write_split_table
from realdamage.data.vocabulary import KIND_LABELS
from realdamage.errors import ConfigError, RealDamageError, SynthesisError, UsageError
from realdamage.synthesis import runner
from realdamage.synthesis.autoencoders import (
    HOUSE_CODECS,
    HouseCodec,
    HouseCodecSpec,
    save_house_codec,
)
from realdamage.synthesis.engine import Edit, GeneratorSettings
from realdamage.synthesis.recipe import (
    IncludeSettings,
    Recipe,
    SourceSettings,
    WriterSettings,
    balanced_paint_share,
)
from realdamage.synthesis.runner import clear

EVERY = {"annotated": 1.0, "ai_region": 1.0, "ai_whole": 1.0, "pasted": 1.0}


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """A codec with random weights, of the family toy."""
    path = tmp_path_factory.mktemp("codec") / "tiny.safetensors"
    save_house_codec(HouseCodec(HouseCodecSpec(stages=1, latent=2, width=4)), path)
    return {"tiny": GeneratorSettings(str(path), "toy")}


@pytest.fixture(scope="module")
def recipe(codec, photo_factory, tmp_path_factory):
    """Over four real photos: PNG, two of them damaged, split already."""
    root = tmp_path_factory.mktemp("source")
    rows = []
    for index, split in enumerate(("train", "val", "test", "train")):
        name, damage = f"{index}.png", ("", "torn")[index % 2]
        Image.fromarray(photo_factory(200, 240, index)).save(root / name)
        condition = "damaged" if damage else "intact"
        columns = {"condition": condition, "damage": damage, "source": "shop", "split": split}
        rows.append({"file_name": name, "label": "real", "group": f"g{index}", **columns})
    write_manifest(root, pd.DataFrame(rows))
    return Recipe(
        name="test",
        seed=3,
        source=SourceSettings(str(root)),
        shares={"default": EVERY},
        paint_share=1.0,
        overlay_share=0.0,
        damages=["cracked", "stained"],
        generators=codec,
        writer=WriterSettings([97, 100]),
        workers=1,
    )


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory):
    """The set of the recipe, by two processes; tests must not change it."""
    root = tmp_path_factory.mktemp("made") / "set"
    synthesize(replace(recipe, workers=2), root)
    return root


def synthesize(recipe, root, overwrite=False):
    return runner.synthesize(recipe, root, {}, overwrite=overwrite)


def contents(root):
    paths = [path for folder in ("photos", "masks") for path in (root / folder).iterdir()]
    paths.append(root / "metadata.csv")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_every_photo_has_its_derived_kinds_all_saved_alike(made):
    table = read_manifest(made).table
    assert len(table) == 4 * 5
    for group, rows in table.groupby("group"):
        (base,) = rows[rows["pair"] == ""].to_dict("records")
        assert base["kind"] == ("damaged" if base["condition"] == "damaged" else "original")
        assert set(rows["kind"]) == {base["kind"], *EVERY}
        saved = set()
        for row in rows.to_dict("records"):
            kind, path = row["kind"], made / row["file_name"]
            assert row["label"] == KIND_LABELS[kind]
            assert row["pair"] == ("" if row == base else base["file_name"])
            same = ("condition", "source", "split", "group")
            assert [row[name] for name in same] == [base[name] for name in same]
            assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert (row["mask_file_name"] != "") == (row["label"] == "synthetic")
            generators = {"ai_region": "tiny", "ai_whole": "tiny", "pasted": "paint"}
            assert row["generator"] == generators.get(kind, "")
            assert row["family"] == ("toy" if kind.startswith("ai_") else "")
            # What is damaged already is not painted on by a generator.
            painted = kind == "pasted" or (kind in generators and not base["damage"])
            assert row["damage"] in (("cracked", "stained") if painted else (base["damage"],))
            with Image.open(path) as image:
                tables = tuple(tuple(table) for table in image.quantization.values())
                sampling = JpegImagePlugin.get_sampling(image)
                saved.add((image.format, image.mode, image.size, tables, sampling))
                assert not image.getexif()
            if not row["mask_file_name"]:
                continue
            mask = pixels(made / row["mask_file_name"])[..., 0] > 0
            assert mask.shape == image.size[::-1]
            if kind == "ai_whole":
                assert mask.all()
                continue
            # Outside of its mask an edit is its original, but for a soft edge and JPEG.
            difference = np.abs(pixels(path) - pixels(made / base["file_name"])).max(axis=2)
            far = ~ndimage.binary_dilation(mask, iterations=30)
            assert far.mean() > 0.2, kind
            assert difference[far].max() <= 3, kind
            assert difference[mask].mean() > 4 * difference[far].mean(), kind
        assert len(saved) == 1, group


def test_a_second_folder_is_edited_too_and_included_sets_become_parts(
    recipe, write_set, tmp_path, photo_factory
):
    """`wild` has two photos of its own, an edit of a third, and an edit that shows nothing."""
    wild, root = tmp_path / "wild", tmp_path / "set"
    wild.mkdir()
    rows = [{"file_name": f"real{i}.png", "label": "real", "source": "camera"} for i in range(3)]
    edit = {"file_name": "edit.png", "label": "synthetic", "kind": "ai_whole", "family": "other"}
    rows.append({**edit, "pair": "real2.png", "source": "camera"})
    rows.append({**rows[3], "file_name": "unedited.png", "kind": "ai_region"})
    for row, look in zip(rows, (0, 1, 2, 3, 2), strict=True):
        Image.fromarray(photo_factory(300, 260, look)).save(wild / row["file_name"])
    write_manifest(wild, pd.DataFrame(rows).fillna(""))
    source = replace(recipe.source, more=[str(wild)], crop=96)
    with pytest.raises(SynthesisError) as caught:  # the other folder has splits
        synthesize(replace(recipe, source=source), root)
    assert caught.value.code == "no_split"
    write_manifest(wild, pd.DataFrame(rows).fillna("").assign(split="val"))
    manifest = read_manifest(wild)
    write_split_table(tmp_path / "splits.csv", manifest, manifest.table)
    other = write_set(tmp_path / "other", groups=6, splits=False)
    include = {
        "wild": IncludeSettings(str(wild), splits=str(tmp_path / "splits.csv")),
        "generated": IncludeSettings(str(other), exceptions={"source": "few real photos"}),
        "left_out": None,
    }
    whole = replace(recipe, source=source, include=include)
    synthesize(whole, root)
    table = read_manifest(root).table
    check_splits(table)
    parts = dict(list(table.groupby("part")))
    assert set(parts) == {"photos", "wild", "generated"}
    edited = parts["photos"][parts["photos"]["source"] == "camera"]
    assert (edited["kind"] == "original").sum() == 2
    assert set(edited["family"]) > {"toy"}
    assert all(group.startswith("wild/") for group in edited["group"])
    assert {pixels(root / name).shape for name in edited["file_name"]} == {(88, 88, 3)}
    assert sorted(parts["wild"]["kind"]) == ["ai_whole", "original"]
    assert set(parts["wild"]["split"]) == {"val"}
    for column in ("file_name", "group"):
        assert parts["generated"][column].str.startswith("generated/").all()
    assert set(parts["generated"]["label"]) == {"real", "synthetic"}
    sizes = {
        part: {pixels(root / name).shape for name in rows["file_name"]}
        for part, rows in parts.items()
    }
    assert sizes["wild"] | sizes["generated"] <= sizes["photos"]
    exceptions = json.loads((root / "audit_exceptions.json").read_text())
    assert exceptions == [{"part": "generated", "test": "source", "reason": "few real photos"}]
    before = (root / "metadata.csv").read_bytes()
    assert synthesize(whole, root).made == 0
    assert (root / "metadata.csv").read_bytes() == before
    clear(root)
    assert not list(root.iterdir())


def test_an_interrupted_run_goes_on_and_any_number_of_workers_gives_the_same_bytes(
    recipe, made, tmp_path, monkeypatch
):
    gone = {"gone": GeneratorSettings("gone.safetensors", "toy")}
    with pytest.raises(SynthesisError, match=r"gone\.safetensors"):
        synthesize(replace(recipe, generators=gone), tmp_path / "cut")
    assert list((tmp_path / "cut").iterdir()) == []  # so that the next run may have it
    make = runner._make

    def fail_at_three(job, index):
        if index == 3:
            raise SynthesisError("the power went")
        return make(job, index)

    monkeypatch.setattr(runner, "_make", fail_at_three)
    with pytest.raises(SynthesisError, match="the power went"):
        synthesize(recipe, tmp_path / "cut")
    assert not (tmp_path / "cut" / "metadata.csv").exists()
    monkeypatch.setattr(runner, "_make", make)
    resumed = synthesize(recipe, tmp_path / "cut")
    assert 0 < resumed.made < resumed.photos == len(read_manifest(made))
    assert contents(tmp_path / "cut") == contents(made)
    # Once it is finished, nothing is loaded or written again: the splits may be the user's by now.
    monkeypatch.setattr(runner, "for_each", lambda *_: pytest.fail("works"))
    monkeypatch.setattr(runner, "write_manifest", lambda *_: pytest.fail("writes"))
    again = synthesize(recipe, tmp_path / "cut")
    assert (again.made, again.photos) == (0, resumed.photos)


def test_the_codecs_recipe_needs_a_plain_folder_and_no_network(
    run_command, photo_factory, tmp_path, monkeypatch
):
    (tmp_path / "mine").mkdir()
    for index in range(8):
        Image.fromarray(photo_factory(72, 72, index)).save(tmp_path / "mine" / f"{index}.jpg")
    reached = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: reached.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: reached.append(address))
    given = ("+recipe=codecs", "recipe.source.root=mine", "out=set", "recipe.workers=1")
    done = run_command("synthesize", *given)
    assert done.code == 0, done.err
    assert reached == []
    table = read_manifest(tmp_path / "set").table
    assert (table["kind"] == "original").sum() == 8
    assert set(table["family"]) - {""} <= set(HOUSE_CODECS)
    assert set(table["split"]) == {"train", "val", "test", "policy"}


def test_another_recipe_is_refused_until_it_is_cleared(recipe, tmp_path):
    """And nothing of the user's own is removed."""
    root, other = tmp_path / "set", replace(recipe, seed=4)
    synthesize(recipe, root)
    mine = {root / "notes.txt", root / "photos" / "holiday.jpg", root / "masks" / "holiday.png"}
    for path in mine:
        path.write_text("mine")
    fewer = replace(recipe.source, per_source=3)
    for changed in (other, replace(recipe, source=fewer)):  # or the same recipe over other photos
        with pytest.raises(UsageError) as caught:
            synthesize(changed, root)
        assert caught.value.code == "other_set"
    assert synthesize(other, root, overwrite=True).made > 0
    clear(root)
    assert {path for path in root.rglob("*") if path.is_file()} == mine
    for overwrite in (False, True):
        with pytest.raises(UsageError) as caught:
            synthesize(other, root, overwrite)
        assert caught.value.code == "not_ours"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"source": SourceSettings()}, "source.root"),
        ({"shares": {"default": {"ai_regoin": 1.0}}}, "shares.default.ai_regoin"),
        ({"include": {"masks": IncludeSettings("x")}}, "include.masks"),
        ({"generators": {}}, "ai_region"),
        ({"fractions": {"train": 0.5, "policy": 1.0}}, "policy=1"),
        ({"generators": {"x": GeneratorSettings("w", engine="paint")}}, "engine=paint"),
    ],
)
def test_wrong_settings_are_named(recipe, tmp_path, changes, key):
    with pytest.raises((SynthesisError, ConfigError, UsageError), match=key):
        synthesize(replace(recipe, **changes), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_damage_is_as_frequent_on_synthetic_photos_as_on_real_ones(recipe, caplog):
    """In expectation: by the counts that the recipe plans and the share of painted edits that it
    works out."""
    shares = {
        "damaged": {"annotated": 1.0, "ai_region": 0.3, "ai_whole": 0.1},
        "default": {"annotated": 0.1, "ai_region": 1.0, "ai_whole": 0.5, "pasted": 0.1},
    }
    balanced = replace(recipe, shares=shares, paint_share=None)
    n = {"damaged": 300, "intact": 400, "unknown": 1000}
    p = balanced_paint_share(balanced, n)
    assert 0.05 < p < 0.6
    real = 300 * 2.0, 400 * 1.1
    shown = 300 * 0.4 + 1400 * 0.1 + p * (400 * 1.5 + 1000 * 1.5)
    not_shown = (1 - p) * 400 * 1.5
    assert shown / (shown + not_shown) == pytest.approx(real[0] / sum(real))
    assert balanced_paint_share(replace(balanced, paint_share=0.3), n) == 0.3
    assert not caplog.records
    lavish = replace(recipe, shares={"default": {"ai_region": 3.0}}, paint_share=None)
    assert balanced_paint_share(lavish, {"damaged": 100, "intact": 10, "unknown": 0}) == 0.0
    assert len(caplog.records) == 1


def test_a_cluster_whose_machines_do_not_share_the_folder_is_named(recipe, tmp_path, monkeypatch):
    """The rest of Ray is tested on a cluster, in tests/scale."""
    cluster = SimpleNamespace(in_actors=lambda *_, **__: iter(()))
    monkeypatch.setitem(sys.modules, "realdamage.scale.cluster", cluster)
    with pytest.raises(RealDamageError) as caught:
        runner.synthesize(recipe, tmp_path / "ray", {}, runner="ray")
    assert caught.value.code == "folder_not_shared"


def test_annotations_on_edits_are_not_called_synthetic(recipe, tmp_path):
    plain, marked = tmp_path / "plain", tmp_path / "marked"
    wholes = replace(recipe, shares={"default": {"ai_whole": 1.0}})
    synthesize(wholes, plain)
    synthesize(replace(wholes, overlay_share=1.0), marked)
    table = read_manifest(marked).table
    for row in table[table["kind"] == "ai_whole"].to_dict("records"):
        unmarked = pixels(marked / row["mask_file_name"])[..., 0] == 0
        assert 0 < unmarked.mean() < 0.9
        name = row["file_name"]
        changed = np.abs(pixels(marked / name) - pixels(plain / name)).max(axis=2)
        assert changed[unmarked].mean() > 5 * changed[~unmarked].mean()


class Darken:
    """An engine of one's own: darkens the upper half, and notes what it is asked for."""

    kinds: ClassVar = ("ai_region",)
    uses_prompts: ClassVar = True
    fills_machine: ClassVar = True
    asked: ClassVar[list[str]] = []

    def __init__(self, name, settings, prompts):
        self.weights = str(settings.weights)

    def apply(self, rgb, kind, damage, rng):
        Darken.asked.append(damage)
        mask = np.zeros(rgb.shape[:2], np.bool_)
        mask[: rgb.shape[0] // 2] = True
        edited = np.where(mask[..., None], rgb // 2, rgb)
        return Edit(edited, mask, damage, {"model": self.weights})


def test_an_engine_is_one_class_and_one_entry_of_a_recipe(recipe, tmp_path, monkeypatch):
    """It gets the edits that it can make, and its details reach the manifest."""
    monkeypatch.setattr(runner, "Darken", Darken, raising=False)
    mine = GeneratorSettings("hub/mine", "mine", "realdamage.synthesis.runner:Darken")
    shares = {"default": {"ai_region": 4.0, "ai_whole": 2.0}}
    generators = {**recipe.generators, "dark": mine}
    with_mine = replace(recipe, generators=generators, shares=shares, paint_share=0.5)
    synthesize(with_mine, tmp_path / "set")
    table = read_manifest(tmp_path / "set").table
    dark = table[table["generator"] == "dark"]
    assert set(dark["kind"]) == {"ai_region"}
    assert set(dark["family"] + dark["model"]) == {"minehub/mine"}
    for damage, asked in zip(dark["damage"], Darken.asked, strict=True):
        assert damage == asked or (damage, asked) == ("torn", "")  # that of the photo itself
    assert set(table["generator"][table["kind"] == "ai_whole"]) == {"tiny"}
    # Prompts count only for engines that use them.
    assert with_mine.digest({"a": 1}) != with_mine.digest({"a": 2})
    assert recipe.digest({"a": 1}) == recipe.digest({"a": 2})
