"""A set's folder is claimed once, by one maker, and loses nothing that it did not make."""

from __future__ import annotations

from pathlib import Path

import pytest

from realdamage.data.parts import FOLDER, Parts
from realdamage.errors import UsageError


def test_a_claim_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mark.json.1.part").write_bytes(b"{")
    Parts(tmp_path, "neutralise").claim("digest", {}, [])
    assert (tmp_path / FOLDER / "mark.json").is_file()


def test_processes_that_claim_at_once_share_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other claims and begins to write between our look for a mark and our look at the folder."""
    mine = Parts(tmp_path, "synthesize")
    refuse = Parts.refuse_others

    def late(self: Parts) -> None:
        monkeypatch.setattr(Parts, "refuse_others", refuse)
        Parts(tmp_path, "synthesize").claim("digest", {}, ["a.jpg"])
        (tmp_path / "a.jpg").write_bytes(b"")
        raise UsageError("holds something")

    monkeypatch.setattr(Parts, "refuse_others", late)
    mine.claim("digest", {}, ["a.jpg"])


def test_another_makers_set_is_neither_claimed_nor_cleared(tmp_path: Path) -> None:
    Parts(tmp_path, "neutralise").claim("digest", {}, ["a.jpg"])
    other = Parts(tmp_path, "synthesize")
    with pytest.raises(UsageError, match="synthesize did not make"):
        other.claim("digest", {}, ["a.jpg"])
    with pytest.raises(UsageError, match="left as it is"):
        other.clear()
    assert Parts(tmp_path, "neutralise").mark() is not None


def test_what_to_say_to_start_over_is_the_commands_own(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "synthesize", "overwrite=true")
    parts.claim("digest", {}, [])
    with pytest.raises(UsageError, match=r"start over with overwrite=true$"):
        parts.claim("other", {}, [])
