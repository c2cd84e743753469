"""Two services on one store: what both say of one claim, and what is left when one dies."""

import os
import shutil
import subprocess
from contextlib import ExitStack, suppress

import pytest

CLAIMS = 6


@pytest.mark.slow
@pytest.mark.parametrize("on_postgres", [False, True])
def test_one_of_two_services_is_killed_and_nothing_acknowledged_is_lost(
    on_postgres, trial, request, model_file, tmp_path
):
    """On SQLite as processes that share a folder; on PostgreSQL each in a network namespace of its
    own, where this machine gives them."""
    two_services, store = trial("two_services"), tmp_path / "store"
    options = ("--threads", "1", "--deadline", "60", "--model", str(model_file))
    with ExitStack() as stack:
        url = ""
        given = {}
        if on_postgres:
            url = request.getfixturevalue("postgres").new_url()
        if on_postgres and os.geteuid() == 0 and shutil.which("ip"):
            with suppress(subprocess.CalledProcessError):
                network = stack.enter_context(two_services.Network())
                server = two_services.Server(net=network.net)
                stack.callback(server.close)
                url = server.new_url().replace("127.0.0.1", network.here)
                given["machines"] = network.machines
        found = two_services.two_services(
            url=url, folder=store, claims=CLAIMS, callers=6, options=options, **given
        )
    assert found.faults == []
    assert found.decided == CLAIMS
    assert len(found.acknowledged) >= 2 * CLAIMS
    assert found.resent
    assert [path for path in store.rglob("*") if path.stat().st_mode & 0o077] == [], "its owner's"
