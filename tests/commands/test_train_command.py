"""realdamage-train as it is typed: seeds that count, runs that resume where they stopped, several
processes."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from realdamage.commands import train
from realdamage.core.detector import Detector
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.shards import write_shards
from realdamage.errors import ConfigError, ModelFileError, Stopped
from realdamage.evaluation.predictions import score_manifest
from realdamage.schema import DataConfig
from realdamage.training.dataset import PairDataset
from realdamage.training.module import DamageClassifier, load_classifier, model_metadata
from realdamage.training.network import TorchScorer
from realdamage.training.photos import training_photos
from realdamage.training.start import finished_run, run_lock

AS_TYPED = (
    "model.backbone=test_vit",
    "model.pretrained=false",
    "model.tile=64",
    "model.overlap=16",
    "trainer.max_epochs=1",
    "data.batch_units=7",
    "data.tiles_per_photo=1",
    "threads=1",
    "callbacks.pictures=null",
)
FILES = ("best.ckpt", "last.ckpt", "config.yaml")
WEIGHTS = ("state_dict", "current_model_state")


def largest_difference(first, second):
    """Of a weight, between two checkpoints: averaged ones (ema) and those being trained."""
    a, b = (
        {(part, name): value for part in WEIGHTS for name, value in checkpoint[part].items()}
        for checkpoint in (torch.load(path, weights_only=True) for path in (first, second))
    )
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def logged(run):
    """The figures of all steps, of the parts of a run that was stopped too. A step that was logged
    twice counts as it was last; speed is left out."""
    files = sorted(run.glob("logs/version_*/metrics.csv"))
    rows = pd.concat([pd.read_csv(each) for each in files]).groupby(["epoch", "step"]).last()
    return rows.drop(columns=["train/photos_per_s"]).sort_index(axis=1)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def drawn(monkeypatch):
    """The key (epoch, index, times before) of every training unit, in the order in which they were
    read."""
    keys = []
    read = PairDataset.__getitem__

    def remember(self, key):
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(PairDataset, "__getitem__", remember)
    return keys


@pytest.fixture
def copied(tiny_run, tmp_path):
    """A copy of the finished run, free to change."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def ctrl_c():
    """Puts the handler back that Lightning turns off."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


class TestResume:
    @pytest.mark.slow
    @pytest.mark.usefixtures("ctrl_c")
    @pytest.mark.parametrize(
        ("where", "how", "options"),
        [
            (
                (1, 0),
                "crash",
                ("adapt=lora", "adapt.dropout=0.3", "data.workers=1", "data.mixed_shards=1"),
            ),
            ((0, 2), signal.SIGINT, ("trainer.accumulate_grad_batches=2", "model.drop_path=0.3")),
            ((1, 3), "crash", ("callbacks.last.minutes=0",)),
        ],
    )
    def test_a_resumed_run_equals_one_that_was_never_stopped(
        self, where, how, options, tiny_manifest, tiny_config, tmp_path, drawn, monkeypatch
    ):
        """Stopped in batch `where` (epoch, batch) of 2 epochs of 4 batches. A crash leaves the
        checkpoint before it: that of the epoch before, or with minutes=0 of the batch before."""
        overrides = (
            "data.batch_units=3",
            "data.degradations.probability=0.8",
            "data.degradations.curriculum_epochs=2",
            "callbacks.pictures=null",
            *options,
        )
        if "data.mixed_shards=1" in options:
            write_shards(read_manifest(tiny_manifest), tmp_path / "shards")
            overrides += (f"data.root={tmp_path}/shards",)
        train.run(tiny_config(tmp_path / "straight", *overrides))
        straight = drawn.copy()
        drawn.clear()
        step = DamageClassifier.training_step

        def stopped(self, batch, index):
            if (self.current_epoch, index) == where:
                if how == "crash":
                    raise OSError("power cut")
                os.kill(os.getpid(), how)
            return step(self, batch, index)

        with monkeypatch.context() as patched:
            patched.setattr(DamageClassifier, "training_step", stopped)
            with pytest.raises(OSError if how == "crash" else Stopped) as caught:
                train.run(tiny_config(tmp_path / "stopped", *overrides))
        if how != "crash":
            assert caught.value.exit_code == 128 + how
        checkpoint = torch.load(tmp_path / "stopped/last.ckpt", weights_only=True)
        per_step = 2 if "trainer.accumulate_grad_batches=2" in options else 1
        done = where[0] * 4 + where[1] + (how != "crash")
        done += -done % per_step  # a step's batches are finished
        assert checkpoint["global_step"] == done // per_step
        del drawn[3 * done :]  # what was read ahead
        train.run(tiny_config(tmp_path / "stopped", *overrides, "resume=last"))
        assert drawn == straight
        assert len(straight) == (0 if "data.workers=1" in options else 2 * 4 * 3)
        ends = [tmp_path / name / "last.ckpt" for name in ("straight", "stopped")]
        assert largest_difference(*ends) == 0.0
        first, second = (load_classifier(path).validation_figures for path in ends)
        assert first == second
        pd.testing.assert_frame_equal(*(logged(path.parent) for path in ends), check_exact=True)

    def test_a_finished_run_is_left_as_it_is_until_something_changes(
        self, tiny_run, copied, with_table, tiny_config, caplog
    ):
        caplog.set_level("INFO")
        settings = ("name=tiny", "model.lr=3e-3", "resume=last", "trainer.max_epochs=3")
        before = contents(tiny_run)
        score = train.run(tiny_config(tiny_run, *settings))
        assert f"next: realdamage-export checkpoint={tiny_run}/best.ckpt" in caplog.messages[-1]
        assert score == pytest.approx(json.loads((tiny_run / "finished.json").read_text())["score"])
        last = tiny_run / "last.ckpt"
        for change in ("trainer.max_epochs=4", "callbacks.ema=null", "overwrite=true"):
            assert finished_run(tiny_config(tiny_run, *settings, change), last) is None, change
        assert finished_run(tiny_config(tiny_run, *settings), tiny_run / "best.ckpt") is None
        # Other photos at the same place are an error, because the run would not see them.
        photos = with_table(lambda table: table[table["kind"] != "annotated"])
        moved = tiny_config(copied, *settings, f"data.root={photos}")
        OmegaConf.save(moved, copied / "config.yaml", resolve=True)
        with pytest.raises(ConfigError) as caught:
            train.run(moved)
        assert caught.value.code == "other_photos"
        assert contents(tiny_run) == before

    @pytest.mark.parametrize(
        ("overrides", "code", "named"),
        [
            ((), "folder_has_run", "resume=last.*overwrite=true.*name="),
            (("resume=gone.ckpt",), "no_such_file", "gone.ckpt"),
            (
                ("model.lr=1e-6", "seed=99", "resume=last", "trainer.max_epochs=9"),
                "other_settings",
                r"seed was \d+, now 99.*model\.lr was 0\.003, now 1e-06",
            ),
        ],
    )
    def test_a_folder_that_holds_a_run_is_left_alone(
        self, overrides, code, named, tiny_run, tiny_config
    ):
        before = contents(tiny_run)
        with pytest.raises((ConfigError, ModelFileError), match=named) as caught:
            train.run(tiny_config(tiny_run, *overrides))
        assert caught.value.code == code
        assert contents(tiny_run) == before

    def test_weights_of_another_architecture_are_not_resumed(self, copied, tiny_config):
        last = copied / "last.ckpt"
        checkpoint = torch.load(last, weights_only=True)
        checkpoint["state_dict"].pop("network.backbone.cls_token")
        torch.save(checkpoint, last)
        settings = ("name=tiny", "model.lr=3e-3", "resume=last", "trainer.max_epochs=4")
        with pytest.raises(ModelFileError, match="cls_token") as caught:
            train.run(tiny_config(copied, *settings))
        assert caught.value.code == "other_architecture"

    @pytest.mark.slow
    def test_starting_over_changes_nothing_until_it_starts(self, copied, tiny_config):
        before = contents(copied)
        with pytest.raises(ConfigError, match=r"data\.exclude\.family"):
            train.run(tiny_config(copied, "overwrite=true", "+data.exclude.family=[none]"))
        assert contents(copied) == before
        start = ("overwrite=true", "trainer.max_epochs=1", "callbacks.pictures=null")
        train.run(tiny_config(copied, *start))
        assert all(contents(copied)[name] != old for name, old in before.items())

    @pytest.mark.slow
    @pytest.mark.usefixtures("ctrl_c")
    def test_ctrl_c_exits_with_130_and_prints_the_command_that_continues(
        self, run_command, tiny_manifest, tmp_path, monkeypatch
    ):
        def pressed(self):
            if self.current_epoch == 1:
                raise KeyboardInterrupt

        arguments = [f"data.root={tiny_manifest}", *AS_TYPED, "trainer.max_epochs=2"]
        with monkeypatch.context() as patched:
            patched.setattr(DamageClassifier, "on_train_epoch_start", pressed)
            stopped = run_command("train", *arguments, "overwrite=true")
        assert stopped.code == 130
        assert "Traceback" not in stopped.err
        assert list((tmp_path / "out/train").glob(".lock")) == []
        command = stopped.err.splitlines()[-1].partition("continue with: ")[2]
        program, *again = shlex.split(command)
        assert program == "realdamage-train"
        assert again == [*arguments, "resume=last"]
        assert run_command("train", *again).code == 0
        assert torch.load(tmp_path / "out/train/last.ckpt", weights_only=True)["global_step"] == 4

    def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_dead(
        self, tiny_config, tmp_path, monkeypatch
    ):
        folder = tmp_path / "run"
        hold = (
            "import sys, pathlib\nfrom realdamage.training.start import run_lock\n"
            "with run_lock(pathlib.Path(sys.argv[1])):\n"
            "    print('held', flush=True)\n    sys.stdin.read()\n"
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", hold, str(folder)], **pipes) as first:
            try:
                assert first.stdout.readline() == b"held\n"
                with pytest.raises(ConfigError) as caught:
                    train.run(tiny_config(folder, "overwrite=true"))
                assert caught.value.code == "folder_in_use"
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


def leaking(table):
    """The synthetic photos come from a source of their own."""
    source = table["source"].where(table["label"] == "real", "generated/x")
    return table.assign(source=source)


class TestStart:
    """A mistake is reported at once, and leaves nothing behind."""

    def test_a_leaking_set_stops_the_run_before_torch_is_imported(self, with_table, tmp_path):
        root = with_table(leaking)
        driver = (
            "import sys\nfrom realdamage import train\ntry:\n    train.main()\nfinally:\n"
            "    print(sorted({'torch', 'lightning', 'timm'} & set(sys.modules)))\n"
        )
        (tmp_path / "driver.py").write_text(driver)
        done = typed([f"data.root={root}"], tmp_path, "driver.py")
        assert (done.returncode, done.stdout) == (3, "[]\n"), done.stderr
        assert "AUROC 1.000" in done.stderr
        assert "generated/x: 0 real, 18 synthetic" in done.stderr
        assert not (tmp_path / "out/train").exists()
        warned = DataConfig(str(root), audit="warn")
        audit = training_photos(warned).describe(warned)["audit"]  # the model's metadata say so
        assert audit["verdict"] == "failed, overridden"
        assert audit["tests"]["source"] == [1.0, 1.0, 1.0]

    def test_an_exception_for_a_part_that_is_held_back_is_no_mistake(self, with_table):
        parts = {"train": "photos", "val": "photos", "test": "held back"}
        root = with_table(lambda table: leaking(table.assign(part=table["split"].map(parts))))
        entries = [
            {"part": part, "test": "source", "reason": "a test of tests"}
            for part in ("photos", "held back")
        ]
        (root / "audit_exceptions.json").write_text(json.dumps(entries))
        data = DataConfig(str(root))
        audit = training_photos(data).describe(data)["audit"]
        assert audit["verdict"] == "passed"
        found = [(entry["part"], entry["auroc"][0]) for entry in audit["exceptions"]]
        assert found == [("photos", 1.0), ("held back", None)]

    def test_a_folder_that_cannot_be_made_is_named_in_one_line(
        self, run_command, tiny_manifest, tmp_path
    ):
        (tmp_path / "afile").touch()
        done = run_command("train", "paths.out=afile", f"data.root={tiny_manifest}", *AS_TYPED)
        assert done.code == 3
        assert "afile" in done.err
        assert done.err.count("\n") == 1


@pytest.mark.slow
def test_a_debug_run_of_the_same_command_leaves_the_finished_run_alone(
    run_command, tiny_run, tiny_manifest, tmp_path
):
    """Its four validation photos cannot measure the figure that chooses the best checkpoint."""
    mine = shutil.copytree(tiny_run, tmp_path / "out/mine")
    before = contents(mine)
    arguments = (f"data.root={tiny_manifest}", *AS_TYPED, "monitor=val/tpr_at_fpr_1_all_real")
    (tmp_path / "out/debug").mkdir()
    (tmp_path / "out/debug/last.ckpt").touch()  # a debug run replaces the one before
    done = run_command("train", "name=mine", *arguments, "+debug=fast")
    assert done.code == 0, done.err
    log = (tmp_path / "out/debug/train.log").read_text()
    assert all(line in log for line in done.out.splitlines())
    assert "no best checkpoint: val/tpr_at_fpr_1_all_real" in log
    assert done.out.splitlines()[-1].endswith("out/debug/last.ckpt")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"mine", "debug"}
    assert (tmp_path / "out/debug/last.ckpt").stat().st_size > 0
    assert contents(mine) == before


def typed(arguments, cwd, script, **variables):
    """A command line in a process of its own, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1000,
        start_new_session=True,  # so that a test can kill all its processes
    )


