"""Reads a set of very many photos, run by test_shards.py in a process of its own: its index says
again and again where the photos of a small set in shards are. Prints memory in MiB as JSON.

    python tests/training/million.py SHARDS 1000000
"""

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

SPEC = PixelSpec(tile=64, patch=16, overlap=16)


def write_index(small, rows):
    """Repeats the small set's index, each copy with names, pairs and groups of its own."""
    table = pq.read_table(small / "index.parquet")
    copies = -(-rows // len(table))
    number = np.repeat(np.arange(copies), len(table)).astype(str)
    columns = {name: np.tile(table.column(name).to_numpy(), copies) for name in table.column_names}
    for name in ("file_name", "pair", "mask_file_name", "group"):
        words = columns[name].astype(str)
        own = np.char.add(np.char.add(number, "/"), words)
        columns[name] = pa.array(np.where(words == "", "", own), pa.large_string())
    repeated = pa.table(columns, metadata=table.schema.metadata)
    pq.write_table(repeated, small / "index.parquet")


def used():
    """Memory of this process and its workers in MiB, what they share counted once. Files such as
    libraries are left out, since others may map them too."""
    process = psutil.Process()
    rows = []
    for each in (process, *process.children(recursive=True)):
        rows += Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines()
    found = [row.split() for row in rows if row.startswith(("Pss_Anon:", "Pss_Shmem:"))]
    return sum(int(kib) for _, kib, _ in found) / 1024


def main(small, rows):
    write_index(small, rows)
    photos.AUDITED = 200  # the audit has tests of its own
    data = DataConfig(str(small), batch_units=8, tiles_per_photo=1, workers=1, mixed_shards=1)
    module = DamageDataModule(data, SPEC, seed=0)
    before = used()
    module.setup("fit")
    loader = module.train_dataloader()
    found = {"photos": len(module.manifest), "index": used() - before, "reading": []}
    for number, _ in enumerate(loader, start=1):
        if number % 20 == 0:
            found["reading"].append(used() - before)
        if number == 100:
            break
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
