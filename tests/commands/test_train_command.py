"""realdamage-train as it is typed: seeds that seed, runs that go on where they stopped, several at once."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from realdamage.commands import cli, train
from realdamage.core.detector import Detector
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.errors import ConfigError, ManifestError, ModelFileError
from realdamage.evaluation.predictions import score_manifest
from realdamage.training.building import build
from realdamage.training.classifier import DamageClassifier, load_classifier
from realdamage.training.dataset import PairDataset
from realdamage.training.record import model_metadata
from realdamage.training.scorer import TorchScorer
from realdamage.training.start import checkpoint_to_resume, run_lock

TinyConfig = Callable[..., DictConfig]
AS_TYPED = (
    "model.backbone=test_vit",
    "model.tile=64",
    "model.overlap=16",
    "trainer.max_epochs=1",
    "data.batch_units=7",
    "data.tiles_per_photo=1",
    "threads=1",
)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(checkpoint, weights_only=True)["state_dict"])


def largest_difference(first: Path, second: Path) -> float:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The key (epoch, index, times before) of every training unit in the order in which they were asked for."""
    keys: list[Any] = []
    read = PairDataset.__getitem__

    def remember(self: PairDataset, key: Any) -> Any:
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(PairDataset, "__getitem__", remember)
    return keys


class TestSeed:
    def test_the_seed_decides_weights_and_batches_and_zero_is_a_seed(
        self, tiny_config: TinyConfig, tmp_path
    ) -> None:
        harsh = "data.degradations.probability=1.0"
        found = []
        for number, seed in enumerate((0, 0, 1)):
            _, classifier, datamodule = build(
                tiny_config(tmp_path / str(number), f"seed={seed}", harsh)
            )
            datamodule.setup("fit")
            found.append(
                (
                    classifier.network.patch_head.weight,
                    next(iter(datamodule.train_dataloader()))["tiles"],
                )
            )
        (weight, tiles), (weight_again, tiles_again), (other_weight, other_tiles) = found
        assert torch.equal(weight, weight_again)
        assert torch.equal(tiles, tiles_again)
        assert not torch.equal(weight, other_weight)
        assert not torch.equal(tiles, other_tiles)

    def test_two_runs_of_one_seed_end_with_the_same_weights(
        self, tiny_config: TinyConfig, tmp_path
    ) -> None:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            train.run(tiny_config(tmp_path / name, f"seed={seed}", "trainer.max_epochs=1"))
        assert largest_difference(tmp_path / "a/last.ckpt", tmp_path / "b/last.ckpt") == 0.0
        assert largest_difference(tmp_path / "a/last.ckpt", tmp_path / "c/last.ckpt") > 1e-3