DRIVER = """
import json, os, signal
from pathlib import Path
from realdamage.commands import train
from realdamage.training import dataset
from realdamage.training.module import DamageClassifier

def record(kind):
    read = kind.__getitem__
    def seen(self, key):
        with Path(os.environ["SEEN"]).open("a") as file:
            rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
            file.write(json.dumps([kind.__name__, rank, key]) + "\\n")
        return read(self, key)
    kind.__getitem__ = seen

step = DamageClassifier.training_step

def stopped(self, batch, index):
    where = f"{self.global_rank} {self.current_epoch} {index}"
    if where == os.environ.get("TERM_AT"):
        os.kill(os.getpid(), signal.SIGTERM)
    if where == os.environ.get("KILL_AT"):
        os.killpg(0, signal.SIGKILL)
    return step(self, batch, index)

if "SEEN" in os.environ:
    record(dataset.PairDataset)
    record(dataset.WholePhotoDataset)
DamageClassifier.training_step = stopped
train.main()
"""
DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", *AS_TYPED)


class Together(NamedTuple):
    """Where two processes trained together, on what, and how they were called."""

    folder: Path
    photos: Path
    arguments: list[str]

    def typed(self, *more, **variables):
        """On one machine: Lightning starts the second process."""
        return typed([*self.arguments, *more], self.folder, "driver.py", **variables)


