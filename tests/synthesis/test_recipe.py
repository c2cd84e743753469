"""A recipe gives the same set however it is run, never mixes two sets, and keeps what hangs together together."""

from __future__ import annotations

import hashlib
import json
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import KINDS, read_manifest, write_manifest
from realdamage.data.splits import check_splits, write_split_table
from realdamage.errors import SynthesisError, UsageError
from realdamage.synthesis import recipe as recipes
from realdamage.synthesis.bases import balanced_paint_share, drawn_damages
from realdamage.synthesis.generators import GeneratorSettings
from realdamage.synthesis.group import Base
from realdamage.synthesis.house_codec import (
    HOUSE_CODECS,
    HouseCodec,
    HouseCodecSpec,
    save_house_codec,
)
from realdamage.synthesis.recipe import clear, synthesize
from realdamage.synthesis.settings import IncludeSettings, Recipe, SourceSettings, WriterSettings

SHARES = {"default": {"annotated": 0.6, "ai_region": 1.0, "ai_whole": 0.6, "pasted": 0.8}}


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> GeneratorSettings:
    path = tmp_path_factory.mktemp("codec") / "tiny.safetensors"
    save_house_codec(HouseCodec(HouseCodecSpec(stages=1, latent=2, width=4)), path)
    return GeneratorSettings("tiny", str(path), "toy")


@pytest.fixture
def recipe(codec: GeneratorSettings, tiny_manifest: Path) -> Recipe:
    """Over the 16 real photos of `tiny_manifest`: PNG, split already."""
    source = SourceSettings(kind="manifest", root=str(tiny_manifest))
    return Recipe(
        name="test",
        seed=3,
        source=source,
        shares=SHARES,
        paint_share=0.5,
        generators=(codec,),
        writer=WriterSettings((85, 95)),
        workers=1,
    )


def contents(root: Path) -> dict[str, str]:
    files = [path for folder in ("photos", "masks") for path in (root / folder).iterdir()]
    files.append(root / "metadata.csv")
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture
def table(recipe: Recipe, tmp_path: Path) -> pd.DataFrame:
    synthesize(recipe, tmp_path / "set")
    return read_manifest(tmp_path / "set").table


def test_all_six_kinds_and_what_each_must_have(table: pd.DataFrame) -> None:
    assert set(table["kind"]) == set(KINDS)
    synthetic = table["label"] == "synthetic"
    assert (table["mask_file_name"] != "").equals(synthetic)
    assert (table["pair"] == "").equals(table["kind"].isin(("original", "damaged")))
    assert set(table.loc[table["kind"].str.startswith("ai_"), "generator"]) == {"tiny"}
    check_splits(table)


def test_the_sources_own_splits_hold_for_what_is_made_of_its_photos(
    table: pd.DataFrame, tiny_manifest: Path
) -> None:
    source = read_manifest(tiny_manifest).table
    wanted = source.drop_duplicates("group").set_index("group")["split"]
    assert table["split"].tolist() == wanted[table["group"]].tolist()


