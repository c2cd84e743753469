"""Two services on one PostgreSQL: what both say of one claim, and what is left when one dies."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def two_services(trial: Callable[[str], Any]) -> Any:
    return trial("two_services")


@pytest.fixture
def network(two_services: Any) -> Iterator[Any]:
    """Two network namespaces, and this machine between them."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    with ExitStack() as stack:
        try:
            found = stack.enter_context(two_services.Network())
        except subprocess.CalledProcessError:
            pytest.skip("this machine does not give network namespaces")
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True], ids=["loopback", "namespaces"])
def test_one_of_two_services_is_killed_and_nothing_acknowledged_is_lost(
    two_services: Any, model_file: Path, tmp_path: Path, request: pytest.FixtureRequest, apart: bool
) -> None:
    given: dict[str, Any] = {}
    if apart:
        network = request.getfixturevalue("network")
        server = two_services.Server(net=network.net)
        request.addfinalizer(server.close)
        given["machines"] = network.machines
        url = server.new_url().replace("127.0.0.1", network.here)
    else:
        url = request.getfixturevalue("postgres").new_url()
    found = two_services.two_services(
        url=url,
        folder=tmp_path / "store",
        claims=12,
        callers=4,
        options=("--threads", "1", "--deadline", "60", "--model", str(model_file)),
        **given,
    )
    assert found.faults == []
    assert found.decided == 10
    assert len(found.acknowledged) >= 10 + 12
    assert found.resent
