"""Training and evaluation read photos in other layouts; checkpoints stay plain values."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from realdamage.core.tiles import PixelSpec
from realdamage.data.manifest import read_manifest
from realdamage.errors import ConfigError, ManifestError
from realdamage.schema import DataConfig, ReaderConfig
from realdamage.training.datamodule import DamageDataModule

SPEC = PixelSpec(tile=64, patch=16, overlap=16)
COLUMNS = {"file_name": "path", "label": "fake", "generator": "model", "mask_file_name": "mask"}
VALUES = {"label": {0: "real", True: "synthetic"}}  # as YAML reads `0` and `true`


@pytest.fixture(scope="module")
def table(tiny_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos of `tiny_manifest` under other names of columns and labels."""
    theirs = pd.read_csv(tiny_manifest / "metadata.csv", dtype=str)
    theirs = theirs.rename(columns=COLUMNS).replace({"fake": {"real": "0", "synthetic": "true"}})
    root = tmp_path_factory.mktemp("theirs")
    for name in ("photos", "masks"):
        (root / name).symlink_to(tiny_manifest / name)
    theirs.to_parquet(root / "shots.parquet")
    return root / "shots.parquet"


def test_the_data_module_reads_a_mapped_table_as_it_reads_the_manifest(
    table: Path, tiny_manifest: Path, tmp_path: Path
) -> None:
    reader = ReaderConfig(columns=COLUMNS, values=VALUES)
    made = DamageDataModule(DataConfig(str(table), reader), SPEC, seed=0)
    made.setup("fit")
    assert made.manifest is not None
    assert made.manifest.digest() == read_manifest(tiny_manifest).digest()
    assert made.train_dataloader().dataset[0, 0]  # its photos are found
    torch.save(dict(made.hparams), tmp_path / "hparams.pt")
    torch.load(tmp_path / "hparams.pt", weights_only=True)  # plain values only
    with pytest.raises(ManifestError, match="'file_name' is missing"):
        DamageDataModule(DataConfig(str(table)), SPEC, seed=0).setup("fit")
    with pytest.raises(
        ConfigError, match=r"data\.reader: layout 'tabel' is unknown; .* Did you mean 'table'"
    ):
        DamageDataModule(DataConfig(str(table), ReaderConfig("tabel")), SPEC, seed=0).setup("fit")