def run_on_two_nodes(arguments, cwd):
    """The command as on two machines, with torchrun and one process on each; both are this one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", *where)
    nodes = ("trainer.num_nodes=2", "trainer.devices=1")
    command = [*torchrun, "--nproc-per-node", "1", "driver.py", *arguments, *nodes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SEEN": "seen.jsonl"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with (
        subprocess.Popen(command, cwd=cwd, env=environment, text=True, **pipes) as first,
        subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL),
    ):
        out, _ = first.communicate(timeout=1000)
    assert first.returncode == 0, out


@pytest.fixture(scope="module")
def together(tiny_manifest, tmp_path_factory):
    """A finished run of two processes on two nodes, `out/pair`, on photos of which only one has a
    mask to localise; what they read is in seen.jsonl."""
    folder = tmp_path_factory.mktemp("together")
    photos = shutil.copytree(tiny_manifest, folder / "set")
    table = read_manifest(photos).table
    masked = table.index[(table["split"] == "val") & (table["label"] == "synthetic")]
    table.loc[masked[1:], "mask_file_name"] = ""
    write_manifest(photos, table)
    write_shards(read_manifest(photos), folder / "shards")
    (folder / "driver.py").write_text(DRIVER)
    arguments = [
        *(*DDP, "data.root=shards", "data.mixed_shards=2", "data.batch_units=1"),
        *("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "model.drop_path=0.3"),
    ]
    run_on_two_nodes([*arguments, "name=pair"], folder)
    return Together(folder, photos, arguments)


@pytest.mark.slow
def test_two_processes_share_the_photos_out_and_agree_on_the_figures(together):
    """Together they see each training unit once per epoch and each validation photo once, also when
    the photos of one of them have no mask to localise."""
    seen = [json.loads(line) for line in (together.folder / "seen.jsonl").read_text().splitlines()]
    units = [
        Counter((key[0], key[1]) for name, of, key in seen if (name, of) == ("PairDataset", rank))
        for rank in (0, 1)
    ]
    assert not set(units[0]) & set(units[1])
    assert units[0] + units[1] == Counter((epoch, index) for epoch in (0, 1) for index in range(14))
    assert len(units[0]) == len(units[1]) == 14
    photos = Counter(key for name, _, key in seen if name == "WholePhotoDataset")
    assert photos == {**dict.fromkeys(range(11), 2), -1: 2}  # two epochs, one filler in each
    run = together.folder / "out/pair"
    figures = torch.load(run / "last.ckpt", weights_only=True)["validation_figures"]
    classifier = load_classifier(run / "last.ckpt")
    detector = Detector(TorchScorer(classifier.network), model_metadata(classifier))
    manifest = read_manifest(together.photos).select(split="val")
    predictions, _ = score_manifest(detector, manifest)
    synthetic = predictions["label"] == "synthetic"
    expected = roc_auc_score(synthetic, predictions["score"])
    assert figures["val/auroc"] == pytest.approx(expected, abs=1e-6)
    assert "val/localisation_ap" in figures
    with (run / "logs/version_0/metrics.csv").open() as file:
        logged = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(logged) == 2
    assert logged[-1] == pytest.approx(log_loss(synthetic, expit(predictions["score"])), abs=1e-4)


@pytest.mark.slow
def test_two_processes_go_on_where_they_were_terminated_and_killed(together):
    """SIGTERM reaches one process, not the first; both stop after the same step. Later kill -9 ends
    both and their workers. The end is that of the run on two nodes, which was never stopped."""
    last = together.folder / "out/stopped/last.ckpt"
    terminated = together.typed("name=stopped", TERM_AT="1 0 1")
    assert terminated.returncode == 143, terminated.stderr
    assert "resume=last" in terminated.stderr.splitlines()[-1]
    assert torch.load(last, weights_only=True)["global_step"] == 2
    rest = ("name=stopped", "resume=last", "data.workers=1", "callbacks.last.minutes=0")
    assert together.typed(*rest, KILL_AT="0 1 2").returncode == -signal.SIGKILL
    assert torch.load(last, weights_only=True)["global_step"] == 9
    finished = together.typed(*rest)
    assert finished.returncode == 0, finished.stderr
    assert largest_difference(together.folder / "out/pair/last.ckpt", last) <= 1e-6
    figures = [logged(together.folder / "out" / name) for name in ("pair", "stopped")]
    pd.testing.assert_frame_equal(*figures, rtol=1e-6)
