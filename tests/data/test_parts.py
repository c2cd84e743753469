"""A folder is claimed once, by one maker, and loses nothing that it did not make; workers that die
are named."""

import os

import numpy as np
import pytest

from realdamage.data.parts import FOLDER, Parts, in_processes
from realdamage.errors import RealDamageError, UsageError


def test_a_part_is_there_when_its_content_is(tmp_path):
    parts = Parts(tmp_path, "evaluate")
    parts.write(1, {"rows": [1.5]}, {"heat/a": np.eye(2)})
    assert parts.todo(3) == [0, 2]
    assert parts.read(1) == {"rows": [1.5]}
    assert parts.arrays(1)["heat/a"].tolist() == [[1, 0], [0, 1]]
    parts.path(1).unlink()  # arrays come first, so a kill leaves them alone
    assert parts.todo(2) == [0, 1]
    parts.discard()
    assert not (tmp_path / FOLDER).exists()


def test_processes_that_claim_at_once_share_the_folder(tmp_path, monkeypatch):
    """The other one claims and starts to write between our look for a mark and our look at the
    folder.
    """
    refuse = Parts.refuse_others

    def late(self):
        monkeypatch.setattr(Parts, "refuse_others", refuse)
        Parts(tmp_path, "synthesize").claim("digest", {}, ["a.jpg"])
        (tmp_path / "a.jpg").write_bytes(b"")
        raise UsageError("holds something")

    monkeypatch.setattr(Parts, "refuse_others", late)
    Parts(tmp_path, "synthesize").claim("digest", {}, ["a.jpg"])


def test_another_makers_set_is_neither_claimed_nor_cleared(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mark.json.1.part").write_bytes(b"{")  # a claim that was cut off
    Parts(tmp_path, "neutralise").claim("digest", {}, ["a.jpg"])
    other = Parts(tmp_path, "synthesize")
    for attempt in (lambda: other.claim("digest"), other.clear):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.code == "not_ours"
    assert Parts(tmp_path, "neutralise").mark() is not None


def test_what_differs_and_how_to_start_over_are_named(tmp_path):
    parts = Parts(tmp_path, "evaluate", "overwrite=true")
    parts.claim({"model": "a", "seed": "0", "photos": "p"})
    with pytest.raises(
        UsageError, match=r"another model and another seed\..*overwrite=true"
    ) as caught:
        parts.claim({"model": "b", "seed": "1", "photos": "p"})
    assert caught.value.code == "other_set"


def test_a_worker_that_dies_is_reported():
    with pytest.raises(RealDamageError) as caught:
        list(in_processes(int, (), os._exit, [9, 9], 2, fresh=True))
    assert caught.value.code == "worker_failed"
