"""The model inside the package: what a service gets from `Detector.load()`, and the card that describes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from realdamage.core.detector import PACKAGED_MODEL, Detector
from realdamage.core.model_file import read_model_file

REPOSITORY = Path(__file__).parents[2]
WHOLE_EDITS = {"000001": "original", "000003": "damaged", "000004": "original", "000007": "damaged"}


def test_it_is_small_calibrated_and_no_demo() -> None:
    _, metadata, _ = read_model_file(PACKAGED_MODEL)
    assert PACKAGED_MODEL.stat().st_size <= 12e6
    assert not metadata.demo
    assert metadata.calibration is not None
    assert metadata.policy is not None
    assert metadata.policy.t_real < metadata.policy.t_synthetic


def test_its_card_is_about_this_very_file() -> None:
    card = PACKAGED_MODEL.with_suffix(".md").read_text()
    assert hashlib.sha256(PACKAGED_MODEL.read_bytes()).hexdigest() in card
    assert "deployed generators" in card.splitlines()[0]


def test_no_photo_of_the_sample_is_accused_but_whole_edits_stand_out() -> None:
    photos = REPOSITORY / "data" / "sample" / "photos"
    detector = Detector.load(threads=1)
    pairs = [
        (photos / f"{n}_{real}.jpg", photos / f"{n}_ai_whole.jpg")
        for n, real in WHOLE_EDITS.items()
    ]
    for original, edit in pairs:
        before, after = detector.predict(original), detector.predict(edit)
        assert before.outcome != "synthetic", original.name
        assert after.score > before.score, edit.name
