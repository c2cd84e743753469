"""From a folder to batches: splits, weights, exclusions, photos made on the spot, and broken files
by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from realdamage.commands import train
from realdamage.core.tiles import PixelSpec
from realdamage.data.degradations import Degradations
from realdamage.data.manifest import KINDS, read_manifest, write_manifest
from realdamage.errors import ConfigError, ManifestError, PhotoError
from realdamage.schema import DataConfig
from realdamage.training.datamodule import DamageDataModule, balanced_chances
from realdamage.training.dataset import training_units

SPEC = PixelSpec(tile=64, patch=16, overlap=16)


def module(root: Path, **options: Any) -> DamageDataModule:
    made = DamageDataModule(DataConfig(str(root), **{"batch_units": 4, **options}), SPEC, seed=0)
    made.prepare_data()
    made.setup("fit")
    return made


def test_batches_hold_both_halves_of_every_training_pair(tiny_manifest: Path) -> None:
    made = module(tiny_manifest, batch_units=7, tiles_per_photo=2)
    batches = list(made.train_dataloader())
    assert [batch["tiles"].shape for batch in batches] == [(28, 64, 64, 3)] * 2
    assert batches[0]["tiles"].dtype == torch.uint8
    photos = list(made.val_dataloader())
    assert len(photos) == 11
    labels = read_manifest(tiny_manifest).select(split="val").table["label"]
    assert (
        sum(int(photo["photo_label"].item()) for photo in photos) == (labels == "synthetic").sum()
    )
    assert sum(photo["whole_edit"] for photo in photos) == 1


def test_the_same_seed_gives_the_same_batches_with_any_number_of_workers(
    tiny_manifest: Path,
) -> None:
    harsh = Degradations(probability=1.0, scale=(0.5, 0.9), quality=(40, 80))
    alone, helped = (
        next(iter(module(tiny_manifest, workers=workers, degradations=harsh).train_dataloader()))
        for workers in (0, 1)
    )
    assert torch.equal(alone["tiles"], helped["tiles"])
    assert torch.equal(alone["photo_label"], helped["photo_label"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_checkpoint_inside_an_epoch_leads_to_its_next_batch(
    tiny_manifest: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """From the first iterator on, since workers read ahead before Lightning sets the epoch. Another
    number of processes is a warning."""
    straight = module(tiny_manifest).train_dataloader()
    straight.sampler.set_epoch(2)
    resumed = module(tiny_manifest, workers=workers)
    resumed.load_state_dict({"epoch": 2, "batches": 1, "processes": 1})
    assert caplog.messages == []
    _, *rest = straight
    for first, second in zip(rest, resumed.train_dataloader(), strict=True):
        assert torch.equal(first["tiles"], second["tiles"])
    resumed.load_state_dict({"epoch": 2, "batches": 1, "processes": 4})
    assert "began with 4 processes and goes on with 1" in caplog.text


def test_class_and_kind_weights_multiply(tiny_manifest: Path) -> None:
    made = module(
        tiny_manifest,
        class_weights={"real": 3.0, "synthetic": 1.0},
        kind_weights={**dict.fromkeys(KINDS, 1.0), "damaged": 2.0, "pasted": 0.0},
    )
    manifest = read_manifest(tiny_manifest).select(split="train")
    expected = {
        "original": 3.0,
        "damaged": 6.0,
        "annotated": 3.0,
        "ai_region": 1.0,
        "ai_whole": 1.0,
        "pasted": 0.0,
    }
    dataset: Any = made.train_dataloader().dataset
    assert {
        kind: dataset.photo_weights[row] for row, kind in enumerate(manifest.table["kind"])
    } == expected
    unit = dataset.units[3]
    assert dataset[0, 3]["photo_weight"].tolist() == [dataset.photo_weights[row] for row in unit]


def test_photos_without_splits_are_not_split_behind_the_users_back(
    write_set, tmp_path: Path
) -> None:
    root = write_set(tmp_path / "set", 4, splits=False)
    with pytest.raises(ManifestError, match=f"realdamage split {root}") as caught:
        module(root)
    assert caught.value.code == "no_split"


def test_excluded_generators_leave_train_and_val_but_not_test(tiny_manifest: Path) -> None:
    made = module(tiny_manifest, exclude={"generator": ["odd"]})
    table = made.manifest.table
    assert set(table.loc[table["split"] != "test", "generator"]) == {"", "even"}
    assert "odd" in set(table.loc[table["split"] == "test", "generator"])
    assert made.describe()["excluded"] == {"generator": ["odd"]}
    assert made.describe()["generators"] == ["even"]


def test_it_describes_what_it_trained_on(tiny_manifest: Path) -> None:
    manifest = read_manifest(tiny_manifest)
    described = module(tiny_manifest).describe()
    assert described.pop("audit")["verdict"] == "passed"
    assert described == {
        "manifest_sha256": manifest.digest(),
        "photos": {"real": 10, "synthetic": 12},
        "generators": ["even", "odd"],
        "excluded": {},
    }


def test_an_audit_that_could_measure_nothing_is_not_told_to_have_passed(
    write_set, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_set(tmp_path / "set", 4)
    table = read_manifest(root).table
    write_manifest(
        root,
        table.assign(split=["train" if group < "group02" else "val" for group in table["group"]]),
    )
    described = module(root).describe()
    assert described["audit"]["verdict"] == "not measured"
    assert set(described["audit"]["tests"]) == {"container", "source", "damage", "condition"}
    assert all(figures == [None, None, None] for figures in described["audit"]["tests"].values())
    assert "5 real and 6 synthetic" in caplog.text
    assert "passed" not in caplog.text


@pytest.mark.parametrize(
    ("column", "named"), [("generator", "'evn'.*even, odd"), ("generatr", "generatr.*file_name")]
)
def test_an_exclusion_that_fits_nothing_names_what_there_is(
    tiny_manifest: Path, column: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        module(tiny_manifest, exclude={column: ["evn"]})


def test_a_source_can_be_left_out_with_its_real_photos(tiny_manifest: Path) -> None:
    made = module(tiny_manifest, exclude={"source": ["shop1"], "kind": ["pasted"]})
    used = made.manifest.table[made.manifest.table["split"] != "test"]
    assert set(used["source"]) == {"shop0"}
    assert "pasted" not in set(used["kind"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_of_one_label_is_refused_and_named(write_set, tmp_path: Path, split: str) -> None:
    root = write_set(tmp_path / "set", 16)
    table = read_manifest(root).table
    write_manifest(root, table[~((table["split"] == split) & (table["label"] == "synthetic"))])
    with pytest.raises(ManifestError, match=split) as caught:
        module(root)
    assert caught.value.code == "one_label"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"part_shares": {"photos": 1.0}}, "data.part_shares"),
        ({"balance": ["familly"]}, "data.balance.*familly"),
        ({"balance": ["family"], "part_shares": {"photos": 1.0}}, "data.balance"),
        ({"kind_weights": dict.fromkeys(KINDS, 0.0)}, "data.kind_weights"),
        ({"class_weights": {"real": 1.0, "synthetic": 0.0}}, "class_weights.synthetic"),
    ],
)
def test_settings_that_do_not_fit_the_photos_are_named(
    tiny_manifest: Path, options: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match=key):
        module(tiny_manifest, **options).train_dataloader()


@pytest.mark.slow
def test_an_empty_folder_is_filled_by_the_recipe_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe runs for real, made small; a second run finds its photos."""
    from realdamage import configuration
    from realdamage.synthesis import runner

    small = ["recipe.source.per_source=4", "recipe.source.crop=96", "recipe.workers=1"]
    compose = configuration.compose
    monkeypatch.setattr(
        configuration, "compose", lambda command, overrides: compose(command, [*overrides, *small])
    )
    runs: list[Path] = []
    synthesize = runner.synthesize
    monkeypatch.setattr(
        runner,
        "synthesize",
        lambda *given, **options: runs.append(given[1]) or synthesize(*given, **options),
    )
    root = tmp_path / "made"
    made = module(root, recipe="quickstart")
    assert {"real", "synthetic"} == set(made.manifest.table["label"])
    assert next(iter(made.train_dataloader()))["tiles"].shape[1:] == (64, 64, 3)
    digest = made.manifest.digest()
    assert module(root, recipe="quickstart").manifest.digest() == digest
    assert runs == [root]


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_broken_files_stop_the_run_or_are_reported_once(
    on_error: str,
    write_set: Callable[..., Path],
    tiny_config: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = write_set(tmp_path / "set", 16)
    (root / "photos/02_ai_region.png").write_bytes(b"\x89PNG but no more")  # train
    (root / "photos/08_original.png").write_bytes(b"")  # val
    config = tiny_config(tmp_path / "run", f"data.root={root}", f"data.on_error={on_error}")
    if on_error == "raise":
        with pytest.raises(PhotoError, match=r"02_ai_region\.png"):
            train.run(config)
        return
    with caplog.at_level(logging.WARNING, "realdamage"):
        train.run(config)
    skipped = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(skipped) == 2
    assert "02_ai_region.png" in "".join(skipped)
    assert "08_original.png" in "".join(skipped)
    assert (tmp_path / "run/best.ckpt").is_file()


def test_balance_draws_families_alike_then_their_sources_then_their_units(
    tiny_manifest: Path,
) -> None:
    manifest = read_manifest(tiny_manifest)
    units = training_units(manifest)
    last = manifest.table.iloc[[unit[-1] for unit in units]].reset_index(drop=True)
    chances = pd.Series(balanced_chances(manifest, units, ["family", "source"]))
    assert chances.groupby(last["family"]).sum().tolist() == pytest.approx([0.5, 0.5])
    nested = chances.groupby([last["family"], last["source"]])
    assert nested.sum().tolist() == pytest.approx([0.25] * 4)
    assert (nested.nunique() == 1).all()
    loader = module(tiny_manifest, balance=["source"], epoch_units=40).train_dataloader()
    assert len(loader.sampler) == 40
