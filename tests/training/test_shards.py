"""Shards hold a set as its files do: every photo, pairs in one sample, and batches that are equal
byte for byte."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from realdamage.commands import cli
from realdamage.core.tiles import PixelSpec
from realdamage.data.degradations import Degradations
from realdamage.data.manifest import read_manifest
from realdamage.data.readers import read_dataset
from realdamage.data.shards import read_shards, write_shards
from realdamage.errors import ConfigError, ManifestError, PhotoError, UsageError
from realdamage.schema import DataConfig
from realdamage.training.datamodule import DamageDataModule
from realdamage.training.photos import training_photos

SPEC = PixelSpec(tile=64, patch=16, overlap=16)
HARSH = Degradations(probability=1.0, scale=(0.5, 0.9), quality=(40, 80))


@pytest.fixture(scope="module")
def shards(tiny_manifest, tmp_path_factory):
    """`tiny_manifest` in shards, as the command writes them; tests must not change it."""
    out = tmp_path_factory.mktemp("shards") / "set"
    assert cli.main(["manifest", str(tiny_manifest), "--to-shards", str(out)]) == 0
    return out


def module(root, **options):
    data = DataConfig(str(root), **{"batch_units": 4, "degradations": HARSH, **options})
    made = DamageDataModule(data, SPEC, seed=3)
    made.setup("fit")
    return made


def test_the_index_is_the_manifest_and_every_byte_is_in_its_shard(tiny_manifest, shards):
    files, found = read_manifest(tiny_manifest), read_shards(str(shards))
    assert found.digest() == files.digest()
    assert list(found.table.columns) == list(files.table.columns)
    for each in (found, found.select(split="val")):
        for row, name in enumerate(each.table["file_name"]):
            assert each.photo_bytes(row) == files.path(name).read_bytes()
            if mask := each.table["mask_file_name"].iat[row]:
                assert each.mask(row).read() == files.path(mask).read_bytes()


def test_a_foreign_reader_finds_originals_with_their_edits_and_masks(tiny_manifest, shards):
    """WebDataset's own reader. A shard holds one split."""
    webdataset = pytest.importorskip("webdataset")
    files = read_manifest(tiny_manifest)
    originals = files.table.set_index("file_name")["pair"]
    names = []
    for path in sorted(shards.glob("*.tar")):
        splits = set()
        for sample in webdataset.WebDataset(str(path), shardshuffle=False):
            rows = json.loads(sample["json"])
            assert {originals[row["file_name"]] for row in rows[1:]} <= {rows[0]["file_name"]}
            assert originals[rows[0]["file_name"]] == ""
            for number, row in enumerate(rows):
                photo = files.path(row["file_name"]).read_bytes()
                assert sample[f"{number}.png"] == photo
                assert (f"{number}.mask.png" in sample) == ("mask_file_name" in row)
                names.append(row["file_name"])
                splits.add(row["split"])
        assert len(splits) == 1
    assert sorted(names) == sorted(files.table["file_name"])


def test_batches_from_shards_equal_those_from_files(tiny_manifest, shards, tmp_path):
    """Byte for byte, from a URL whose shards are copied when a worker reads them."""
    copies = tmp_path / "copies"
    fsspec.config.conf["filecache"] = {"cache_storage": str(copies)}
    try:
        url = f"filecache::file://{shards}"
        loaders = [module(tiny_manifest), module(url, workers=1)]
        compared = 0
        for ours, theirs in zip(*(each.train_dataloader() for each in loaders), strict=True):
            assert ours.keys() == theirs.keys()
            for key in ("tiles", "patch_share", "tile_label", "photo_label", "photo_weight"):
                assert ours[key].numpy().tobytes() == theirs[key].numpy().tobytes()
            compared += len(ours["tiles"])
        assert compared > 20
    finally:
        fsspec.config.conf.pop("filecache", None)
    assert copies.is_dir()


def test_settings_that_cannot_go_with_mixed_shards(tiny_manifest):
    with pytest.raises(ConfigError) as caught:
        module(tiny_manifest, mixed_shards=2).train_dataloader()
    assert caught.value.code == "no_shards"
    for options in ({"mixed_shards": 0}, {"mixed_shards": 2, "balance": ["family"]}):
        with pytest.raises(ConfigError, match=r"data\.mixed_shards"):
            DataConfig("set", **options)


