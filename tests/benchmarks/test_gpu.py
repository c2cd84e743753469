"""What one NVIDIA GPU does: training DINOv2-S and scoring with ONNX Runtime. Skipped without CUDA.

`make bench PYTEST_ARGS=tests/benchmarks/test_gpu.py` prints the table. The operations are counted
as `train/mfu` counts them, so a run's own figure can be compared with these.
"""

import timeit

import numpy as np
import onnxruntime
import pytest
import torch
from lightning.fabric.utilities.throughput import get_available_flops

from realdamage.core.scorer import OnnxScorer
from realdamage.exporting.onnx import onnx_bytes
from realdamage.schema import ModelConfig
from realdamage.training.callbacks import flops_per_tile
from realdamage.training.network import build_network

DINOV2 = "vit_small_patch14_reg4_dinov2.lvd142m"
TILE = 224
BATCH = 256
WARM_UP, STEPS = 20, 50
LEAST_MFU = 0.4

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
needs_cuda_onnx = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-gpu",
)


def network():
    """Random weights: the speed does not depend on them."""
    return build_network(ModelConfig(DINOV2, TILE, False))


def tiles(count):
    return np.random.default_rng(0).integers(0, 256, (count, TILE, TILE, 3), dtype=np.uint8)


def training_step(learner, optimizer, batch):
    """Forward, back and update, in bf16 as trainer=gpu has it."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(batch.device.type, torch.bfloat16):
        logit, evidence = learner(batch)
    loss = logit.float().square().mean() + evidence.float().square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_the_step_that_is_measured_learns():
    """On any machine: the same step, on the CPU, with a network of the same kind."""
    torch.manual_seed(0)
    learner = build_network(ModelConfig("test_vit", 64, False)).train()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    batch = torch.from_numpy(tiles(4)[:, :64, :64].copy())
    losses = [float(training_step(learner, optimizer, batch)) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert flops_per_tile(learner) > 0


@needs_cuda
@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_training_of_dinov2_small(benchmark, report, compiled, monkeypatch):
    """Tiles a second and MFU of training steps whose tiles are on the GPU already. The limit holds
    for torch.compile, which is how to train for long; without it the figure is only shown."""
    device = torch.device("cuda")
    # TF32 where bf16 does not reach, as PyTorch recommends for training.
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    learner = network().to(device).train()
    per_tile = flops_per_tile(learner)
    peak = get_available_flops(device, torch.bfloat16)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-4, fused=True)
    if compiled:
        learner = torch.compile(learner)
    batch = torch.from_numpy(tiles(BATCH)).to(device)

    def steps(count):
        for _ in range(count):
            training_step(learner, optimizer, batch)
        torch.cuda.synchronize()

    if benchmark.disabled:
        steps(2)
        return
    steps(WARM_UP)
    benchmark.pedantic(steps, args=(STEPS,), rounds=3)
    rate = STEPS * BATCH / benchmark.stats.stats.min
    report("tiles_per_second", rate, ".0f")
    report("gib_of_gpu_memory", torch.cuda.max_memory_allocated() / 2**30, ".1f")
    if not peak:
        pytest.skip(f"the peak rate of {torch.cuda.get_device_name()} is not known to Lightning")
    mfu = rate * per_tile / peak
    report("mfu", mfu, ".1%")
    assert not compiled or mfu >= LEAST_MFU


@needs_cuda
@needs_cuda_onnx
@pytest.mark.slow
@pytest.mark.parametrize("photos", [1, 64])
def test_latency_of_onnx_on_cuda(benchmark, report, photos):
    """Milliseconds of a run over the tiles of 1 or 64 photos, one tile each, copies included. The
    scores must be those of the CPU."""
    data = onnx_bytes(network().eval(), 20)
    scorer = OnnxScorer(data, device="cuda")
    batch = tiles(photos)
    logit, evidence = benchmark(scorer, batch)
    expected_logit, expected_evidence = OnnxScorer(data)(batch[:2])
    np.testing.assert_allclose(logit[:2], expected_logit, atol=2e-2)
    np.testing.assert_allclose(evidence[:2], expected_evidence, atol=2e-2)
    if benchmark.disabled:
        return
    times = [1000 * took for took in timeit.repeat(lambda: scorer(batch), number=1, repeat=50)]
    report("median_ms", float(np.median(times)), ".2f")
    report("p99_ms", float(np.quantile(times, 0.99)), ".2f")
    report("photos_per_second", 1000 * photos / float(np.median(times)), ".0f")
