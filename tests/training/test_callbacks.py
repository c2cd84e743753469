"""What a run shows: pictures of each validation in every logger, speed, and a suggested rate."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from realdamage.commands import train
from realdamage.schema import MONITORED, AdaptConfig, ModelConfig
from realdamage.training import callbacks
from realdamage.training.adapt import adapt_network
from realdamage.training.callbacks import flops_per_tile
from realdamage.training.network import build_network


def logged(run):
    return pd.read_csv(run / "logs/version_0/metrics.csv")


def test_each_validation_leaves_two_pictures(tiny_run):
    names = {path.name for path in (tiny_run / "pictures").iterdir()}
    kinds = ("photos", "roc_and_confusion")
    assert names == {f"epoch_00{epoch}_{kind}.png" for epoch in (1, 2, 3) for kind in kinds}
    sheet = np.asarray(Image.open(tiny_run / "pictures/epoch_003_photos.png"))
    assert sheet.shape[1] > 4 * 2 * 200  # four cells, each a photo and its heat map
    assert sheet.std() > 30


def test_each_figure_is_logged_in_one_column(tiny_run):
    table = logged(tiny_run)
    validated = {name for name in table if name.startswith("val/")}
    assert validated == {*MONITORED, "val/photos", "val/loss"}
    assert table["val/tpr_at_fpr_1_all_real"].isna().all()  # too few real photos
    losses = table["train/loss"].dropna()
    assert len(losses) == 6  # two batches of seven units, three epochs
    assert losses.iloc[-1] < losses.iloc[0]
    assert "train/photo" in table  # 0: one crop of each photo, and all have a mask
    for name in ("tile", "patch", "grad_norm", "photos_per_s"):
        assert (table[f"train/{name}"].dropna() > 0).all()
    # Two steps an epoch: the warm-up is the first, then a cosine down to a hundredth.
    cosine = [3e-3 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * k / 5))) for k in range(5)]
    assert table["train/lr"].dropna().tolist() == pytest.approx([3e-3, *cosine])
    assert [name for name in table if "lr" in name] == ["train/lr"]
    assert "train/mfu" not in table  # a CPU's peak rate is not known


def test_frozen_layers_cost_no_way_back():
    network = build_network(ModelConfig("test_vit", 64, False)).train()
    forward = FlopCounterMode(display=False)
    with forward:
        network(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    full = flops_per_tile(network)
    adapt_network(network, AdaptConfig("head"))
    frozen = flops_per_tile(network)
    once = forward.get_total_flops()
    assert 2.5 * once < full < 3.5 * once
    assert once <= frozen < 1.1 * once
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.slow
def test_all_loggers_at_once_with_early_stopping_and_balance(tiny_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason='pip install "realdamage[wandb]"')
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(callbacks, "get_available_flops", lambda *_: int(1e12))
    options = ("logger=[csv,tensorboard,wandb]", "logger.wandb.offline=true", "name=all")
    stopping = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1")
    balance = ("data.balance=[family,source]", "data.epoch_units=7", "model.lr=1e-12")
    train.run(tiny_config(tmp_path, *options, *stopping, *balance, "trainer.max_epochs=5"))
    table = logged(tmp_path)
    assert table["val/auroc"].count() == 2  # the second was no better than the first
    assert ((table["train/mfu"].dropna() > 0) & (table["train/mfu"].dropna() < 1)).all()
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    pictures = [path.name for path in (offline / "files/media/images/val").glob("*.png")]
    assert len(pictures) == 4
    assert (offline / "files/wandb-summary.json").is_file() or list(offline.glob("*.wandb"))
    shown = events.EventAccumulator(str(tmp_path / "tensorboard/version_0"))
    shown.Reload()
    assert [image.step for image in shown.Images("val/photos")] == [1, 2]
    assert not (tmp_path / "pictures").exists()


@pytest.mark.slow
def test_the_rate_finder_suggests_and_trains_nothing(run_command, tiny_manifest):
    network = ("model.backbone=test_vit", "model.pretrained=false", "model.tile=64")
    steps = ("callbacks.lr_finder.steps=20", "data.batch_units=7", "data.tiles_per_photo=1")
    arguments = (f"data.root={tiny_manifest}", *network, "model.overlap=16", *steps)
    done = run_command("train", *arguments, "+debug=lr_finder")
    assert done.code == 0, done.err
    rate = float(done.out.partition("suggested: model.lr=")[2].split()[0])
    assert 1e-8 < rate < 1
    assert "next: " not in done.out
    files = {path.name for path in Path("out/debug").iterdir()}
    assert files == {"learning_rate.png", "train.log"}
