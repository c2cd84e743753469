"""A suite scores each photo as evaluation always did and after each perturbation, and goes on where it was killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.core.detector import Detector
from realdamage.core.tiles import Photo
from realdamage.core.verdict import Verdict
from realdamage.data.manifest import Manifest, read_manifest, write_manifest
from realdamage.data.parts import in_processes
from realdamage.errors import ConfigError, PhotoError, RealDamageError
from realdamage.evaluation import robustness
from realdamage.evaluation.perturbations import Perturbation, suite_from_config
from realdamage.evaluation.predictions import score_manifest
from realdamage.evaluation.robustness import ModelFile, ScoredSuite, score_suite
from realdamage.evaluation.sampling import draw_keys, draw_photos

WritePhotos = Callable[..., Manifest]
STEPS = {
    "soft": [{"step": "jpeg", "quality": 40}],
    "half": [{"step": "resize", "scale": 0.5}],
    "noisy": [{"step": "noise", "sigma": 20}, {"step": "crop", "keep": 0.9}],
}
SUITE = suite_from_config(
    {"perturbations": {name: {"title": name, "steps": steps} for name, steps in STEPS.items()}}
)
ROWS = [
    *(
        {"file_name": f"r{red}.png", "label": "real", "group": f"g{red}", "red": red}
        for red in (10, 60, 90)
    ),
    *(
        {"file_name": f"s{red}.png", "label": "synthetic", "kind": "ai_whole", "red": red}
        for red in (150, 200)
    ),
    {
        "file_name": "a.png",
        "label": "synthetic",
        "kind": "ai_region",
        "mask_file_name": "m.png",
        "red": 250,
    },
    {
        "file_name": "b.png",
        "label": "synthetic",
        "kind": "ai_region",
        "group": "g10",
        "pair": "r10.png",
        "red": 220,
    },
]
FIGURES = [
    "file_name",
    "perturbation",
    "score",
    "outcome",
    "width",
    "height",
    "photo_sha256",
    "mask_area",
]


class Interrupted(Detector):
    """A detector whose process is stopped after so many verdicts."""

    left = 0

    def predict_photo(self, photo: Photo) -> Verdict:
        Interrupted.left -= 1
        if Interrupted.left < 0:
            raise KeyboardInterrupt
        return super().predict_photo(photo)


@pytest.fixture
def score(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ScoredSuite]:
    """`score(manifest, …)` in this process, two photos to a shard, into one folder."""
    monkeypatch.setattr(robustness, "_PHOTOS", 2)
    return partial(
        score_suite, ModelFile(model_file), folder=tmp_path / "run", model="red", workers=1
    )


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.drop(columns="ms").equals(other.drop(columns="ms"))


def test_photos_as_they_are_are_scored_as_ever(
    score, write_photos: WritePhotos, model_file: Path
) -> None:
    manifest = write_photos(ROWS)
    expected, evidence = score_manifest(Detector.load(model_file), manifest)
    alone, among = score(manifest), score(manifest, SUITE, overwrite=True)
    for found in (alone.predictions, among.predictions[: len(ROWS)]):
        assert same(found, expected)
    for found in (alone, among):
        [photo] = found.localisation()
        assert photo.file_name == evidence[0].file_name == "a.png"
        assert np.array_equal(photo.heat, evidence[0].heat)
        assert np.array_equal(photo.painted, evidence[0].painted)
    assert (alone.predictions["ms"] > 0).all()


def test_every_photo_has_a_row_under_every_perturbation(score, write_photos: WritePhotos) -> None:
    found = score(write_photos(ROWS), SUITE).predictions
    names = [row["file_name"] for row in ROWS]
    assert found["file_name"].tolist() == 4 * names
    assert found["perturbation"].tolist() == [name for name in ("", *STEPS) for _ in names]
    assert found["score"].notna().all()
    assert found["photo_sha256"].nunique() > 3 * len(names)
    sizes = found.groupby("perturbation")[["width", "height"]].max()
    assert sizes.loc["half"].tolist() == [40, 32]
    assert sizes.loc["noisy"].tolist() == [72, 58]
    # A photo of one colour scores the same at half its size.
    whole = found.pivot(index="file_name", columns="perturbation", values="score").drop("a.png")
    assert np.allclose(whole[""], whole["half"])


def test_the_heat_map_is_compared_with_the_mask_that_moved_along(
    score, write_photos: WritePhotos
) -> None:
    found = score(write_photos(ROWS), SUITE)
    [clean], [half] = found.localisation(), found.localisation("half")
    assert clean.painted.tolist() == 4 * [
        [True, True, False, False, False]
    ]  # 40 of 80 columns, patches of 16
    assert half.painted.tolist() == 2 * [[True, False, False]]  # 20 of 40
    assert (half.heat[half.painted] > 0.9).all()
    areas = found.predictions.query("file_name == 'a.png'").set_index("perturbation")["mask_area"]
    assert areas[""] == areas["half"] == areas["soft"] == 0.5
    assert found.predictions.query("label == 'real'")["mask_area"].eq(0).all()


def test_an_interrupted_run_goes_on_and_ends_with_the_same_table(
    score, write_photos: WritePhotos, model_file: Path, tmp_path: Path
) -> None:
    manifest = write_photos(ROWS)
    expected = score(manifest, SUITE, folder=tmp_path / "other").predictions
    detector = Detector.load(model_file)
    Interrupted.left = 20  # 2 shards of 2 photos, 4 verdicts each, and half of the third
    stopped = Interrupted(detector._scorer, detector.metadata, graph_sha256=detector.graph_sha256)
    with pytest.raises(KeyboardInterrupt):
        score_suite(
            lambda threads: stopped,
            manifest,
            SUITE,
            folder=tmp_path / "run",
            model="red",
            workers=1,
        )
    assert sorted(path.name for path in (tmp_path / "run/.parts").iterdir()) == [
        "000000.npz",
        "000001.npz",
        "mark.json",
    ]
    told: list[tuple[int, str]] = []

    def watch(steps: Any, total: int, description: str) -> Any:
        told.append((total, description))
        return iter(steps)

    found = score(manifest, SUITE, progress=watch)
    assert (found.resumed, told) == (4, [(2, "parts of 2 photos")])
    assert same(found.predictions, expected)
    found.discard()
    assert not (tmp_path / "run/.parts").exists()


def test_any_number_of_processes_gives_the_same(
    score, write_photos: WritePhotos, tmp_path: Path
) -> None:
    manifest = write_photos(ROWS)
    one = score(manifest, SUITE, threads=1)
    two = score(manifest, SUITE, folder=tmp_path / "other", workers=2)
    assert same(one.predictions, two.predictions)
    for name in ("", "noisy"):
        [mine], [theirs] = one.localisation(name), two.localisation(name)
        assert np.array_equal(mine.heat, theirs.heat)


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(RealDamageError, match=r"a worker failed.*kept; run the same command"):
        list(in_processes(int, (), os._exit, [9, 9], 2, fresh=True))


def test_figures_of_two_evaluations_never_mix(score, write_photos: WritePhotos) -> None:
    manifest = write_photos(ROWS)
    score(manifest, SUITE[:2])
    for changed, told in (
        ({"model": "blue"}, "another model"),
        ({"seed": 1}, "another seed"),
        ({"perturbations": SUITE[1:]}, "another robustness suite"),
        ({"model": "blue", "seed": 1}, "another model and another seed"),
    ):
        with pytest.raises(
            ConfigError, match=rf"unfinished evaluation with {told}\..*overwrite=true"
        ):
            score(manifest, **{"perturbations": SUITE[:2], **changed})
    assert score(manifest, SUITE[:2]).resumed == len(ROWS)
    assert score(manifest, SUITE[1:], overwrite=True).resumed == 0
    with pytest.raises(ConfigError, match="another robustness suite"):
        score(manifest, SUITE[:2])


def test_another_set_of_photos_is_another_evaluation(score, write_photos: WritePhotos) -> None:
    manifest = write_photos(ROWS)
    score(manifest)
    with pytest.raises(ConfigError, match="another set of photos"):
        score(manifest.subset(manifest.table["label"] == "real"))


def test_a_photo_that_was_replaced_is_scored_again(score, write_photos: WritePhotos) -> None:
    manifest = write_photos(ROWS)
    before = score(manifest).predictions
    Image.new("RGB", (80, 64), (255, 0, 0)).save(manifest.path("r10.png"))
    after = score(manifest)
    assert after.resumed == len(ROWS) - 2
    assert after.predictions["score"][0] > before["score"][0] + 5
    assert after.predictions["score"][1:].equals(before["score"][1:])


def test_an_unreadable_photo_stops_the_run_or_is_left_empty(
    score, write_photos: WritePhotos
) -> None:
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


def test_a_photo_that_becomes_too_small_has_no_score_there(
    score, write_photos: WritePhotos
) -> None:
    tiny = suite_from_config(
        {"perturbations": {"tiny": {"steps": [{"step": "resize", "scale": 0.25}]}}}
    )
    found = score(write_photos(ROWS), tiny).predictions
    assert found.loc[found["perturbation"] == "", "score"].notna().all()
    small = found[found["perturbation"] == "tiny"]
    assert small["score"].isna().all()
    assert set(small["reasons"]) == {"unreadable"}


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_is_none_is_refused(
    score, write_photos: WritePhotos, workers: int
) -> None:
    with pytest.raises(ConfigError, match=rf"workers={workers}: at least 1"):
        score(write_photos(ROWS), workers=workers)


def test_both_halves_of_a_pair_have_one_key() -> None:
    names = {
        "a.png": "",
        "b.png": "a.png",
        "c.png": "b.png",
        "d.png": "",
        "e.png": "f.png",
        "f.png": "e.png",
    }
    table = pd.DataFrame({"file_name": list(names), "pair": list(names.values())})
    assert draw_keys(table)[:4] == [
        "a.png",
        "a.png",
        "a.png",
        "d.png",
    ]  # and a circle does not hang


def test_both_halves_of_a_pair_get_the_same_noise(score, write_photos: WritePhotos) -> None:
    """r10 and its twin are one photo here, and stay one photo; a stranger with the same pixels does not."""
    rows = [{**row, "red": 10} if row["file_name"] in ("b.png", "r60.png") else row for row in ROWS]
    found = (
        score(write_photos(rows), SUITE)
        .predictions.query("perturbation == 'noisy'")
        .set_index("file_name")
    )
    digests = found["photo_sha256"]
    assert digests["r10.png"] == digests["b.png"] != digests["r60.png"]


@pytest.fixture
def many(tmp_path: Path) -> Manifest:
    """40 groups of an original and two edits; nothing is opened."""
    rows = [
        {
            "file_name": f"{group}_{part}.png",
            "label": "synthetic" if part else "real",
            "group": f"g{group}",
        }
        for part in range(3)
        for group in range(40)
    ]
    write_manifest(tmp_path, pd.DataFrame(rows))
    return read_manifest(tmp_path, check_files=False)


def test_a_limit_draws_whole_groups(many: Manifest) -> None:
    drawn = draw_photos(many, 31, seed=0).table
    assert len(drawn) == 31
    assert sorted(drawn["group"].value_counts()) == [1, *10 * [3]]
    order = many.table["file_name"].tolist()
    assert drawn["file_name"].tolist() == sorted(drawn["file_name"], key=order.index)
    assert set(drawn["label"]) == {"real", "synthetic"}
    assert draw_photos(many, 31, seed=0).table.equals(drawn)
    assert not draw_photos(many, 31, seed=1).table.equals(drawn)
    assert draw_photos(many, 500).table.equals(many.table)


@pytest.mark.parametrize(("limit", "told"), [(0, "at least 2"), (1, "at least 2")])
def test_a_limit_that_draws_nothing_to_compare_is_refused(
    many: Manifest, limit: int, told: str
) -> None:
    with pytest.raises(ConfigError, match=rf"data\.limit={limit}: {told}"):
        draw_photos(many, limit)


def test_a_draw_without_one_class_is_refused(many: Manifest) -> None:
    lonely = Manifest(
        many.root, many.table.assign(group=[f"g{index}" for index in range(len(many))])
    )
    few = lonely.subset(
        (lonely.table["label"] == "synthetic") | (lonely.table["file_name"] == "0_0.png")
    )
    with pytest.raises(
        ConfigError, match=r"data\.limit=4: no real photo was drawn of 81; raise it"
    ):
        draw_photos(few, 4, seed=0)


def test_perturbations_are_plain_values(model_file: Path) -> None:
    """Their text is what tells one suite from another."""
    assert repr(SUITE[0]) == repr(Perturbation("soft", "soft", SUITE[0].steps))
    assert "0x" not in repr(SUITE)
