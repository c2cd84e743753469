"""Photos are read for the audit wherever Python runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from realdamage.data.audit import audit
from realdamage.data.duplicates import near_duplicate_groups
from realdamage.data.manifest import read_manifest


@pytest.mark.parametrize("quick", [True, False])
def test_a_set_is_read_where_no_system_call_tells_the_processors(
    quick: bool, tiny_manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS and Windows have no os.sched_getaffinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    manifest = read_manifest(tiny_manifest)
    assert sum(audit(manifest, quick=quick).photos.values()) == len(manifest)
    _, found = near_duplicate_groups(manifest)
    assert len(found.labels) == len(manifest)
