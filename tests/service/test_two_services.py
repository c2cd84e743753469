"""Two services on one PostgreSQL: what both say of one claim, and what is left when one dies."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

CLAIMS = 4


@pytest.mark.slow
def test_one_of_two_services_is_killed_and_nothing_acknowledged_is_lost(
    trial: Callable[[str], Any], postgres: Any, model_file: Path, tmp_path: Path
) -> None:
    """Each in a network namespace of its own, where this machine gives them."""
    two_services = trial("two_services")
    options = ("--threads", "1", "--deadline", "60", "--model", str(model_file))
    with ExitStack() as stack:
        url = postgres.new_url()
        given: dict[str, Any] = {}
        if os.geteuid() == 0 and shutil.which("ip"):
            with suppress(subprocess.CalledProcessError):
                network = stack.enter_context(two_services.Network())
                server = two_services.Server(net=network.net)
                stack.callback(server.close)
                url = server.new_url().replace("127.0.0.1", network.here)
                given["machines"] = network.machines
        found = two_services.two_services(
            url=url,
            folder=tmp_path / "store",
            claims=CLAIMS,
            callers=4,
            options=options,
            **given,
        )
    assert found.faults == []
    assert found.decided == CLAIMS
    assert len(found.acknowledged) >= 2 * CLAIMS
    assert found.resent
