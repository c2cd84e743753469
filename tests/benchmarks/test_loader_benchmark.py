"""Does the network wait for the photos? Loader against network, and the parts of a verdict, in one run on one machine.

`make bench` times them; absolute numbers depend on the machine, so the ratios are what to compare.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.data.manifest import read_manifest
from realdamage.inference.photo import PixelSpec, cover, read_photo
from realdamage.inference.pooling import Pooling, pool
from realdamage.training.dataset import PairDataset, collate_units
from realdamage.training.degradations import Degradations
from realdamage.training.network import EvidenceViT, build_network
from realdamage.training.scorer import TorchScorer

SPEC = PixelSpec(tile=64, patch=16, overlap=16)
UNITS = 4


@pytest.fixture(scope="module")
def network() -> EvidenceViT:
    return build_network("vit_micro", tile=SPEC.tile, pretrained=False)


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
    benchmark: BenchmarkFixture, tiny_manifest: Path, network: EvidenceViT, probability: float
) -> None:
    """Pairs a second of one loading process, and how many training steps of the CPU's own network that feeds."""
    manifest = read_manifest(tiny_manifest).select(split="train")
    dataset = PairDataset(manifest, SPEC, Degradations(probability=probability), seed=0)

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
    benchmark.extra_info["loading_to_training"] = loading / training
    print(f"{UNITS / loading:.0f} pairs/s; loading takes {loading / training:.2f} of a training step")


def test_parts_of_a_verdict(
    benchmark: BenchmarkFixture, network: EvidenceViT, photo_factory: Callable[..., np.ndarray]
) -> None:
    """Decoding, cutting, network and pooling of one photo of 480×640; the network ought to dominate."""
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
