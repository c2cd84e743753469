"""Tiles of several callers in one run: the same numbers as alone, fewer runs, and nobody lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from realdamage.service.batching import BatchingScorer, DeadlineError


class Network:
    """logit = mean of a tile; notes the sizes of its runs and waits at a gate."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, tiles: Any) -> Any:
        self.gate.wait(10)
        self.runs.append(len(tiles))
        mean = tiles.reshape(len(tiles), -1).mean(axis=1).astype(np.float32)
        return mean, np.repeat(mean, 4).reshape(-1, 2, 2)


def tiles(*values: int) -> Any:
    return np.stack([np.full((8, 8, 3), value, np.uint8) for value in values])


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_calls_that_wait_share_a_run() -> None:
    network = Network()
    observed: list[tuple[int, int]] = []
    scorer = BatchingScorer(network, batch_tiles=8, observe=lambda *values: observed.append(values))
    network.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(scorer, tiles(0))
        wait_until(lambda: observed == [(1, 1)])
        others = [pool.submit(scorer, tiles(n, n + 100, n + 200)) for n in range(1, 5)]
        wait_until(lambda: len(scorer._queue) == 4)
        network.gate.set()
        assert first.result()[0].tolist() == [0]
        for n, other in enumerate(others, 1):
            logit, evidence = other.result()
            assert logit.tolist() == [n, n + 100, n + 200]
            assert evidence[:, 1, 1].tolist() == [n, n + 100, n + 200]
    assert network.runs == [1, 8, 4]
    assert observed == [(1, 1), (8, 3), (4, 2)]
    scorer.close()


def test_a_call_larger_than_a_run_keeps_its_order() -> None:
    network = Network()
    scorer = BatchingScorer(network, batch_tiles=4)
    assert scorer(tiles(*range(10)))[0].tolist() == list(range(10))
    assert network.runs == [4, 4, 2]
    scorer.close()


def test_tiles_not_begun_at_the_deadline_are_dropped() -> None:
    network = Network()
    scorer = BatchingScorer(network, batch_tiles=4)
    network.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(scorer, tiles(1))
        wait_until(lambda: not scorer._queue)
        late = pool.submit(scorer.until(time.monotonic() + 0.01), tiles(2))
        other = pool.submit(scorer, tiles(3))
        wait_until(lambda: len(scorer._queue) == 2)
        time.sleep(0.02)
        network.gate.set()
        with pytest.raises(DeadlineError):
            late.result(5)
        assert first.result(5)[0].tolist() == [1]
        assert other.result(5)[0].tolist() == [3]
    assert network.runs == [1, 1]
    scorer.close()


def test_an_error_reaches_those_who_wait_and_nobody_else() -> None:
    calls = []

    def network(run: Any) -> Any:
        calls.append(len(run))
        if run.max() == 255:
            raise RuntimeError("no memory")
        return np.zeros(len(run), np.float32), np.zeros((len(run), 2, 2), np.float32)

    scorer = BatchingScorer(network, batch_tiles=4)
    with pytest.raises(RuntimeError, match="no memory"):
        scorer(tiles(1, 2, 3, 4, 5, 255, 6, 7, 8))
    assert scorer(tiles(1))[0].tolist() == [0]
    assert calls == [4, 4, 1], "what was left of a failed call is not run"
    scorer.close()


def test_a_network_that_answers_too_little_is_an_error() -> None:
    scorer = BatchingScorer(lambda run: (np.zeros(1, np.float32), np.zeros((1, 2, 2), np.float32)))
    with pytest.raises(ValueError, match="1 logits for 2 tiles"):
        scorer(tiles(1, 2))
    scorer.close()


def test_a_closed_scorer_still_answers() -> None:
    scorer = BatchingScorer(Network())
    scorer.close()
    assert scorer(tiles(7))[0].tolist() == [7]
