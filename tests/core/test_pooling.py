"""One formula for training and serving: numpy and torch must give the same photo score."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from realdamage.core.pooling import Pooling, log_mean_exp, pool
from realdamage.errors import ConfigError

torch = pytest.importorskip("torch")

numbers = st.floats(-40, 40, width=32)
logits = hnp.arrays(np.float32, st.integers(1, 12), elements=numbers)
poolings = st.builds(
    Pooling,
    tile_sharpness=st.floats(0.1, 10),
    patch_sharpness=st.floats(0.1, 10),
    patch_weight=st.floats(0, 1),
)


@given(logits, hnp.arrays(np.float32, (5, 3, 3), elements=numbers), poolings)
@settings(max_examples=80, deadline=None)
def test_numpy_and_torch_agree(logit: np.ndarray, evidence: np.ndarray, pooling: Pooling) -> None:
    in_torch = pool(torch.from_numpy(logit), torch.from_numpy(evidence), pooling, torch)
    assert in_torch.ndim == 0
    assert float(in_torch) == pytest.approx(float(pool(logit, evidence, pooling)), abs=1e-4)


@given(logits, st.floats(0.1, 10))
@settings(max_examples=80, deadline=None)
def test_the_soft_maximum_lies_between_mean_and_maximum(x: np.ndarray, sharpness: float) -> None:
    x = x.astype(np.float64)
    assert x.mean() - 1e-9 <= log_mean_exp(x, sharpness) <= x.max() + 1e-9


def test_the_formula_by_hand() -> None:
    logit, evidence = np.array([0.0, math.log(3)]), np.array([[[1.0, 1.0]], [[1.0, 1.0]]])
    assert log_mean_exp(logit, 1.0) == pytest.approx(math.log(2))
    pooling = Pooling(patch_weight=0.25, tile_sharpness=1.0, patch_sharpness=1.0)
    assert pool(logit, evidence, pooling) == pytest.approx(0.75 * math.log(2) + 0.25)


def test_large_values_do_not_overflow() -> None:
    assert log_mean_exp(np.array([1e4, 1e4 - 700.0]), 8.0) == pytest.approx(1e4 - math.log(2) / 8)


def test_gradients_reach_every_tile_and_patch_and_sum_to_one() -> None:
    logit = torch.tensor(
        [0.5, 0.5, -3.0], requires_grad=True
    )  # a tie, where amax splits its gradient
    evidence = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pool(logit, evidence, Pooling(patch_weight=0.25, tile_sharpness=2.0), torch).backward()
    assert (logit.grad > 0).all()
    assert (evidence.grad > 0).all()
    assert float(logit.grad.sum()) == pytest.approx(0.75, abs=1e-5)
    assert float(evidence.grad.sum()) == pytest.approx(0.25, abs=1e-5)
    assert logit.grad[0] == pytest.approx(logit.grad[1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "max"}, "name='max' is unknown"),
        ({"tile_sharpness": 0.0}, "tile_sharpness=0.0 must be a finite number above 0"),
        ({"patch_sharpness": math.inf}, "patch_sharpness=inf"),
        ({"patch_weight": 1.5}, r"patch_weight=1.5 must be in 0\.\.1"),
    ],
)
def test_numbers_out_of_range_are_refused(values: dict[str, float | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pooling(**values)  # type: ignore[arg-type]


def test_the_round_trip() -> None:
    pooling = Pooling(tile_sharpness=4.0, patch_sharpness=0.5, patch_weight=0.1)
    assert Pooling.from_dict(pooling.to_dict()) == pooling
