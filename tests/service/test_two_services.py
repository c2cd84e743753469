"""Two services on one PostgreSQL: what both say of one claim, and what is left when one dies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_one_of_two_services_is_killed_and_nothing_acknowledged_is_lost(
    trial: Callable[[str], Any], postgres: Any, model_file: Path, tmp_path: Path
) -> None:
    found = trial("two_services").two_services(
        url=postgres.new_url(),
        folder=tmp_path / "store",
        claims=12,
        callers=4,
        options=("--threads", "1", "--deadline", "60", "--model", str(model_file)),
    )
    assert found.faults == []
    assert found.decided == 10
    assert len(found.acknowledged) >= 10 + 12
    assert found.resent
