"""Folds are dealt and checked before anything is trained; a run goes on where it was, and a failed fold is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from realdamage.configuration import compose, plain
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.data.manifest import Manifest, read_manifest, with_known_columns
from realdamage.data.readers import reader_from_mapping
from realdamage.errors import ConfigError
from realdamage.evaluation.fold_plan import FoldPlan, data_overrides, deal_folds, quoted
from realdamage.evaluation.fold_runs import FoldRuns, Processes, Scoring
from realdamage.evaluation.left_out import read_fold
from realdamage.evaluation.predictions import read_predictions

STAGES = ("quickstart", "reference")


def set_of(photos: dict[str, int]) -> Manifest:
    """So many synthetic photos of each family, and a real one."""
    rows = [{"file_name": "real.png", "label": "real", "split": "test"}]
    for family, count in photos.items():
        for index in range(count):
            name = f"{family}_{index}.png"
            rows.append(
                {"file_name": name, "label": "synthetic", "family": family, "split": "test"}
            )
    return Manifest(Path("photos"), with_known_columns(pd.DataFrame(rows).fillna("")))


def plan_of(folds: dict[str, list[str]], out: Path = Path("out"), *settings: str) -> FoldPlan:
    return FoldPlan(str(out), "folds", "family", folds, STAGES, settings)


class TestDealing:
    def test_the_largest_goes_first_into_the_emptiest(self) -> None:
        manifest = set_of({"a": 3, "b": 9, "c": 3, "d": 5, "e": 1})
        # 9 | 5; 3 (a) to the second: 8; 3 (c) to the second: 11; 1 to the first.
        assert deal_folds(manifest, "family", 2) == {"fold1": ["b", "e"], "fold2": ["d", "a", "c"]}
        turned = replace(manifest, table=manifest.table.iloc[::-1].reset_index(drop=True))
        assert deal_folds(turned, "family", 2) == deal_folds(manifest, "family", 2)

    def test_there_are_no_more_folds_than_values(self) -> None:
        assert deal_folds(set_of({"a": 2, "b": 2}), "family", 6) == {"fold1": ["a"], "fold2": ["b"]}

    @pytest.mark.parametrize(
        ("photos", "column", "count", "told"),
        [
            ({"a": 2}, "family", 6, "photos has 1 family of synthetic photos; at least 2"),
            (
                {"a": 2, "b": 1},
                "family",
                1,
                "count=1; at least 2 are needed, as some must stay to train on",
            ),
            ({"a": 2}, "famly", 6, "column=famly: photos has no such column; it has file_name"),
        ],
    )
    def test_too_few_values_are_told(
        self, photos: dict[str, int], column: str, count: int, told: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            deal_folds(set_of(photos), column, count)
        assert told in str(caught.value)


class TestPlan:
    def test_each_stage_starts_from_the_one_before_and_leaves_out_the_same(self) -> None:
        plan = plan_of({"f": ["a", "b"]}, Path("out"), "trainer.max_epochs=3")
        first, second = (plan.overrides("f", stage) for stage in STAGES)
        shared = ["trainer.max_epochs=3", "paths.out='out'"]
        assert first == [
            *("+experiment=quickstart", *shared),
            *("name='folds/f/quickstart'", "+data.exclude.family=['a','b']"),
        ]
        assert second == [
            *("+experiment=reference", *shared),
            *("name='folds/f/reference'", "+data.exclude.family=['a','b']"),
            "model.weights='out/folds/f/quickstart/best.ckpt'",
        ]
        longer = replace(plan, stage_settings={"reference": ["trainer.max_epochs=9"]})
        assert longer.overrides("f", STAGES[0]) == first
        assert longer.overrides("f", STAGES[1]) == [
            *second[:2],
            "trainer.max_epochs=9",
            *second[2:],
        ]

    def test_any_word_reaches_the_training_as_it_is(self, tmp_path: Path) -> None:
        words = [
            "it's",
            "a,b",
            "x=y",
            "back\\",
            "\\'",
            'OSU/Magic "Brush"',
            "[1]",
            "2024",
            "null",
            "#1",
            "für",
        ]
        reader = {"layout": "table", "columns": {"label": "is it, generated=?"}, "constants": {}}
        reader["values"] = {"label": {"0": "real", "y: s": "synthetic"}}
        settings = (
            *data_overrides("my photos/ü.csv", reader),
            f"paths.run={quoted(str(tmp_path))}",
        )
        config = plain(
            compose(
                "train",
                plan_of({"f": words}, tmp_path / "a b", *settings).overrides("f", STAGES[1]),
            )
        )
        assert config["data"]["exclude"] == {"family": words}
        assert config["data"]["root"] == "my photos/ü.csv"
        assert reader_from_mapping(config["data"]["reader"]) == reader_from_mapping(
            reader
        )  # 0 is a word there
        assert config["model"]["weights"] == str(tmp_path / "a b/folds/f/quickstart/best.ckpt")

    @pytest.mark.parametrize(
        ("folds", "changes", "told"),
        [
            (
                {"f": ["tased"]},
                {},
                "folds.f: photos has no family 'tased'. Did you mean 'taesd'? It has other, taesd",
            ),
            ({"a b": ["taesd"]}, {}, "folds.a b: its name becomes a folder's"),
            ({"mean": ["taesd"]}, {}, "folds.mean: its name becomes a folder's"),
            (
                {"f": []},
                {},
                "folds.f: no synthetic photo of the test split has family (no value is named)",
            ),
            (
                {"f": ["taesd"]},
                {"stages": ("reference", "reference")},
                "name at least one experiment, and none twice",
            ),
            (
                {"f": ["taesd"]},
                {"stage_settings": {"refrence": ()}},
                "stage_overrides.refrence: not one of the stages quickstart, reference",
            ),
            ({"f": ["taesd"]}, {"stages": ()}, "name at least one experiment, and none twice"),
            ({"f": ["taesd"]}, {"stages": ("referense",)}, "did you mean experiment=reference?"),
            ({"f": ["taesd"]}, {"settings": ("model.lrr=1",)}, "did you mean model.lr?"),
            (
                {"f": ["taesd"]},
                {"settings": ("+data.exclude.source=[shop]",)},
                "stage quickstart leaves out photos by source besides family",
            ),
        ],
    )
    def test_what_cannot_be_done_is_told_before_anything_is_trained(
        self, folds: dict[str, list[str]], changes: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            replace(plan_of(folds), **changes).check(set_of({"taesd": 3, "other": 2}))
        assert told in str(caught.value)

    def test_left_out_values_without_test_photos_are_told(self) -> None:
        manifest = set_of({"a": 2, "b": 2})
        table = manifest.table.assign(
            split=manifest.table["family"].map({"a": "train"}).fillna("test")
        )
        with pytest.raises(
            ConfigError, match=r"folds\.f: no synthetic photo of the test split has family a, so"
        ):
            plan_of({"f": ["a"]}).check(replace(manifest, table=table))
        plan_of({"f": ["a", "b"]}).check(replace(manifest, table=table))


class TestSettings:
    """What a folder was trained with, told by the config.yaml that every training leaves there."""

    @pytest.fixture
    def trained(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A run as typed by hand, in the layout of the folds."""
        monkeypatch.chdir(tmp_path)
        folder = tmp_path / "out/folds/f/quickstart"
        overrides = [
            "+experiment=quickstart",
            "data.root=photos",
            "+data.exclude.family=[a]",
            "threads=2",
        ]
        config = compose(
            "train", [*overrides, "name=folds/f/quickstart", "paths.run=out/folds/f/quickstart"]
        )
        folder.mkdir(parents=True)
        OmegaConf.save(config, folder / "config.yaml", resolve=True)
        return folder

    def test_runs_made_by_hand_are_gone_on_with(self, trained: Path) -> None:
        plan_of({"f": ["a"]}, Path("out"), "data.root=photos").check_settings()
        root = trained.parents[3] / "photos"
        plan_of(
            {"f": ["a"]}, trained.parents[2], f"data.root={root}", "data.workers=1"
        ).check_settings()

    @pytest.mark.parametrize(
        ("folds", "setting", "told"),
        [
            ({"f": ["a", "b"]}, "seed=0", "data.exclude.family was ['a'], now ['a', 'b']"),
            ({"f": ["a"]}, "model.lr=2e-3", "model.lr was 0.001, now 0.002"),
            ({"f": ["a"]}, "data.root=elsewhere", "elsewhere"),
            ({"f": ["a"]}, "model.weights=start.ckpt", "model.weights was None, now start.ckpt"),
        ],
    )
    def test_other_settings_are_named(
        self, trained: Path, folds: dict[str, list[str]], setting: str, told: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            plan_of(folds, Path("out"), "data.root=photos", setting).check_settings()
        message = str(caught.value)
        assert f"{Path('out/folds/f/quickstart')} was trained with other settings: " in message
        assert told in message
        assert "overwrite=true" in message

    def test_a_key_that_came_later_had_its_default_then(self, trained: Path) -> None:
        saved = OmegaConf.load(trained / "config.yaml")
        del saved["data"]["audit"], saved["trainer"]["benchmark"]
        OmegaConf.save(saved, trained / "config.yaml")
        plan_of({"f": ["a"]}, Path("out"), "data.root=photos").check_settings()
        with pytest.raises(ConfigError, match=r"data\.audit was stop, now warn"):
            plan_of(
                {"f": ["a"]}, Path("out"), "data.root=photos", "data.audit=warn"
            ).check_settings()


class Launcher:
    """Stands for the processes: leaves what a training or an export leaves, and remembers what was asked."""

    def __init__(self, model: Path, failing: str = "") -> None:
        self.model, self.failing, self.calls = model, failing, list[str]()

    def __call__(
        self,
        command: str,
        arguments: Sequence[str],
        threads: int,
        log: Path,
        say: Callable[[str], None],
    ) -> int:
        given = dict(argument.replace("'", "").split("=", 1) for argument in arguments)
        *_, fold, what = given["name"].split("/")
        self.calls.append(f"{fold} {what} {threads}")
        if f"{fold} {what}" == self.failing:
            say("error: no luck")
            return 3
        folder = Path(given["paths.out"]) / given["name"]
        folder.mkdir(parents=True, exist_ok=True)
        if command == "train":
            assert given["resume"] == "last"
            (folder / "best.ckpt").write_text(what)
            return 0
        data, metadata, _ = read_model_file(self.model)
        metadata = replace(metadata, training={"excluded": {"generator": [fold]}})
        write_model_file(given["output"], data, metadata)
        return 0


class TestRuns:
    @pytest.fixture
    def runs(self, tiny_manifest: Path, tiny_onnx: Path, tmp_path: Path) -> FoldRuns:
        plan = FoldPlan(
            str(tmp_path / "out"),
            "folds",
            "generator",
            {"even": ["even"], "odd": ["odd"]},
            STAGES,
            (),
        )
        return FoldRuns(
            plan, read_manifest(tiny_manifest), Scoring(), 2, launch=Launcher(tiny_onnx)
        )

    def test_all_is_done_once_and_in_order(self, runs: FoldRuns, tmp_path: Path) -> None:
        assert runs.run() == {}
        done = [f"{fold} {what} 2" for fold in ("even", "odd") for what in (*STAGES, "export")]
        assert runs.launch.calls == done
        fold = read_fold(tmp_path / "out/folds/even")
        assert (fold.column, fold.left_out) == ("generator", ("even",))
        synthetic = fold.predictions[fold.predictions["label"] == "synthetic"]
        assert set(synthetic["generator"]) == {"even"}
        # Groups 12 to 15 are the test; 15 has a photo with an annotation besides.
        assert (fold.predictions["label"] == "real").sum() == 5
        assert set(fold.predictions["split"]) == {"test"}
        assert [row["left_out"] for row in fold.localisation] == ["all", "others"]
        assert fold.localisation[0]["n_photos"] == 2
        before = {
            path: path.stat().st_mtime_ns
            for path in (tmp_path / "out").rglob("*")
            if path.is_file()
        }
        assert runs.run() == {}
        assert runs.launch.calls == done
        assert before == {
            path: path.stat().st_mtime_ns
            for path in (tmp_path / "out").rglob("*")
            if path.is_file()
        }

    def test_what_is_missing_is_made_again(self, runs: FoldRuns, tmp_path: Path) -> None:
        runs.run()
        runs.launch.calls.clear()
        folder = tmp_path / "out/folds/even"
        (folder / "reference/best.ckpt").unlink()
        (tmp_path / "out/folds/odd/model.onnx").unlink()
        os.utime(folder / "model.onnx", (0, 0))
        assert runs.run() == {}
        assert runs.launch.calls == ["even reference 2", "even export 2", "odd export 2"]

    @pytest.mark.parametrize("failing", ["even quickstart", "even export"])
    def test_a_fold_that_fails_is_named_and_the_others_go_on(
        self,
        failing: str,
        runs: FoldRuns,
        tiny_onnx: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        failed = replace(runs, launch=Launcher(tiny_onnx, failing)).run()
        what = failing.split()[1]
        assert list(failed) == ["even"]
        assert (
            f"{what} ended with exit code 3; {tmp_path / 'out/folds/even/log.txt'} says why"
            in failed["even"]
        )
        assert f"even, {what}: error: no luck" in capsys.readouterr().out
        assert read_fold(tmp_path / "out/folds/odd").left_out == ("odd",)
        assert runs.run() == {}
        assert f"{failing} 2" in runs.launch.calls
        assert not [call for call in runs.launch.calls if call.startswith("odd")]

    def test_a_scoring_with_other_settings_is_done_anew(
        self, runs: FoldRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs.run()
        runs.launch.calls.clear()
        path = tmp_path / "out/folds/even/test/predictions.csv"
        assert len(read_predictions(path)) == 8
        assert replace(runs, scoring=Scoring(limit=6)).run() == {}
        assert len(read_predictions(path)) == 6
        assert "even: scored with another photos before" in capsys.readouterr().out
        assert runs.launch.calls == []

    def test_starting_over_removes_what_was_made_and_nothing_else(
        self, runs: FoldRuns, tmp_path: Path
    ) -> None:
        runs.run()
        mine = tmp_path / "out/folds/even/notes.txt"
        mine.write_text("mine")
        other = shutil.copytree(tmp_path / "out/folds/odd", tmp_path / "out/folds/other")
        runs.start_over()
        assert mine.is_file()
        assert (other / "reference/best.ckpt").is_file()
        left = {path.name for path in (tmp_path / "out/folds/even").rglob("*") if path.is_file()}
        assert left == {"notes.txt"}

    def test_a_run_with_other_settings_stops_all_before_the_first(
        self, runs: FoldRuns, tmp_path: Path
    ) -> None:
        folder = tmp_path / "out/folds/odd/reference"
        folder.mkdir(parents=True)
        config = compose("train", ["+experiment=reference", "model.lr=7", f"paths.run={folder}"])
        OmegaConf.save(config, folder / "config.yaml", resolve=True)
        with pytest.raises(
            ConfigError,
            match=r"odd/reference was trained with other settings: .*model\.lr was 7\.0",
        ):
            runs.run()
        assert runs.launch.calls == []


def test_a_process_writes_its_log_and_its_errors_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    processes = Processes()
    arguments = [
        f"checkpoint={tmp_path / 'gone.onnx'}",
        f"data.root={tmp_path}",
        f"paths.out={tmp_path}",
    ]
    code = processes(
        "evaluate", arguments, 1, log, said.append
    )  # starts faster than export, which loads torch
    assert code == 2
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[1].startswith("$ realdamage-evaluate checkpoint=")
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert said[0] in lines
    processes.stop()
    assert processes("evaluate", [], 1, log, said.append) == 130
    assert log.read_text().splitlines() == lines, "something was started after the end"