def test_a_second_folder_is_edited_too_and_included_once(
    recipe: Recipe, tmp_path: Path, photo_factory: Callable[..., Any]
) -> None:
    """`wild` has two photos of its own, an edit of a third by somebody else, and one of which nothing is to be seen."""
    wild = tmp_path / "wild"
    wild.mkdir()
    rows = [{"file_name": f"real{i}.png", "label": "real", "source": "camera"} for i in range(3)]
    rows.append(
        {"file_name": "edit.png", "label": "synthetic", "kind": "ai_whole", "family": "other"}
    )
    rows[3] |= {"pair": "real2.png", "source": "camera"}
    rows.append({**rows[3], "file_name": "unedited.png", "kind": "ai_region"})
    for row, look in zip(rows, (0, 1, 2, 3, 2), strict=True):
        Image.fromarray(photo_factory(300, 260, look)).save(wild / row["file_name"])
    write_manifest(wild, pd.DataFrame(rows).fillna(""))
    source = replace(recipe.source, more=(str(wild),), crop=200)
    with pytest.raises(
        SynthesisError, match=r"recipe\.source\.splits"
    ):  # the other folder has splits
        synthesize(replace(recipe, source=source), tmp_path / "set")
    write_manifest(wild, pd.DataFrame(rows).fillna("").assign(split="val"))
    manifest = read_manifest(wild)
    write_split_table(tmp_path / "splits.csv", manifest, manifest.table)
    include = (IncludeSettings("wild", str(wild), splits=str(tmp_path / "splits.csv")),)
    synthesize(replace(recipe, source=source, include=include), tmp_path / "set")
    table = read_manifest(tmp_path / "set").table
    edited = table[(table["part"] == "photos") & (table["source"] == "camera")]
    assert sorted(edited["kind"].value_counts()["original":"original"]) == [2]
    assert set(edited["family"]) > {"toy"}
    assert all(group.startswith("wild/") for group in edited["group"])
    for name in edited["file_name"]:
        with Image.open(tmp_path / "set" / name) as image:
            assert image.size == (192, 192)  # the crop less the writer's offset
    included = table[table["part"] == "wild"]
    assert sorted(included["kind"]) == ["ai_whole", "original"]
    assert set(included["split"]) == {"val"}


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = synthesize(recipe, tmp_path / "straight")
    make: Callable[[int], int] = recipes._make

    def fail_at_five(index: int) -> int:
        if index == 5:
            raise SynthesisError("the power went")
        return make(index)

    monkeypatch.setattr(recipes, "_make", fail_at_five)
    with pytest.raises(SynthesisError, match="the power went"):
        synthesize(recipe, tmp_path / "cut")
    assert not (tmp_path / "cut" / "metadata.csv").exists()
    monkeypatch.setattr(recipes, "_make", make)
    resumed = synthesize(recipe, tmp_path / "cut")
    assert 0 < resumed.made < straight.made == resumed.photos
    assert contents(tmp_path / "cut") == contents(tmp_path / "straight")
    assert synthesize(recipe, tmp_path / "cut").made == 0


def test_a_call_that_fails_at_once_does_not_block_the_next(recipe: Recipe, tmp_path: Path) -> None:
    broken = replace(
        recipe, generators=(GeneratorSettings("gone", str(tmp_path / "gone.safetensors"), "toy"),)
    )
    for workers in (1, 2):
        with pytest.raises(SynthesisError, match=r"gone\.safetensors"):
            synthesize(replace(broken, workers=workers), tmp_path / "set")
        assert list((tmp_path / "set").iterdir()) == []
    assert (
        synthesize(recipe, tmp_path / "set").made == synthesize(recipe, tmp_path / "straight").made
    )
    assert contents(tmp_path / "set") == contents(tmp_path / "straight")


def test_the_codecs_recipe_needs_a_plain_folder_and_no_network(
    run_command: Callable[..., Any],
    photo_factory: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "mine").mkdir()
    for index in range(8):
        Image.fromarray(photo_factory(80, 96, index)).save(tmp_path / "mine" / f"{index}.jpg")
    reached: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: reached.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: reached.append(address))
    done = run_command(
        "synthesize", "+recipe=codecs", "recipe.source.root=mine", "out=set", "recipe.workers=1"
    )
    assert done.code == 0, done.err
    assert reached == []
    table = read_manifest(tmp_path / "set").table
    assert (table["kind"] == "original").sum() == 8
    assert set(table["family"]) - {""} <= set(HOUSE_CODECS)
    assert set(table["split"]) == {"train", "val", "test", "policy"}


