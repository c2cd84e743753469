"""Does the network wait for the photos? Loader against network, and shards against files.

`make bench` times them; ratios come from one run, so they are what to compare.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from realdamage.core.tiles import PixelSpec
from realdamage.data.degradations import Degradations
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.shards import read_shards, write_shards
from realdamage.schema import DataConfig, ModelConfig
from realdamage.training.dataset import PairDataset, collate_units
from realdamage.training.network import build_network

SPEC = PixelSpec(tile=128, patch=16, overlap=32)
UNITS = 8


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, photo_factory):
    """Pairs of 384 × 512 JPEGs, the size of a phone photo after a shop's own resize, with masks."""
    root = tmp_path_factory.mktemp("pairs")
    mask = np.zeros((384, 512), np.uint8)
    mask[100:220, 150:300] = 255
    Image.fromarray(mask).save(root / "mask.png")
    rows = []
    for index in range(UNITS):
        real, edit, rgb = f"{index}.jpg", f"{index}_edit.jpg", photo_factory(384, 512, index)
        Image.fromarray(rgb).save(root / real, quality=92)
        edited = np.where(mask[..., None] > 0, rgb // 2, rgb)
        Image.fromarray(edited).save(root / edit, quality=92)
        about = {"label": "synthetic", "kind": "ai_region", "mask_file_name": "mask.png"}
        rows.append({"file_name": real, "label": "real"})
        rows.append({"file_name": edit, "pair": real, **about})
    write_manifest(root, pd.DataFrame(rows).fillna(""))
    return root


def load(dataset):
    return collate_units([dataset[0, index] for index in range(UNITS)])


@pytest.mark.parametrize("probability", [0.0, 1.0], ids=["clean", "laundered"])
def test_loader_against_network(benchmark, report, seconds, pairs, probability):
    """Pairs a second of one loading process, and how many times what the CPU's own network consumes
    that is: on one thread, as the loader is one process. The limit is three times."""
    torch.set_num_threads(1)
    network = build_network(ModelConfig("vit_lite", SPEC.tile, False))
    settings = DataConfig(degradations=Degradations(probability=probability))
    dataset = PairDataset(read_manifest(pairs), SPEC, settings, seed=0)

    def step():
        logit, evidence = network(batch["tiles"])
        (logit.sum() + evidence.sum()).backward()

    batch = benchmark(load, dataset)
    assert batch["tiles"].shape == (UNITS * 2 * 2, SPEC.tile, SPEC.tile, 3)
    took = seconds({"load": lambda: load(dataset), "train": step})
    report("pairs a second", UNITS / took["load"], ".0f")
    report("times what training consumes", took["train"] / took["load"], ".1f")


def test_shards_against_files(benchmark, report, seconds, pairs, tmp_path):
    """Pairs a second of one loading process from shards, and how many times that from files."""
    write_shards(read_manifest(pairs), tmp_path / "shards")
    files, shards = (
        PairDataset(manifest, SPEC, DataConfig(), seed=0)
        for manifest in (read_manifest(pairs), read_shards(str(tmp_path / "shards")))
    )
    batch = benchmark(load, shards)
    assert torch.equal(batch["tiles"], load(files)["tiles"])
    took = seconds({"shards": lambda: load(shards), "files": lambda: load(files)})
    report("pairs a second from shards", UNITS / took["shards"], ".0f")
    report("times that from files", took["files"] / took["shards"], ".2f")
