"""A suite scores each photo as evaluation always did and after each perturbation, and goes on where
it was killed.
"""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.core.detector import Detector
from realdamage.data.manifest import Manifest, with_known_columns
from realdamage.errors import ConfigError, PhotoError, UsageError
from realdamage.evaluation import robustness
from realdamage.evaluation.perturbations import suite_from_config
from realdamage.evaluation.predictions import score_manifest
from realdamage.evaluation.robustness import (
    ModelFile,
    Suite,
    draw_photos,
    trained_on_note,
    training_set,
)

STEPS = {
    "soft": [{"step": "jpeg", "quality": 40}],
    "half": [{"step": "resize", "scale": 0.5}],
    "noisy": [{"step": "noise", "sigma": 20}, {"step": "crop", "keep": 0.9}],
}
SUITE = suite_from_config(
    {"perturbations": {name: {"title": name, "steps": steps} for name, steps in STEPS.items()}}
)
REAL = {"label": "real", "kind": "original"}
WHOLE = {"label": "synthetic", "kind": "ai_whole"}
REGION = {"label": "synthetic", "kind": "ai_region"}
ROWS = [
    *({**REAL, "file_name": f"r{red}.png", "group": f"g{red}", "red": red} for red in (10, 60, 90)),
    *({**WHOLE, "file_name": f"s{red}.png", "red": red} for red in (150, 200)),
    {**REGION, "file_name": "a.png", "mask_file_name": "m.png", "red": 250},
    {**REGION, "file_name": "b.png", "group": "g10", "pair": "r10.png", "red": 220},
]


class Interrupted(Detector):
    """A detector whose process is stopped after so many verdicts."""

    left = 0

    def predict_photo(self, photo):
        Interrupted.left -= 1
        if Interrupted.left < 0:
            raise KeyboardInterrupt
        return super().predict_photo(photo)


@pytest.fixture
def detector(model_file):
    return Detector.load(model_file, threads=1)


@pytest.fixture
def score(detector, tmp_path, monkeypatch):
    """`score(manifest, suite, …)` in this process, two photos to a part, into one folder."""
    monkeypatch.setattr(robustness, "_PHOTOS", 2)

    def score(manifest, suite=(), **changes):
        about = {"folder": tmp_path / "run", "model": "red", "load": lambda threads: detector}
        about |= changes
        how = {key: about.pop(key) for key in ("workers", "overwrite") if key in about}
        made = Suite(manifest=manifest, perturbations=suite, **about)
        made.score(**{"workers": 1, **how})
        return made

    return score


def same(one, other):
    return one.drop(columns="ms").equals(other.drop(columns="ms"))


def test_every_photo_is_scored_as_it_is_and_with_a_moved_mask_under_every_perturbation(
    score, write_photos, detector
):
    manifest = write_photos(ROWS)
    expected, [evidence] = score_manifest(detector, manifest)
    found = score(manifest, SUITE)
    table, names = found.predictions, [row["file_name"] for row in ROWS]
    assert same(table[: len(ROWS)], expected)
    assert table["file_name"].tolist() == 4 * names
    assert table["perturbation"].tolist() == [name for name in ("", *STEPS) for _ in names]
    assert table["photo_sha256"].nunique() > 3 * len(names)
    assert (table["ms"] > 0).all()
    sizes = table.groupby("perturbation")[["width", "height"]].max()
    assert sizes.loc["half"].tolist() == [40, 32]
    assert sizes.loc["noisy"].tolist() == [72, 58]
    # A photo of one colour scores the same at half its size.
    whole = table.pivot(index="file_name", columns="perturbation", values="score").drop("a.png")
    assert np.allclose(whole[""], whole["half"])
    [clean], [half] = found.localisation(), found.localisation("half")
    assert clean.file_name == evidence.file_name == "a.png"
    assert np.array_equal(clean.heat, evidence.heat)
    # 40 of 80 columns are painted, in patches of 16; then 20 of 40.
    assert clean.painted.tolist() == 4 * [[True, True, False, False, False]]
    assert half.painted.tolist() == 2 * [[True, False, False]]
    assert (half.heat[half.painted] > 0.9).all()
    areas = table.query("file_name == 'a.png'").set_index("perturbation")["mask_area"]
    assert areas[""] == areas["half"] == areas["soft"] == 0.5


def test_an_interrupted_run_goes_on_and_ends_with_the_same_table(
    score, write_photos, detector, tmp_path
):
    manifest = write_photos(ROWS)
    expected = score(manifest, SUITE, folder=tmp_path / "other").predictions
    Interrupted.left = 20  # 2 parts of 2 photos, 4 verdicts each, and half of the third
    stopped = Interrupted(detector._scorer, detector.metadata, graph_sha256=detector.graph_sha256)
    with pytest.raises(KeyboardInterrupt):
        score(manifest, SUITE, load=lambda threads: stopped)
    written = sorted(path.name for path in (tmp_path / "run/.parts").iterdir())
    assert written == ["000000.json", "000001.json", "mark.json"]
    found = score(manifest, SUITE)
    assert found.resumed == 4
    assert same(found.predictions, expected)
    found.discard()
    assert not (tmp_path / "run/.parts").exists()