def test_two_workers_make_what_one_makes(recipe: Recipe, tmp_path: Path) -> None:
    synthesize(recipe, tmp_path / "one")
    synthesize(replace(recipe, workers=2), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_recipe_in_the_folder_is_refused_until_it_is_cleared(
    recipe: Recipe, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    synthesize(recipe, root)
    (root / "notes.txt").write_text("mine")
    other = replace(recipe, seed=4)
    with pytest.raises(UsageError, match=r"another set.*overwrite=true"):
        synthesize(other, root)
    clear(root)
    assert [path.name for path in root.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="holds something that synthesize did not make"):
        synthesize(other, root)
    synthesize(recipe, tmp_path / "first")
    (tmp_path / "first" / "notes.txt").write_text("mine")
    synthesize(other, tmp_path / "first", overwrite=True)
    (tmp_path / "first" / "notes.txt").unlink()
    synthesize(other, tmp_path / "straight")
    assert contents(tmp_path / "first") == contents(tmp_path / "straight")


def test_a_users_own_photo_is_never_removed(recipe: Recipe, tmp_path: Path) -> None:
    """Neither a folder of one's own photos, nor a photo put beside those that a recipe made."""
    root = tmp_path / "own"
    (root / "photos").mkdir(parents=True)
    (root / "photos" / "holiday.jpg").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds something that synthesize did not make"):
            synthesize(recipe, root, overwrite=overwrite)
    assert [path.name for path in root.rglob("*")] == ["photos", "holiday.jpg"]
    made = tmp_path / "made"
    synthesize(recipe, made)
    (made / "photos" / "holiday.jpg").write_bytes(b"mine")
    (made / "masks" / "holiday.png").write_bytes(b"mine")
    synthesize(replace(recipe, seed=5), made, overwrite=True)
    assert (
        (made / "photos" / "holiday.jpg").read_bytes()
        == (made / "masks" / "holiday.png").read_bytes()
        == b"mine"
    )
    clear(made)
    left = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert left == {"photos/holiday.jpg", "masks/holiday.png"}


def as_before_marks_listed_files(root: Path) -> None:
    """Turns a set's mark into the one that earlier versions wrote."""
    mark = json.loads((root / ".parts" / "mark.json").read_text())
    (root / ".parts" / "mark.json").unlink()
    old = {name: mark[name] for name in ("name", "digest", "recipe")}
    (root / ".parts" / "recipe.json").write_text(json.dumps(old))


def test_a_set_of_an_earlier_version_goes_on_and_is_cleared(recipe: Recipe, tmp_path: Path) -> None:
    straight, root = tmp_path / "straight", tmp_path / "set"
    synthesize(recipe, straight)
    synthesize(recipe, root)
    as_before_marks_listed_files(root)
    (root / ".parts" / "000003.json").unlink()
    (root / "metadata.csv").unlink()
    assert 0 < synthesize(recipe, root).made < 10
    assert contents(root) == contents(straight)
    as_before_marks_listed_files(straight)
    with pytest.raises(UsageError, match="another set"):
        synthesize(replace(recipe, seed=5), straight)
    (straight / "photos" / "holiday.jpg").write_bytes(b"mine")
    clear(straight)
    assert [path.name for path in straight.rglob("*")] == ["photos", "holiday.jpg"]


def test_other_source_photos_are_another_set(recipe: Recipe, tmp_path: Path) -> None:
    synthesize(replace(recipe, source=replace(recipe.source, per_source=2)), tmp_path)
    with pytest.raises(UsageError, match="of other photos"):
        synthesize(replace(recipe, source=replace(recipe.source, per_source=3)), tmp_path)


def test_a_folder_that_no_recipe_made_is_left_alone(recipe: Recipe, tiny_manifest: Path) -> None:
    before = (tiny_manifest / "metadata.csv").read_bytes()
    with pytest.raises(UsageError, match="synthesize did not make"):
        synthesize(recipe, tiny_manifest)
    with pytest.raises(UsageError, match="left as it is"):
        clear(tiny_manifest)
    assert (tiny_manifest / "metadata.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": SourceSettings(kind="film")}, "source.kind=film"),
        ({"source": SourceSettings(kind="manifest")}, "source.root is empty"),
        ({"shares": {"default": {"ai_regoin": 1.0}}}, "shares.default.ai_regoin"),
        ({"shares": {"default": {"pasted": -1.0}}}, "shares.default.pasted=-1.0"),
        ({"shares": {"wet": {"pasted": 1.0}}}, "shares.wet: allowed are intact"),
        ({"paint_share": 1.5}, "paint_share=1.5"),
        ({"overlay_share": -0.5}, "overlay_share=-0.5"),
        ({"damages": ("bent",)}, "damages="),
        ({"include": (IncludeSettings("masks", "x"),)}, r"include\.masks: it becomes a folder"),
        (
            {"include": (IncludeSettings("more"),)},
            r"include\.more\.root is empty.*include\.more=null",
        ),
        ({"generators": ()}, "generators has none with engine codec or inpaint, but ai_region"),
    ],
)
def test_wrong_settings_are_named(recipe: Recipe, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SynthesisError, match=message):
        replace(recipe, **changes)  # type: ignore[arg-type]


