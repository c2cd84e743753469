"""The count of processors, on systems that can tell which are this process's and on those that cannot."""

from __future__ import annotations

import os

import pytest

from realdamage.core.progress import available_processors


def test_the_processors_of_this_process_where_the_system_can_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    assert available_processors() == 3


@pytest.mark.parametrize(("counted", "expected"), [(6, 6), (None, 1)])
def test_those_of_the_machine_elsewhere(
    counted: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert available_processors() == expected
