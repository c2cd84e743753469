"""Progress lines come now and then, never change the steps, and stay away from short work."""

from __future__ import annotations

import pytest

from realdamage.core import progress


def test_plain_lines_count_and_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert list(progress.track("abcdef", 6, "photos")) == list("abcdef")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("photos: 3/6, about 12 s left")
    assert lines[-1].startswith("photos: 6/6 in ")


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(3), 3, "photos")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