def test_damage_is_as_frequent_on_synthetic_photos_as_on_real_ones(recipe: Recipe) -> None:
    """In expectation: the counts that the recipe plans for, with the share of painted edits that it works out."""
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


def test_a_recipe_that_cannot_be_balanced_says_what_to_change(
    recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    lavish = replace(recipe, shares={"default": {"ai_region": 3.0}}, paint_share=None)
    assert balanced_paint_share(lavish, {"damaged": 100, "intact": 10, "unknown": 0}) == 0.0
    assert "fewer edits of damaged photos" in caplog.text


def test_damage_types_are_drawn_as_often_as_real_photos_have_them(recipe: Recipe) -> None:
    bases = [Base(damage="torn")] * 150 + [Base(damage="dented")] * 50 + [Base()] * 100
    drawn = Counter(drawn_damages(recipe, bases))
    assert drawn["torn"] == 152
    assert drawn["dented"] == 52
    assert drawn["cracked"] == 2


def test_splits_come_from_a_split_table_where_one_is_given(
    recipe: Recipe, tiny_manifest: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(tiny_manifest)
    locked = manifest.table.assign(
        split=["policy" if i % 2 else "test" for i in range(len(manifest))]
    )
    locked["split"] = locked.groupby("group")["split"].transform("first")
    write_split_table(tmp_path / "splits.csv", manifest, locked)
    source = replace(recipe.source, splits=str(tmp_path / "splits.csv"))
    synthesize(replace(recipe, source=source), tmp_path / "set")
    made = read_manifest(tmp_path / "set").table
    wanted = locked.drop_duplicates("group").set_index("group")["split"]
    assert made["split"].tolist() == wanted[made["group"]].tolist()
    assert set(made["split"]) <= {"policy", "test"}


def test_an_included_set_becomes_a_part_in_the_others_sizes_and_with_its_exception(
    recipe: Recipe, write_set, tmp_path: Path
) -> None:
    other = write_set(tmp_path / "other", groups=6, splits=False)
    include = IncludeSettings("generated", str(other), exceptions={"source": "few real photos"})
    root = tmp_path / "set"
    whole = replace(recipe, include=(include,))
    synthesize(whole, root)
    table = read_manifest(root).table
    parts = table.groupby("part").size()
    assert set(parts.index) == {"photos", "generated"}
    added = table[table["part"] == "generated"]
    assert added["file_name"].str.startswith("generated/photos/").all()
    assert added["group"].str.startswith("generated/").all()
    assert set(added["label"]) == {"real", "synthetic"}
    check_splits(table)

    def sizes(names: pd.Series) -> set[tuple[int, int]]:
        return {Image.open(root / name).size for name in names}

    assert sizes(added["file_name"]) <= sizes(table.loc[table["part"] == "photos", "file_name"])
    exceptions = json.loads((root / "audit_exceptions.json").read_text())
    assert exceptions == [{"part": "generated", "test": "source", "reason": "few real photos"}]
    before = (root / "metadata.csv").read_bytes()
    assert synthesize(whole, root).made == 0
    assert (root / "metadata.csv").read_bytes() == before
    clear(root)
    assert not list(root.iterdir())


def test_processes_under_torchrun_share_the_groups_and_the_last_one_finishes(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesize(recipe, tmp_path / "alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = synthesize(recipe, tmp_path / "shared")
    assert first.photos == 0 < first.made
    assert not (tmp_path / "shared" / "metadata.csv").exists()
    monkeypatch.setenv("RANK", "0")
    second = synthesize(recipe, tmp_path / "shared")
    assert second.photos == first.made + second.made
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