class TestWriting:
    def test_nothing_foreign_or_finished_is_replaced(self, tiny_manifest, tmp_path):
        manifest = read_manifest(tiny_manifest)
        (tmp_path / "notes.txt").touch()
        with pytest.raises(UsageError) as caught:
            write_shards(manifest, tmp_path)
        assert caught.value.code == "not_ours"
        out = tmp_path / "set"
        write_shards(manifest, out)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(UsageError) as caught:
            write_shards(manifest, out)
        assert caught.value.code == "exists"
        write_shards(manifest, out, overwrite=True)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    def test_a_set_with_a_broken_photo_leaves_no_index_and_can_be_written_later(
        self, tiny_manifest, tmp_path
    ):
        root = shutil.copytree(tiny_manifest, tmp_path / "photos")
        photo = root / "photos/02_ai_region.png"
        kept = photo.read_bytes()
        photo.unlink()
        out = tmp_path / "set"
        manifest = read_manifest(root, check_files=False)
        with pytest.raises(PhotoError) as caught:
            write_shards(manifest, out)
        assert caught.value.code == "no_such_photo"
        with pytest.raises(ManifestError) as missing:
            read_shards(str(out))
        assert missing.value.code == "no_index"
        photo.write_bytes(kept)
        write_shards(manifest, out)
        assert len(read_shards(str(out))) == 44

    def test_exceptions_of_the_audit_come_along(self, with_table, tmp_path):
        root = with_table(lambda table: table.assign(source=table["label"], part="photos"))
        write_shards(read_manifest(root), tmp_path / "leaking")
        url = f"file://{tmp_path}/leaking"
        with pytest.raises(ManifestError) as caught:
            training_photos(DataConfig(url))
        assert caught.value.code == "audit_failed"
        entry = {"part": "photos", "test": "source", "reason": "a test of tests"}
        (root / "audit_exceptions.json").write_text(json.dumps([entry]))
        write_shards(read_manifest(root), tmp_path / "leaking", overwrite=True)
        assert training_photos(DataConfig(url)).audit.passed


class TestBrokenShards:
    def test_a_short_or_missing_shard_is_named(self, shards, tmp_path):
        manifest = read_shards(str(shards))
        assert manifest.shards is not None
        (tmp_path / "index.parquet").write_bytes((shards / "index.parquet").read_bytes())
        moved = read_shards(str(tmp_path))
        name = manifest.shards.names[int(manifest.shards.places[0, 0])]
        for content in (None, (shards / name).read_bytes()[:700]):
            if content is not None:
                (tmp_path / name).write_bytes(content)
            with pytest.raises(PhotoError, match=name) as caught:
                moved.photo_bytes(0)
            assert caught.value.code == "no_shard"

    def test_a_broken_or_newer_index_is_refused(self, shards, tmp_path, monkeypatch):
        """Commands that need files refuse shards too."""
        with pytest.raises(ManifestError) as caught:
            read_dataset(shards)
        assert caught.value.code == "shards"
        (tmp_path / "index.parquet").write_bytes(b"PAR1 and no more")
        monkeypatch.setattr("realdamage.data.shards._FORMAT", 0)
        for root in (tmp_path, shards, "nope://bucket/set"):
            with pytest.raises(ManifestError) as caught:
                read_shards(str(root))
            assert caught.value.code == "bad_index"


@pytest.mark.slow
def test_memory_stays_flat_over_very_many_photos(tiny_manifest, tmp_path):
    """In a process of its own, with a worker: what the index takes, and what reading adds."""
    write_shards(read_manifest(tiny_manifest), tmp_path / "set")
    script = Path(__file__).with_name("million.py")
    command = [sys.executable, str(script), str(tmp_path / "set"), "250000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"index {found['index']:.0f} MiB, while reading {found['reading']}")
    assert found["photos"] >= 250_000
    assert found["index"] < 280  # MiB; 120 is usual
    assert max(found["reading"][1:]) - found["reading"][0] < 32
