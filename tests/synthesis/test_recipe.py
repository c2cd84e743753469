"""A recipe gives the same set however it is run, never mixes two sets, and keeps what hangs together together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from realdamage.data.manifest import KINDS, read_manifest
from realdamage.data.splits import check_splits
from realdamage.inference.errors import SynthesisError
from realdamage.synthesis import recipe as recipes
from realdamage.synthesis.house_codec import HouseCodec, HouseCodecSpec, save_house_codec
from realdamage.synthesis.recipe import CodecSettings, Recipe, SourceSettings, WriterSettings, clear, synthesize

SHARES = {"annotated": 0.6, "ai_region": 1.0, "ai_whole": 0.6, "pasted": 0.8}


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> CodecSettings:
    path = tmp_path_factory.mktemp("codec") / "tiny.safetensors"
    save_house_codec(HouseCodec(HouseCodecSpec(stages=1, latent=2, width=4)), path)
    return CodecSettings("tiny", str(path), "toy")


@pytest.fixture
def recipe(codec: CodecSettings, tiny_manifest: Path) -> Recipe:
    """Over the 16 real photos of `tiny_manifest`: PNG, split already."""
    source = SourceSettings(kind="manifest", root=str(tiny_manifest))
    return Recipe(
        name="test", seed=3, source=source, shares=SHARES, codecs=(codec,), writer=WriterSettings((85, 95)), workers=1
    )


def contents(root: Path) -> dict[str, str]:
    files = [path for folder in ("photos", "masks") for path in (root / folder).iterdir()]
    files.append(root / "metadata.csv")
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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


def test_the_sources_own_splits_hold_for_what_is_made_of_its_photos(table: pd.DataFrame, tiny_manifest: Path) -> None:
    source = read_manifest(tiny_manifest).table
    wanted = source.drop_duplicates("group").set_index("group")["split"]
    assert table["split"].tolist() == wanted[table["group"]].tolist()


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


def test_two_workers_make_what_one_makes(recipe: Recipe, tmp_path: Path) -> None:
    synthesize(recipe, tmp_path / "one")
    synthesize(replace(recipe, workers=2), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_recipe_in_the_folder_is_refused_until_it_is_cleared(recipe: Recipe, tmp_path: Path) -> None:
    root = tmp_path / "set"
    synthesize(recipe, root)
    (root / "notes.txt").write_text("mine")
    other = replace(recipe, seed=4)
    with pytest.raises(SynthesisError, match=r"another recipe.*overwrite=true"):
        synthesize(other, root)
    clear(root)
    assert [path.name for path in root.iterdir()] == ["notes.txt"]
    synthesize(other, root)


def test_other_source_photos_are_another_set(recipe: Recipe, tmp_path: Path) -> None:
    synthesize(replace(recipe, source=replace(recipe.source, per_source=2)), tmp_path)
    with pytest.raises(SynthesisError, match="other source photos"):
        synthesize(replace(recipe, source=replace(recipe.source, per_source=3)), tmp_path)


def test_a_folder_that_no_recipe_made_is_left_alone(recipe: Recipe, tiny_manifest: Path) -> None:
    before = (tiny_manifest / "metadata.csv").read_bytes()
    with pytest.raises(SynthesisError, match="no recipe of ours made"):
        synthesize(recipe, tiny_manifest)
    with pytest.raises(SynthesisError, match="left as it is"):
        clear(tiny_manifest)
    assert (tiny_manifest / "metadata.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": SourceSettings(kind="film")}, "source.kind=film"),
        ({"source": SourceSettings(kind="manifest")}, "source.root is empty"),
        ({"shares": {"ai_regoin": 1.0}}, "shares.ai_regoin"),
        ({"shares": {"pasted": 1.5}}, "shares.pasted=1.5"),
        ({"damages": ("bent",)}, "damages="),
        ({"codecs": ()}, "codecs is empty"),
    ],
)
def test_wrong_settings_are_named(recipe: Recipe, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SynthesisError, match=message):
        replace(recipe, **changes)  # type: ignore[arg-type]