@pytest.mark.slow  # two processes import everything
def test_any_number_of_processes_gives_the_same(score, write_photos, model_file, tmp_path):
    manifest = write_photos(ROWS)
    one = score(manifest, SUITE)
    apart = {"folder": tmp_path / "other", "load": ModelFile(model_file)}
    two = score(manifest, SUITE, workers=2, **apart)
    assert same(one.predictions, two.predictions)
    for name in ("", "noisy"):
        [mine], [theirs] = one.localisation(name), two.localisation(name)
        assert np.array_equal(mine.heat, theirs.heat)


def test_figures_of_two_evaluations_never_mix(score, write_photos):
    manifest = write_photos(ROWS)
    score(manifest, SUITE[:2])
    fewer = manifest.subset(manifest.table["label"] == "real")
    for photos, suite, changes in (
        (manifest, SUITE[:2], {"model": "blue"}),
        (manifest, SUITE[:2], {"seed": 1}),
        (manifest, SUITE[1:], {}),
        (fewer, SUITE[:2], {}),
    ):
        with pytest.raises(UsageError) as caught:
            score(photos, suite, **changes)
        assert caught.value.code == "other_set"
    assert score(manifest, SUITE[:2]).resumed == len(ROWS)
    assert score(manifest, SUITE[1:], overwrite=True).resumed == 0


def test_a_photo_that_was_replaced_is_scored_again(score, write_photos):
    manifest = write_photos(ROWS)
    before = score(manifest).predictions
    Image.new("RGB", (80, 64), (255, 0, 0)).save(manifest.path("r10.png"))
    after = score(manifest)
    assert after.resumed == len(ROWS) - 2
    assert after.predictions["score"][0] > before["score"][0] + 5
    assert after.predictions["score"][1:].equals(before["score"][1:])


def test_an_unreadable_photo_stops_the_run_or_is_left_empty(score, write_photos):
    manifest = write_photos(ROWS)
    manifest.path("r90.png").write_bytes(b"no photo")
    with pytest.raises(PhotoError, match=r"r90\.png"):
        score(manifest, SUITE)
    skipped = score(manifest, SUITE, on_error="skip")
    assert skipped.resumed == 2
    empty = skipped.predictions[skipped.predictions["score"].isna()]
    assert empty["file_name"].tolist() == 4 * ["r90.png"]
    assert empty["perturbation"].tolist() == ["", *STEPS]
    assert set(empty["reasons"]) == {"unreadable"}
    with pytest.raises(PhotoError, match=r"r90\.png"):
        score(manifest, SUITE)


def test_a_limit_draws_whole_groups_of_both_classes(tmp_path):
    """40 groups of an original and two edits; nothing is opened."""
    rows = [
        {"file_name": f"{group}_{part}.png", "label": label, "group": f"g{group}"}
        for part, label in enumerate(("real", "synthetic", "synthetic"))
        for group in range(40)
    ]
    table = with_known_columns(pd.DataFrame(rows))
    many = Manifest(tmp_path, table)
    drawn = draw_photos(many, 31, seed=0).table
    assert sorted(drawn["group"].value_counts()) == [1, *10 * [3]]
    order = table["file_name"].tolist()
    assert drawn["file_name"].tolist() == sorted(drawn["file_name"], key=order.index)
    assert draw_photos(many, 31, seed=0).table.equals(drawn)
    assert not draw_photos(many, 31, seed=1).table.equals(drawn)
    assert draw_photos(many, 500).table.equals(table)
    lonely = Manifest(tmp_path, table[39:].assign(group=table["file_name"][39:]))
    with pytest.raises(ConfigError) as caught:
        draw_photos(lonely, 4, seed=0)
    assert caught.value.code == "one_class"
    with pytest.raises(ConfigError, match=r"limit=1"):
        draw_photos(many, 1)


def test_training_photos_are_known_by_their_digest_and_scored_only_when_asked_for(tmp_path):
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    rows = [
        {"file_name": f"{row}.png", "label": "real", "split": split, "source": "abc"[row % 3]}
        for row, split in enumerate(splits)
    ]
    split_set = Manifest(tmp_path, with_known_columns(pd.DataFrame(rows)))
    training = {"manifest_sha256": split_set.digest()}
    with pytest.raises(ConfigError, match="6 of these 10 photos") as caught:
        trained_on_note(split_set, split_set, training, None)
    assert caught.value.code == "training_photos"
    assert len(trained_on_note(split_set, split_set.select(split="train"), training, "train")) == 1
    assert trained_on_note(split_set, split_set.select(split="test"), training, "test") == ()
    # Of another set nothing is known, so nothing is refused.
    assert training_set(split_set, {}) is None
    assert trained_on_note(split_set, split_set, {"manifest_sha256": "other"}, None) == ()
    left_out = (split_set.table["source"] == "a") & (split_set.table["split"] != "test")
    known = split_set.subset(~left_out).digest()
    training = {"manifest_sha256": known, "excluded": {"source": ["a"]}}
    found = training_set(split_set, training)
    assert found is not None
    assert len(found) == (~left_out).sum()
    with pytest.raises(ConfigError, match="4 of these 10 photos"):
        trained_on_note(split_set, split_set, training, None)
    never_seen = split_set.subset(left_out & (split_set.table["split"] == "train"))
    assert trained_on_note(split_set, never_seen, training, None) == ()
