"""Reads a set of a million photos, run by test_shards.py in a process of its own: its index says a
million times where the photos of a small set in shards are. Prints memory in MiB as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from realdamage.core.tiles import PixelSpec
from realdamage.schema import DataConfig
from realdamage.training import photos
from realdamage.training.datamodule import DamageDataModule

ROWS = 1_000_000
SPEC = PixelSpec(tile=64, patch=16, overlap=16)


def write_index(small: Path) -> None:
    """Repeats the small set's index, each copy with names, pairs and groups of its own."""
    table = pq.read_table(small / "index.parquet")
    copies = -(-ROWS // len(table))
    number = np.repeat(np.arange(copies), len(table)).astype(str)
    columns = {name: np.tile(table.column(name).to_numpy(), copies) for name in table.column_names}
    for name in ("file_name", "pair", "mask_file_name", "group"):
        words = columns[name].astype(str)
        own = np.char.add(np.char.add(number, "/"), words)
        columns[name] = pa.array(np.where(words == "", "", own), pa.large_string())
    repeated = pa.table(columns, metadata=table.schema.metadata)
    pq.write_table(repeated, small / "index.parquet")


def used() -> float:
    """Memory of this process and its workers in MiB, what they share counted once."""
    process = psutil.Process()
    family = [process, *process.children(recursive=True)]
    return sum(each.memory_full_info().pss for each in family) / 2**20


def main(small: Path) -> None:
    write_index(small)
    photos.AUDITED = 200  # the audit has tests of its own
    data = DataConfig(str(small), batch_units=8, tiles_per_photo=1, workers=1, mixed_shards=1)
    module = DamageDataModule(data, SPEC, seed=0)
    before = used()
    module.setup("fit")
    loader = module.train_dataloader()
    found = {"photos": len(module.manifest), "index": used() - before, "reading": []}
    for number, _ in enumerate(loader, start=1):
        if number % 50 == 0:
            found["reading"].append(used() - before)
        if number == 250:
            break
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
