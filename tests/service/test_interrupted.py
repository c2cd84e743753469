"""A process that dies while it keeps or deletes a claim: nothing acknowledged is lost, and no id is blocked."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realdamage.claims import Claim, ClaimIndex, evidence, judge_claim, verify_evidence
from realdamage.claims.index import Fingerprint, take_fingerprint
from realdamage.core.detector import Detector
from realdamage.errors import RealDamageError
from realdamage.service.refusals import Refusal
from realdamage.service.retention import Purged, purge
from realdamage.service.review_store import ReviewStore
from realdamage.service.storage import ClaimStore

Encode = Callable[..., bytes]
Files = list[tuple[str, bytes]]
DIED = 9


@pytest.fixture(scope="module")
def photos(encode: Encode) -> Files:
    return [("a.jpg", encode(size=(320, 240)))]


@pytest.fixture(scope="module")
def claim(model_file: Path, photos: Files) -> Claim:
    return judge_claim(photos, detector=Detector.load(model_file, threads=1), claim_id="A")


@pytest.fixture(scope="module")
def fingerprint(claim: Claim) -> Fingerprint:
    rgb = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    return take_fingerprint(rgb, claim.photos[0].sha256)


def die(*_: Any, **__: Any) -> None:
    os._exit(DIED)


def after(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: (call(*arguments, **options), die())[0]


def never(store: ClaimStore) -> None:
    pass


def as_begun(store: ClaimStore) -> None:
    store.index.add_fingerprints = die  # type: ignore[method-assign]


def when_indexed(store: ClaimStore) -> None:
    store.index.add_fingerprints = after(store.index.add_fingerprints)  # type: ignore[method-assign]


def half_written(store: ClaimStore) -> None:
    evidence._write = after(evidence._write)


def when_written(store: ClaimStore) -> None:
    Path.rename = die  # type: ignore[assignment, method-assign]


def when_moved(store: ClaimStore) -> None:
    store.log.append = die  # type: ignore[assignment, method-assign]


def when_logged(store: ClaimStore) -> None:
    store.log.append = after(store.log.append)  # type: ignore[method-assign]


def when_half_removed(store: ClaimStore) -> None:
    shutil.rmtree = die  # type: ignore[assignment]


def when_removed(store: ClaimStore) -> None:
    shutil.rmtree = after(shutil.rmtree)  # type: ignore[assignment]


def when_forgotten(store: ClaimStore) -> None:
    ClaimIndex.delete = after(ClaimIndex.delete)  # type: ignore[method-assign]


def keep(
    folder: Path, claim: Claim, photos: Files, fingerprint: Fingerprint, arm: Callable[..., None]
) -> None:
    store = ClaimStore(folder, 30)
    arm(store)
    with store.new(claim.claim_id):
        store.index.add_fingerprints(claim.claim_id, [fingerprint])
        store.keep(claim, photos, [])
    store.close()


def remove(folder: Path, arm: Callable[..., None]) -> None:
    store = ClaimStore(folder, 30)
    arm(store)
    store.delete("A")


def run_and_die(target: Callable[..., None], *arguments: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == DIED


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClaimStore]:
    found = ClaimStore(tmp_path, 30)
    ReviewStore(
        tmp_path / "reviews.sqlite"
    ).close()  # without it the folder is taken for somebody else's
    yield found
    found.close()


def sightings(store: ClaimStore, fingerprint: Fingerprint) -> list[str]:
    return [one.claim_id for one in store.index.find_fingerprint(fingerprint, other_than="B")]


def events(store: ClaimStore) -> list[str]:
    return (
        [entry["event"] for entry in store.log.verify().entries] if store.log.path.exists() else []
    )


def names(store: ClaimStore) -> list[str]:
    return sorted(path.name for path in store.claims.iterdir())


@pytest.mark.parametrize("arm", [as_begun, when_indexed, half_written, when_written])
def test_a_claim_that_was_not_kept_leaves_no_trace_and_its_id_is_free(
    arm: Callable[..., None],
    claim: Claim,
    photos: Files,
    fingerprint: Fingerprint,
    tmp_path: Path,
    store: ClaimStore,
) -> None:
    run_and_die(keep, tmp_path, claim, photos, fingerprint, arm)
    with pytest.raises(Refusal, match="no claim 'A' is stored"):
        store.read("A", "evidence.json")
    assert sightings(store, fingerprint) == []
    keep(tmp_path, claim, photos, fingerprint, never)
    assert sightings(store, fingerprint) == ["A"]
    assert purge(store) == Purged((), ())
    assert names(store) == ["A"]
    assert events(store) == ["evidence_written"]
    assert len(store.index) == 1


@pytest.mark.parametrize("arm", [as_begun, when_indexed, half_written, when_written])
def test_what_was_begun_is_removed_by_the_next_purge(
    arm: Callable[..., None],
    claim: Claim,
    photos: Files,
    fingerprint: Fingerprint,
    tmp_path: Path,
    store: ClaimStore,
) -> None:
    run_and_die(keep, tmp_path, claim, photos, fingerprint, arm)
    assert purge(store) == Purged((), ())
    assert names(store) == []
    assert len(store.index) == 0
    assert events(store) == []


@pytest.mark.parametrize("arm", [when_moved, when_logged])
def test_a_claim_that_was_kept_is_whole_and_logged_once(
    arm: Callable[..., None],
    claim: Claim,
    photos: Files,
    fingerprint: Fingerprint,
    tmp_path: Path,
    store: ClaimStore,
) -> None:
    run_and_die(keep, tmp_path, claim, photos, fingerprint, arm)
    assert json.loads(store.read("A", "evidence.json"))["claim_id"] == "A"
    assert sightings(store, fingerprint) == ["A"]
    with pytest.raises(Refusal) as refused, store.new("A"):
        pass
    assert refused.value.code == "claim_exists"
    for _ in range(2):
        assert purge(store) == Purged((), ())
        assert names(store) == ["A"]
        assert events(store) == ["evidence_written"]
    assert verify_evidence(store.claims / "A", log=store.log.path).problems == ()


@pytest.mark.parametrize("arm", [when_half_removed, when_removed, when_forgotten, when_moved])
def test_a_deletion_that_was_begun_is_completed_and_logged(
    arm: Callable[..., None],
    claim: Claim,
    photos: Files,
    fingerprint: Fingerprint,
    tmp_path: Path,
    store: ClaimStore,
) -> None:
    keep(tmp_path, claim, photos, fingerprint, never)
    run_and_die(remove, tmp_path, arm)
    with pytest.raises(Refusal, match="no claim 'A' is stored"):
        store.read("A", "evidence.json")
    assert sightings(store, fingerprint) == []
    for _ in range(2):
        assert purge(store) == Purged((), ())
        assert names(store) == []
        assert len(store.index) == 0
        assert events(store) == ["evidence_written", "claim_deleted"]


def test_a_store_that_an_earlier_version_left_with_blocked_ids(
    fingerprint: Fingerprint, store: ClaimStore
) -> None:
    """Its reservation was an empty folder, and its hashes counted from the start."""
    (store.claims / "A").mkdir()
    store.index.add_fingerprints("A", [fingerprint])
    assert sightings(store, fingerprint) == []
    with store.new("A"):
        pass
    (store.claims / "A").mkdir()
    store.index.add_fingerprints("A", [fingerprint])
    purge(store)
    assert (names(store), len(store.index)) == ([], 0)


@pytest.mark.parametrize("fails", [False, True])
def test_of_two_claims_with_one_photo_at_once_the_second_waits_for_the_first(
    fails: bool, fingerprint: Fingerprint, store: ClaimStore
) -> None:
    asks = threading.Event()
    under_way = store._is_under_way
    store._is_under_way = lambda claim_id: (asks.set(), under_way(claim_id))[1]  # type: ignore[method-assign]

    def second() -> list[str]:
        with store.new("B"):
            store.index.add_fingerprints("B", [fingerprint])
            return sightings(store, fingerprint)

    with ThreadPoolExecutor(1) as pool:
        try:
            with store.new("A"):
                store.index.add_fingerprints("A", [fingerprint])
                running = pool.submit(second)
                assert asks.wait(10)
                assert store.index.find_fingerprint(fingerprint, other_than="A") == (), (
                    "B came later"
                )
                assert not running.done()
                if fails:
                    raise RealDamageError("no room")
                (store.claims / "A").mkdir()
                (store.claims / "A" / "evidence.json").touch()
        except RealDamageError:
            assert fails
        assert running.result(10) == ([] if fails else ["A"])