class TestResume:
    @pytest.mark.parametrize("adapt", ["full", "lora"])
    def test_a_resumed_run_equals_one_that_was_never_stopped(
        self,
        adapt: str,
        tiny_config: TinyConfig,
        tmp_path: Path,
        drawn: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        overrides = (
            f"adapt={adapt}",
            "trainer.max_epochs=4",
            "data.degradations.probability=0.8",
            "data.degradations.curriculum_epochs=3",
            "adapt.dropout=0.0",  # the state of the random numbers behind dropout is not part of a checkpoint
        )
        train.run(tiny_config(tmp_path / "straight", *overrides))
        straight = drawn.copy()
        drawn.clear()

        def power_cut(self: DamageClassifier) -> None:
            if self.current_epoch == 2:
                raise OSError("power cut")

        with monkeypatch.context() as patched:
            patched.setattr(DamageClassifier, "on_train_epoch_start", power_cut)
            with pytest.raises(OSError, match="power cut"):
                train.run(tiny_config(tmp_path / "stopped", *overrides))
        epochs_before = {epoch for epoch, _, _ in drawn[:28]}
        del drawn[28:]  # what the third epoch had read ahead when it stopped
        train.run(tiny_config(tmp_path / "stopped", *overrides, "resume=last"))
        assert epochs_before == {0, 1}
        assert drawn == straight
        assert len(straight) == 4 * 14
        difference = largest_difference(
            tmp_path / "straight/last.ckpt", tmp_path / "stopped/last.ckpt"
        )
        print(f"largest difference of a weight {difference:.1e} (allowed 1e-6)")
        assert difference <= 1e-6
        best, again = (
            load_classifier(tmp_path / name / "last.ckpt") for name in ("straight", "stopped")
        )
        assert best.validation_figures == pytest.approx(again.validation_figures)

    def test_a_finished_run_has_nothing_to_go_on_with_and_ends_right(
        self,
        tiny_run: Path,
        tiny_config: TinyConfig,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder = shutil.copytree(tiny_run, tmp_path / "run")
        train.run(
            tiny_config(folder, "name=tiny", "model.lr=3e-3", "trainer.max_epochs=3", "resume=last")
        )
        out = capsys.readouterr().out
        assert "already at epoch 3 of 3; raise trainer.max_epochs to go on\n" in out
        assert out.endswith(
            f"next: realdamage-export checkpoint={folder}/best.ckpt\n"
        )  # where the run now lies
        assert largest_difference(folder / "last.ckpt", tiny_run / "last.ckpt") == 0.0
        assert largest_difference(folder / "best.ckpt", tiny_run / "best.ckpt") == 0.0

    def test_more_epochs_than_before_go_on_from_the_last(
        self, tiny_run: Path, tiny_config: TinyConfig, tmp_path: Path, drawn: list[Any]
    ) -> None:
        resume = f"resume={tiny_run}/last.ckpt"
        train.run(tiny_config(tmp_path / "more", "model.lr=3e-3", "trainer.max_epochs=4", resume))
        assert {epoch for epoch, _, _ in drawn} == {3}
        assert (tmp_path / "more/last.ckpt").is_file()

    def test_resume_in_an_empty_folder_starts(
        self, tiny_config: TinyConfig, tmp_path: Path
    ) -> None:
        assert checkpoint_to_resume(tiny_config(tmp_path / "new", "resume=last")) is None

    def test_a_folder_that_holds_a_run_is_left_alone(
        self, tiny_run: Path, tiny_config: TinyConfig
    ) -> None:
        before = (tiny_run / "last.ckpt").stat().st_mtime_ns
        with pytest.raises(
            ConfigError, match=r"already holds a run.*resume=last.*overwrite=true.*name="
        ):
            train.run(tiny_config(tiny_run))
        assert (tiny_run / "last.ckpt").stat().st_mtime_ns == before
        assert checkpoint_to_resume(tiny_config(tiny_run, "overwrite=true")) is None
        assert (
            checkpoint_to_resume(tiny_config(tiny_run, "model.lr=3e-3", "resume=last"))
            == tiny_run / "last.ckpt"
        )

    def test_other_settings_than_it_began_with_are_refused(
        self, tiny_run: Path, tiny_config: TinyConfig
    ) -> None:
        began_with = (tiny_run / "config.yaml").read_bytes()
        with pytest.raises(
            ConfigError,
            match=r"other settings: seed was \d+, now 99.*model\.lr was 0\.003, now 1e-06",
        ):
            train.run(
                tiny_config(
                    tiny_run, "model.lr=1e-6", "seed=99", "resume=last", "trainer.max_epochs=9"
                )
            )
        assert (tiny_run / "config.yaml").read_bytes() == began_with

    def test_starting_over_costs_nothing_until_it_starts(
        self, tiny_run: Path, tiny_config: TinyConfig, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(tiny_run, tmp_path / "run")
        before = {
            name: (folder / name).read_bytes() for name in ("best.ckpt", "last.ckpt", "config.yaml")
        }
        with pytest.raises(ConfigError, match="cache_gib"):
            train.run(tiny_config(folder, "overwrite=true", "data.cache_gib=-1"))
        assert {name: (folder / name).read_bytes() for name in before} == before
        train.run(tiny_config(folder, "overwrite=true", "trainer.max_epochs=1"))
        assert all((folder / name).read_bytes() != old for name, old in before.items())

    def test_ctrl_c_exits_with_130_and_prints_the_command_that_goes_on(
        self, run_command, tiny_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pressed(self: DamageClassifier) -> None:
            if self.current_epoch == 1:
                raise KeyboardInterrupt

        arguments = [
            f"data.root={tiny_manifest}",
            *AS_TYPED,
            "trainer.max_epochs=2",
            "data.class_weights={real: 2}",
        ]
        handler = signal.getsignal(signal.SIGINT)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(DamageClassifier, "on_train_epoch_start", pressed)
                stopped = run_command("train", *arguments, "overwrite=true")
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning turns it off
        assert stopped.code == 130
        assert "Traceback" not in stopped.err
        assert list((tmp_path / "out/train").glob(".lock")) == []
        told = stopped.err.splitlines()[-1]
        program, *again = shlex.split(told.partition("go on from the last finished epoch: ")[2])
        assert program == "realdamage-train"
        assert again == [*arguments, "resume=last"]
        assert run_command("train", *again).code == 0
        assert torch.load(tmp_path / "out/train/last.ckpt", weights_only=True)["global_step"] == 4

    def test_ctrl_c_before_an_epoch_is_finished_has_nothing_to_go_on_with(
        self,
        tiny_run: Path,
        tiny_config: TinyConfig,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The last.ckpt of the run that was to be replaced is still there, but it is not this run's."""
        folder = shutil.copytree(tiny_run, tmp_path / "run")
        monkeypatch.setattr(
            DamageClassifier, "setup", lambda self, stage: signal.raise_signal(signal.SIGINT)
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(KeyboardInterrupt) as stopped:
                train.run(tiny_config(folder, "overwrite=true"))
        finally:
            signal.signal(signal.SIGINT, handler)
        assert (folder / "last.ckpt").is_file()
        assert "resume=last" not in str(stopped.value)

    def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_dead(
        self, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "run"
        hold = (
            "import sys, pathlib\nfrom realdamage.training.start import run_lock\n"
            "with run_lock(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", hold, str(folder)], **pipes) as first:
            try:
                assert first.stdout.readline() == b"held\n"
                with pytest.raises(ConfigError, match="another run"):
                    train.run(tiny_config(folder, "overwrite=true"))
                assert [path.name for path in folder.iterdir()] == [".lock"]
                with monkeypatch.context() as patched:
                    patched.setenv("LOCAL_RANK", "1")  # the second process of the first run
                    with run_lock(folder):
                        pass
            finally:
                first.kill()
        with run_lock(folder):
            pass
        assert list(folder.iterdir()) == []

    def test_a_checkpoint_that_is_not_there_is_named(
        self, tiny_config: TinyConfig, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelFileError, match=r"resume=.*gone\.ckpt: no such file"):
            train.run(tiny_config(tmp_path, f"resume={tmp_path}/gone.ckpt"))


class TestAudit:
    """A set that gives its labels away stops the run before it costs anything."""

    @pytest.fixture
    def leaking(self, tiny_manifest: Path, tmp_path: Path) -> Path:
        """The synthetic photos come from a source of their own."""
        root = shutil.copytree(tiny_manifest, tmp_path / "leaking")
        table = read_manifest(root).table
        write_manifest(
            root,
            table.assign(source=table["source"].where(table["label"] == "real", "generated/x")),
        )
        return root

    def test_a_leaking_set_stops_and_the_message_says_what_to_do(
        self, leaking: Path, tiny_config: TinyConfig, tmp_path: Path
    ) -> None:
        with pytest.raises(ManifestError) as caught:
            train.run(tiny_config(tmp_path / "run", f"data.root={leaking}"))
        message = str(caught.value)
        for part in (
            "source, AUROC 1.000",
            "generated/x: 0 real, 18 synthetic",
            "Add photos of the class that such a source lacks",
            f"realdamage audit {leaking} --html",
            "data.audit=warn",
        ):
            assert part in message
        assert not (tmp_path / "run/last.ckpt").exists()

    def test_warned_it_trains_and_the_exported_model_tells(
        self, leaking: Path, run_command, capfd: pytest.CaptureFixture[str]
    ) -> None:
        trained = run_command(
            "train", "name=run", f"data.root={leaking}", *AS_TYPED, "data.audit=warn"
        )
        assert trained.code == 0, trained.err
        assert "give their label away" in trained.out + trained.err
        exported = run_command("export", "checkpoint=out/run/best.ckpt", "output=model.onnx")
        assert exported.code == 0, exported.err
        assert cli.main(["info", "model.onnx"]) == 0
        told = json.loads(capfd.readouterr().out)["training"]["audit"]
        assert told["verdict"] == "failed, overridden"
        assert told["tests"]["source"] == [1.0, 1.0, 1.0]
        assert told["tests"]["damage"] == [None, None, None]
        assert told["exceptions"] == []

    def test_an_honest_set_is_told_to_have_passed(self, tiny_run: Path) -> None:
        told = model_metadata(load_classifier(tiny_run / "best.ckpt")).training["audit"]
        assert told["verdict"] == "passed"
        assert set(told["tests"]) == {"container", "source", "damage", "condition"}

    def test_an_exception_for_a_part_that_is_held_back_is_no_mistake(
        self, leaking: Path, tiny_config: TinyConfig, tmp_path: Path
    ) -> None:
        table = read_manifest(leaking).table
        table["part"] = table["split"].map(
            {"train": "photos", "val": "photos", "test": "held back"}
        )
        write_manifest(leaking, table)
        entries = [
            {"part": part, "test": "source", "reason": "a test of tests"}
            for part in ("photos", "held back")
        ]
        (leaking / "audit_exceptions.json").write_text(json.dumps(entries))
        _, _, datamodule = build(tiny_config(tmp_path / "run", f"data.root={leaking}"))
        datamodule.setup("fit")
        told = datamodule.describe()["audit"]
        assert told["verdict"] == "passed"
        assert [(entry["part"], entry["auroc"][0]) for entry in told["exceptions"]] == [
            ("photos", 1.0),
            ("held back", None),
        ]

    def test_a_wrong_word_is_named(self, tiny_config: TinyConfig, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"data\.audit=off: allowed are stop, warn"):
            build(tiny_config(tmp_path, "data.audit=off"))


class TestEnding:
    """What is said last is true, also when no best checkpoint came of it."""

    @pytest.mark.parametrize(
        ("override", "why"),
        [
            (
                "trainer.check_val_every_n_epoch=5",
                "as trainer.check_val_every_n_epoch=5 is more than this run's 1 epochs",
            ),
            ("trainer.limit_val_batches=0", "as trainer.limit_val_batches=0 leaves validation out"),
            (
                "trainer.limit_val_batches=1",
                "as it takes real and synthetic photos, which the 1 validated photos lack "
                "(trainer.limit_val_batches=1)",
            ),
            (
                "monitor=val/tpr_at_fpr_1_all_real",
                "as it takes 100 real photos and some synthetic ones, which the 11 validated photos lack "
                "(trainer.limit_val_batches=1.0)",
            ),
        ],
    )
    def test_a_figure_that_was_never_measured_is_told_and_the_last_checkpoint_named(
        self,
        override: str,
        why: str,
        tiny_config: TinyConfig,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        config = tiny_config(tmp_path, "trainer.max_epochs=1", override)
        train.run(config)
        last = tmp_path / "last.ckpt"
        assert last.is_file()
        told = capsys.readouterr().out
        assert (
            f"no best checkpoint: {config.monitor} was not measured, {why}; {last} holds the last epoch\n"
            in told
        )
        assert told.endswith(f"next: realdamage-export checkpoint={last}\n")

    def test_epochs_are_counted_from_one_and_nothing_of_lightning_s_own_is_said(
        self, run_command, tiny_manifest: Path
    ) -> None:
        done = run_command("train", f"data.root={tiny_manifest}", *AS_TYPED, "trainer.max_epochs=2")
        assert done.code == 0, done.err
        assert [line[:12] for line in done.out.splitlines() if line.startswith("epoch")] == [
            "epoch 1 of 2",
            "epoch 2 of 2",
        ]
        assert "logging interval" not in done.out + done.err


class TestStart:
    """A mistake in the call is told at once, and leaves nothing behind."""

    def test_photos_that_are_not_there_are_named_with_their_key(
        self, run_command, tmp_path: Path
    ) -> None:
        done = run_command("train", "data.root=nope", "name=x")
        assert done.code == 2
        assert done.err.startswith("error: data.root=nope: no such file or folder.")
        assert done.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    def test_it_is_told_before_torch_is_imported(
        self, tiny_run: Path, tiny_manifest: Path, tmp_path: Path
    ) -> None:
        driver = (
            "import sys\nfrom realdamage import train\ntry:\n    train.main()\nfinally:\n"
            "    print(sorted({'torch', 'lightning', 'timm'} & set(sys.modules)))\n"
        )
        (tmp_path / "driver.py").write_text(driver)
        mistakes = (
            ["data.root=nope"],
            ["+experiment=nope"],
            [f"data.root={tiny_manifest}", f"paths.run={tiny_run}"],
        )
        for mistake in mistakes:
            done = typed(mistake, tmp_path, ["driver.py"])
            assert done.returncode == 2, done.stderr
            assert done.stdout == "[]\n", mistake

    @pytest.mark.parametrize("override", ["paths.out=afile", "paths.run=afile/run"])
    def test_a_folder_that_cannot_be_made_is_named_in_one_line(
        self, override: str, run_command, tiny_manifest: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "afile").touch()
        done = run_command("train", override, f"data.root={tiny_manifest}", *AS_TYPED)
        assert done.code == 3
        assert "afile" in done.err
        assert done.err.count("\n") == 1

    def test_a_callback_that_monitors_a_figure_that_does_not_exist_is_refused(
        self, run_command, tiny_manifest: Path, tmp_path: Path
    ) -> None:
        done = run_command(
            "train", "callbacks.best.monitor=val/aurok", f"data.root={tiny_manifest}", *AS_TYPED
        )
        assert done.code == 2
        assert "val/aurok" in done.err
        assert done.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


class TestDebug:
    @pytest.mark.parametrize("debug", ["fast", "overfit"])
    def test_a_debug_run_of_ones_own_command_leaves_the_finished_run_alone(
        self, debug: str, run_command, tiny_run: Path, tiny_manifest: Path, tmp_path: Path
    ) -> None:
        mine = shutil.copytree(tiny_run, tmp_path / "out/mine")
        before = {
            name: (mine / name).read_bytes() for name in ("best.ckpt", "last.ckpt", "config.yaml")
        }
        arguments = [
            "name=mine",
            f"data.root={tiny_manifest}",
            *AS_TYPED,
            f"+debug={debug}",
            "trainer.max_epochs=1",
        ]
        assert run_command("train", *arguments).code == 0
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"mine", "debug"}
        assert (tmp_path / "out/debug/last.ckpt").is_file()
        refused = run_command("train", *arguments, "paths.run=out/mine")
        assert refused.code == 2
        assert {name: (mine / name).read_bytes() for name in before} == before
        assert run_command("train", *arguments).code == 0  # a debug run replaces the one before

    def test_fast_takes_a_few_steps_of_everything(
        self, run_command, tiny_manifest: Path, tmp_path: Path
    ) -> None:
        arguments = [
            *AS_TYPED[:3],
            "data.tiles_per_photo=1",
            f"data.root={tiny_manifest}",
            "data.recipe=null",
        ]
        finished = run_command("train", "+experiment=quickstart", "+debug=fast", *arguments)
        assert finished.code == 0, finished.err
        folder = tmp_path / "out/debug"  # never the folder of a real run
        assert {"best.ckpt", "last.ckpt", "config.yaml", "train.log"} <= {
            path.name for path in folder.iterdir()
        }
        assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2
        assert "next: realdamage-export checkpoint=out/debug/best.ckpt" in finished.out.replace(
            f"{tmp_path}/", ""
        )
        again = run_command(
            "train", "+experiment=quickstart", "+debug=fast", *arguments, "overwrite=false"
        )
        assert again.code == 2
        assert "already holds a run" in again.err
        assert "Traceback" not in again.err

    def test_overfit_learns_the_same_few_crops_by_heart(
        self, tiny_config: TinyConfig, tmp_path: Path, drawn: list[Any]
    ) -> None:
        quickly = ("model.lr=2e-3", "callbacks.last=null")  # 40 checkpoints take half of the time
        train.run(tiny_config(tmp_path, "+debug=overfit", "trainer.max_epochs=40", *quickly))
        assert set(drawn) == set(range(14))  # no epoch in the key: every time the same crops
        with (tmp_path / "logs/version_0/metrics.csv").open() as file:
            losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
        assert len(losses) == 80
        assert max(losses[-4:]) < 0.5 * min(losses[:4])


def typed(
    arguments: list[str], cwd: Path, script: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    command = [sys.executable, *(script or ["-m", "realdamage.commands.train"]), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
    )


def test_a_multirun_trains_each_in_a_folder_of_its_own(
    run_command, tiny_manifest: Path, tmp_path: Path
) -> None:
    finished = run_command(
        "train", "-m", "seed=0,1", "name=sweep", f"data.root={tiny_manifest}", *AS_TYPED
    )
    assert finished.code == 0, finished.err
    folders = [tmp_path / "out/sweep-sweep" / number for number in ("0", "1")]
    for seed, folder in enumerate(folders):
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == seed
        assert (folder / "best.ckpt").is_file()
    assert largest_difference(folders[0] / "last.ckpt", folders[1] / "last.ckpt") > 1e-3


DRIVER = """
import json, os, sys
from pathlib import Path
from realdamage.commands import cli, train
from realdamage.training import datamodule, dataset

def record(kind):
    read = kind.__getitem__
    def seen(self, key):
        with Path("seen.jsonl").open("a") as file:
            file.write(json.dumps([kind.__name__, int(os.environ.get("LOCAL_RANK", 0)), key]) + "\\n")
        return read(self, key)
    kind.__getitem__ = seen

record(dataset.PairDataset)
record(dataset.WholePhotoDataset)
audit = datamodule.audit

def audited(*arguments, **options):
    with Path("audits.txt").open("a") as file:
        file.write("once\\n")
    return audit(*arguments, **options)

datamodule.audit = audited
train.main()
"""


def test_two_processes_share_the_photos_out_and_agree_on_the_figures(
    tiny_manifest: Path, tmp_path: Path
) -> None:
    """Both together see each training unit once an epoch and each validation photo once, also when the photos of one of
    them have no mask to localise."""
    root = shutil.copytree(tiny_manifest, tmp_path / "set")
    table = read_manifest(root).table
    masked = table.index[(table["split"] == "val") & (table["label"] == "synthetic")]
    table.loc[masked[1:], "mask_file_name"] = ""
    write_manifest(root, table)
    (tmp_path / "driver.py").write_text(DRIVER)
    ddp = [
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.precision=32-true",
    ]
    finished = typed(
        [*ddp, "name=pair", f"data.root={root}", *AS_TYPED, "trainer.max_epochs=2"],
        tmp_path,
        ["driver.py"],
    )
    assert finished.returncode == 0, finished.stderr
    assert (
        tmp_path / "audits.txt"
    ).read_text() == "once\n"  # the second process is sent the result
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    units = {
        rank: Counter((e, i) for name, r, (e, i, _) in pairs_of(seen) if r == rank)
        for rank in (0, 1)
    }
    assert not set(units[0]) & set(units[1])
    assert units[0] + units[1] == Counter((epoch, index) for epoch in (0, 1) for index in range(14))
    assert len(units[0]) == len(units[1]) == 14
    photos = Counter(key for name, _, key in seen if name == "WholePhotoDataset")
    assert photos == {**dict.fromkeys(range(11), 2), -1: 2}  # two epochs, and one filler in each
    figures = torch.load(tmp_path / "out/pair/last.ckpt", weights_only=True)["validation_figures"]
    classifier = load_classifier(tmp_path / "out/pair/last.ckpt")
    detector = Detector(TorchScorer(classifier.network), model_metadata(classifier))
    predictions, _ = score_manifest(detector, read_manifest(root).select(split="val"))
    expected = roc_auc_score(predictions["label"] == "synthetic", predictions["score"])
    assert figures["val/auroc"] == pytest.approx(expected, abs=1e-6)
    assert "val/localisation_ap" in figures
    loss = log_loss(predictions["label"] == "synthetic", expit(predictions["score"]))
    with (tmp_path / "out/pair/logs/version_0/metrics.csv").open() as file:
        logged = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(logged) == 2
    assert logged[-1] == pytest.approx(loss, abs=1e-4)


def pairs_of(seen: list[Any]) -> list[Any]:
    return [entry for entry in seen if entry[0] == "PairDataset"]
