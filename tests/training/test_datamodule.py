"""From a folder to batches: splits, weights, exclusions, photos made on the spot, and broken files
by name."""

import logging

import pandas as pd
import pytest
import torch

from realdamage.commands import train
from realdamage.core.tiles import PixelSpec
from realdamage.data.degradations import Degradations
from realdamage.data.manifest import read_manifest
from realdamage.data.readers import Reader
from realdamage.data.vocabulary import KINDS
from realdamage.errors import ConfigError, ManifestError
from realdamage.schema import DataConfig
from realdamage.training.datamodule import DamageDataModule, balanced_chances
from realdamage.training.dataset import training_units

SPEC = PixelSpec(tile=64, patch=16, overlap=16)


def module(root, **options):
    made = DamageDataModule(DataConfig(str(root), **{"batch_units": 4, **options}), SPEC, seed=0)
    made.prepare_data()
    made.setup("fit")
    return made


def test_batches_hold_both_halves_of_every_training_pair(tiny_manifest):
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


def test_a_checkpoint_inside_an_epoch_leads_to_its_next_batch(tiny_manifest, caplog):
    """From the first iterator on, since workers read ahead before Lightning sets the epoch. The
    crops are the same, whoever reads them. Another number of processes is a warning."""
    harsh = Degradations(probability=1.0, scale=(0.5, 0.9), quality=(40, 80))
    straight = module(tiny_manifest, degradations=harsh).train_dataloader()
    straight.sampler.set_epoch(2)
    resumed = module(tiny_manifest, workers=1, degradations=harsh)
    resumed.load_state_dict({"epoch": 2, "batches": 1, "processes": 1})
    assert caplog.messages == []
    _, *rest = straight
    for first, second in zip(rest, resumed.train_dataloader(), strict=True):
        assert torch.equal(first["tiles"], second["tiles"])
    resumed.load_state_dict({"epoch": 2, "batches": 1, "processes": 4})
    assert "began with 4 processes and goes on with 1" in caplog.text


def test_class_and_kind_weights_multiply(tiny_manifest):
    of_kinds = {**dict.fromkeys(KINDS, 1.0), "damaged": 2.0, "pasted": 0.0}
    of_labels = {"real": 3.0, "synthetic": 1.0}
    made = module(tiny_manifest, class_weights=of_labels, kind_weights=of_kinds)
    dataset = made.train_dataloader().dataset
    kinds = made.manifest.select(split="train").table["kind"]
    assert dict(zip(kinds, dataset.photo_weights, strict=True)) == {
        **{"original": 3.0, "damaged": 6.0, "annotated": 3.0},
        **{"ai_region": 1.0, "ai_whole": 1.0, "pasted": 0.0},
    }
    unit = dataset.units[3]
    assert dataset[0, 3]["photo_weight"].tolist() == [dataset.photo_weights[row] for row in unit]


def test_synthetic_photos_of_unknown_kind_count_like_others(with_table):
    root = with_table(lambda t: t.assign(kind=t["kind"].where(t["label"] == "real", "")))
    dataset = module(root).train_dataloader().dataset
    assert set(dataset.photo_weights) == {1.0}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda table: table.assign(split=""), "no_split"),  # none is made behind the user's back
        (lambda table: table[(table["split"] != "val") | (table["label"] == "real")], "one_label"),
    ],
)
def test_a_set_that_cannot_be_trained_on_is_refused(with_table, change, code):
    root = with_table(change)
    with pytest.raises(ManifestError) as caught:
        module(root)
    assert caught.value.code == code
    with pytest.raises(ConfigError) as missing:
        module(root / "nope")
    assert missing.value.code == "no_photos"


def test_what_is_excluded_leaves_train_and_val_but_not_test(tiny_manifest):
    made = module(tiny_manifest, exclude={"source": ["shop1"], "kind": ["pasted"]})
    used = made.manifest.table[made.manifest.table["split"] != "test"]
    held_back = made.manifest.table[made.manifest.table["split"] == "test"]
    assert set(used["source"]) == {"shop0"}
    assert "pasted" not in set(used["kind"])
    assert {"shop0", "shop1"} == set(held_back["source"])
    assert made.describe()["excluded"] == {"source": ["shop1"], "kind": ["pasted"]}
    assert made.describe()["generators"] == ["even"]


