"""Does the network wait for the photos? Loader against network, and the parts of a verdict.

All in one run on one machine.
`make bench` times them; absolute numbers depend on the machine, so the ratios are what to compare.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.core.pooling import Pooling, pool
from realdamage.core.tiles import PixelSpec, cover, read_photo
from realdamage.data.degradations import Degradations
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.shards import read_shards, write_shards
from realdamage.schema import DataConfig, ModelConfig
from realdamage.training.dataset import PairDataset, collate_units
from realdamage.training.network import EvidenceViT, TorchScorer, build_network

SPEC = PixelSpec(tile=128, patch=16, overlap=32)
UNITS = 8


@pytest.fixture(scope="module")
def network() -> EvidenceViT:
    return build_network(ModelConfig("vit_lite", SPEC.tile, False))


@pytest.fixture(scope="module")
def pairs(
    tmp_path_factory: pytest.TempPathFactory, photo_factory: Callable[..., np.ndarray]
) -> Path:
    """Pairs of 384 × 512 JPEGs, the size of a phone photo after a shop's own resize, with masks as
    PNG."""
    root = tmp_path_factory.mktemp("pairs")
    rows = []
    for index in range(UNITS):
        rgb = photo_factory(384, 512, index)
        mask = np.zeros(rgb.shape[:2], np.uint8)
        mask[100:220, 150:300] = 255
        Image.fromarray(rgb).save(root / f"{index}.jpg", quality=92)
        Image.fromarray(np.where(mask[..., None] > 0, rgb // 2, rgb)).save(
            root / f"{index}_edit.jpg", quality=92
        )
        Image.fromarray(mask).save(root / f"{index}_mask.png")
        edit = {
            "file_name": f"{index}_edit.jpg",
            "label": "synthetic",
            "kind": "ai_region",
            "pair": f"{index}.jpg",
        }
        rows += [
            {"file_name": f"{index}.jpg", "label": "real"},
            {**edit, "mask_file_name": f"{index}_mask.png"},
        ]
    write_manifest(root, pd.DataFrame(rows).fillna(""))
    return root


def seconds(step: Callable[[], object], rounds: int) -> float:
    """Of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return best


@pytest.mark.parametrize("probability", [0.0, 1.0], ids=["clean", "laundered"])
def test_loader_against_network(
    benchmark: BenchmarkFixture, pairs: Path, network: EvidenceViT, probability: float
) -> None:
    """Pairs a second of one loading process, and how many times what the CPU's own network consumes
    that is: on one thread, as the loader is one process. The issue's limit is three times."""
    torch.set_num_threads(1)
    dataset = PairDataset(
        read_manifest(pairs),
        SPEC,
        DataConfig(degradations=Degradations(probability=probability)),
        seed=0,
    )

    def load() -> dict[str, torch.Tensor]:
        return collate_units([dataset[0, index] for index in range(UNITS)])

    def step() -> None:
        logit, evidence = network(batch["tiles"])
        (logit.sum() + evidence.sum()).backward()

    batch = benchmark(load)
    assert batch["tiles"].shape == (UNITS * 2 * 2, SPEC.tile, SPEC.tile, 3)
    rounds = 1 if benchmark.disabled else 5
    loading, training = seconds(load, rounds), seconds(step, rounds)
    benchmark.extra_info["pairs_per_second"] = UNITS / loading
    benchmark.extra_info["times_what_training_consumes"] = training / loading
    print(f"{UNITS / loading:.0f} pairs/s, {training / loading:.1f} times what training consumes")


def test_parts_of_a_verdict(
    benchmark: BenchmarkFixture, network: EvidenceViT, photo_factory: Callable[..., np.ndarray]
) -> None:
    """Decoding, cutting, network and pooling of one photo of 480×640; the network should
    dominate."""
    buffer = io.BytesIO()
    Image.fromarray(photo_factory(480, 640, 0)).save(buffer, "JPEG", quality=90)
    scorer = TorchScorer(network)
    photo = read_photo(buffer.getvalue(), SPEC)
    tiles = cover(photo.rgb, SPEC).tiles
    logit, evidence = benchmark(scorer, tiles)
    assert np.isfinite(pool(logit, evidence, Pooling()))
    rounds = 1 if benchmark.disabled else 5
    parts = {
        "decode": seconds(lambda: read_photo(buffer.getvalue(), SPEC), rounds),
        "cover": seconds(lambda: cover(photo.rgb, SPEC), rounds),
        "network": seconds(lambda: scorer(tiles), rounds),
        "pool": seconds(lambda: pool(logit, evidence, Pooling()), rounds),
    }
    total = sum(parts.values())
    for name, part in parts.items():
        benchmark.extra_info[f"{name}_share"] = part / total
    print("  ".join(f"{name} {part / total:.0%}" for name, part in parts.items()))


def test_shards_against_files(
    benchmark: BenchmarkFixture, pairs: Path, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Pairs a second of one loading process from shards, and how many times that from files."""
    write_shards(read_manifest(pairs), tmp_path / "shards")
    settings = DataConfig()
    files = PairDataset(read_manifest(pairs), SPEC, settings, seed=0)
    shards = PairDataset(read_shards(str(tmp_path / "shards")), SPEC, settings, seed=0)

    def load(dataset: PairDataset) -> dict[str, torch.Tensor]:
        return collate_units([dataset[0, index] for index in range(UNITS)])

    batch = benchmark(load, shards)
    assert torch.equal(batch["tiles"], load(files)["tiles"])
    rounds = 1 if benchmark.disabled else 5
    from_shards, from_files = (seconds(lambda d=d: load(d), rounds) for d in (shards, files))
    report("pairs_per_second_from_shards", UNITS / from_shards, ".0f")
    report("times_that_from_files", from_files / from_shards, ".2f")