def test_an_audit_that_could_measure_nothing_is_not_told_to_have_passed(with_table, caplog):
    splits = {"group00": "train", "group01": "train", "group02": "val", "group03": "val"}
    root = with_table(lambda table: table.assign(split=table["group"].map(splits)).dropna())
    audit = module(root).describe()["audit"]
    assert audit["verdict"] == "not measured"
    assert all(figures == [None, None, None] for figures in audit["tests"].values())
    assert "passed" not in caplog.text


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"exclude": {"generator": ["evn"]}}, "'evn'.*even, odd"),
        ({"part_shares": {"photos": 1.0}}, "data.part_shares"),
        ({"balance": ["familly"]}, "data.balance.*familly"),
        ({"balance": ["family"], "part_shares": {"photos": 1.0}}, "data.balance"),
        ({"kind_weights": dict.fromkeys(KINDS, 0.0)}, "data.kind_weights"),
        ({"class_weights": {"real": 1.0, "synthetic": 0.0}}, "class_weights.synthetic"),
    ],
)
def test_settings_that_do_not_fit_the_photos_are_named(tiny_manifest, options, key):
    with pytest.raises(ConfigError, match=key):
        module(tiny_manifest, **options).train_dataloader()


@pytest.mark.slow
def test_an_empty_folder_is_filled_by_the_recipe_once(tmp_path, monkeypatch):
    """The recipe runs for real, made small; a second run finds its photos."""
    from realdamage import configuration
    from realdamage.synthesis import runner

    small = ["recipe.source.per_source=4", "recipe.source.crop=96", "recipe.workers=1"]
    compose = configuration.compose
    monkeypatch.setattr(
        configuration, "compose", lambda command, overrides: compose(command, [*overrides, *small])
    )
    root = tmp_path / "made"
    made = module(root, recipe="quickstart")
    assert {"real", "synthetic"} == set(made.manifest.table["label"])
    monkeypatch.delattr(runner, "synthesize")
    assert module(root, recipe="quickstart").manifest.digest() == made.manifest.digest()


@pytest.mark.slow
def test_broken_files_are_skipped_and_reported_once(write_set, tiny_config, tmp_path, caplog):
    root = write_set(tmp_path / "set", 16)
    (root / "photos/02_ai_region.png").write_bytes(b"\x89PNG but no more")  # train
    (root / "photos/08_original.png").write_bytes(b"")  # val
    config = tiny_config(tmp_path / "run", f"data.root={root}", "data.on_error=skip")
    with caplog.at_level(logging.WARNING, "realdamage"):
        train.run(config)
    skipped = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(skipped) == 2
    assert "02_ai_region.png" in "".join(skipped)
    assert "08_original.png" in "".join(skipped)
    assert (tmp_path / "run/best.ckpt").is_file()


def test_balance_draws_families_alike_then_their_sources_then_their_units(tiny_manifest):
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


def test_a_mapped_table_is_read_like_the_manifest(tiny_manifest, tmp_path):
    """The same photos under other names of columns and labels; checkpoints keep plain values."""
    columns = {"file_name": "path", "label": "fake", "generator": "model", "mask_file_name": "mask"}
    words = {0: "real", True: "synthetic"}  # as YAML reads `0` and `true`
    theirs = pd.read_csv(tiny_manifest / "metadata.csv", dtype=str).rename(columns=columns)
    for name in ("photos", "masks"):
        (tmp_path / name).symlink_to(tiny_manifest / name)
    table = tmp_path / "shots.parquet"
    theirs.replace({"fake": {"real": "0", "synthetic": "true"}}).to_parquet(table)
    made = module(table, reader=Reader(columns=columns, values={"label": words}))
    assert made.manifest.digest() == read_manifest(tiny_manifest).digest()
    assert made.train_dataloader().dataset[0, 0]  # its photos are found
    torch.save(dict(made.hparams), tmp_path / "hparams.pt")
    torch.load(tmp_path / "hparams.pt", weights_only=True)
    with pytest.raises(ManifestError, match="'file_name' is missing"):
        module(table)
