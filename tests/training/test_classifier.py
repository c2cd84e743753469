"""The loss counts what is known and nothing else; checkpoints hold averaged weights and load without a download."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from realdamage.commands import train
from realdamage.core.detector import Detector
from realdamage.core.pooling import Pooling, pool
from realdamage.data.manifest import read_manifest
from realdamage.errors import ConfigError, ModelFileError
from realdamage.evaluation.predictions import score_manifest
from realdamage.training.classifier import MONITORED, DamageClassifier, LossWeights, load_classifier
from realdamage.training.record import model_metadata
from realdamage.training.scorer import TorchScorer

NAN = float("nan")


def tiny_classifier(**options: Any) -> DamageClassifier:
    torch.manual_seed(0)
    return DamageClassifier(**{"backbone": "test_vit", "tile": 64, "pretrained": False, **options})


def batch_of(labels: list[float], *, masks: bool = True, tiles: int = 2) -> dict[str, Any]:
    """Photos of the given labels; without masks the synthetic ones have no labelled tile."""
    photos = len(labels)
    label = torch.tensor(labels).repeat_interleave(tiles)
    label = torch.where(label == 1.0, label if masks else torch.full_like(label, NAN), label)
    pixels = torch.randint(
        0, 256, (photos * tiles, 64, 64, 3), generator=torch.Generator().manual_seed(3)
    )
    return {
        "tiles": pixels.to(torch.uint8),
        "tile_label": label,
        "patch_share": label[:, None, None].expand(-1, 4, 4).clone(),
        "photo_label": torch.tensor(labels),
        "photo_weight": torch.ones(photos),
        "skipped": [],
    }


def loss_terms(classifier: DamageClassifier, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    logit, evidence = classifier.eval()(batch["tiles"])
    return classifier._terms(batch, logit, evidence)


def test_the_terms_are_the_binary_cross_entropies_of_tile_patch_and_photo() -> None:
    classifier, batch = tiny_classifier(), batch_of([0.0, 1.0])
    logit, evidence = classifier.eval()(batch["tiles"])
    terms = loss_terms(classifier, batch)
    torch.testing.assert_close(
        terms["tile"], F.binary_cross_entropy_with_logits(logit, batch["tile_label"])
    )
    torch.testing.assert_close(
        terms["patch"], F.binary_cross_entropy_with_logits(evidence, batch["patch_share"])
    )
    scores = torch.stack(
        [pool(logit[i : i + 2], evidence[i : i + 2], Pooling(), torch) for i in (0, 2)]
    )
    torch.testing.assert_close(
        terms["photo"], F.binary_cross_entropy_with_logits(scores, batch["photo_label"])
    )


def test_a_synthetic_photo_without_mask_teaches_through_its_photo_score_alone() -> None:
    classifier = tiny_classifier()
    both, real = batch_of([0.0, 1.0], masks=False), batch_of([0.0])
    real["tiles"] = both["tiles"][:2]
    terms, expected = loss_terms(classifier, both), loss_terms(classifier, real)
    torch.testing.assert_close(terms["tile"], expected["tile"])
    torch.testing.assert_close(terms["patch"], expected["patch"])
    assert not torch.isclose(terms["photo"], expected["photo"])
    only_synthetic = loss_terms(classifier, batch_of([1.0], masks=False))
    assert only_synthetic["tile"].item() == only_synthetic["patch"].item() == 0.0
    only_synthetic[
        "tile"
    ].backward()  # 0, yet part of the graph, so that ddp's processes stay together
    loss_terms(classifier, batch_of([1.0], masks=False))["photo"].backward()
    gradient = classifier.network.patch_head.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_weights_of_photos_scale_their_share_of_the_loss() -> None:
    classifier, batch = tiny_classifier(), batch_of([0.0, 1.0, 1.0])
    batch["photo_weight"] = torch.tensor([2.0, 0.0, 1.0])
    logit, _ = classifier.eval()(batch["tiles"])
    each = F.binary_cross_entropy_with_logits(logit, batch["tile_label"], reduction="none")
    expected = (2 * each[0:2].sum() + each[4:6].sum()) / (2 * 2 + 2)
    torch.testing.assert_close(loss_terms(classifier, batch)["tile"], expected)


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    batch = batch_of([0.0, 1.0])
    losses = {
        name: float(
            tiny_classifier(
                loss={"tile": 0.0, "patch": 0.0, "photo": 0.0, name: 2.0}
            ).training_step(batch, 0)
        )
        for name in ("tile", "patch", "photo")
    }
    mixed = tiny_classifier(loss={"tile": 1.0, "patch": 0.5, "photo": 0.25}).training_step(batch, 0)
    expected = 0.5 * losses["tile"] + 0.25 * losses["patch"] + 0.125 * losses["photo"]
    assert float(mixed) == pytest.approx(expected, rel=1e-5)


def test_one_crop_of_a_photo_with_a_mask_trains_no_photo_score() -> None:
    """The wrapper pools the whole photo; the score of one crop says nothing that tile and patches don't."""
    masked, unmasked = (batch_of([0.0, 1.0], masks=masks, tiles=1) for masks in (True, False))
    settings = {"tile": 0.0, "patch": 0.0, "photo": 1.0}
    assert float(tiny_classifier(loss=settings).training_step(masked, 0)) == 0.0
    assert float(tiny_classifier(loss=settings).training_step(unmasked, 0)) > 0.1


def test_the_photo_term_pools_each_photo_alone() -> None:
    classifier, batch = tiny_classifier(), batch_of([0.0, 1.0, 1.0], tiles=3)
    logit, evidence = classifier.eval()(batch["tiles"])
    scores = [
        pool(logit[3 * i : 3 * i + 3], evidence[3 * i : 3 * i + 3], Pooling(), torch)
        for i in range(3)
    ]
    expected = F.binary_cross_entropy_with_logits(torch.stack(scores), batch["photo_label"])
    torch.testing.assert_close(classifier._terms(batch, logit, evidence)["photo"], expected)


def test_validation_ranks_scores_that_a_float32_probability_cannot_tell_apart() -> None:
    """Float64 would, but MPS has none."""
    classifier = tiny_classifier()
    for score, label in ((30.0, 0.0), (31.0, 1.0), (33.0, 0.0), (40.0, 1.0)):
        classifier.forward = lambda tiles, score=score: (
            torch.tensor([score]),
            torch.full((1, 4, 4), score),
        )
        batch = {**batch_of([label], tiles=1), "whole_edit": True}
        classifier.validation_step(batch, 0)
    assert float(classifier.photo_metrics["auroc"].compute()) == 0.75


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"patch": -1.0}, r"model\.loss\.patch=-1"),
        ({"tile": 0.0, "patch": 0.0, "photo": 0.0}, "nothing would be"),
    ],
)
def test_wrong_loss_weights_are_named(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossWeights(**weights)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": -1.0}, r"model\.lr=-1\.0: must be finite and above 0"),
        ({"lr": NAN}, r"model\.lr=nan"),
        ({"weight_decay": -0.1}, r"model\.weight_decay=-0\.1"),
        ({"warmup": 2.0}, r"model\.warmup=2\.0: a share, must be in 0\.\.1"),
        ({"final_lr": 1.5}, r"model\.final_lr=1\.5"),
        ({"drop_path": 1.0}, r"model\.drop_path=1\.0"),
        ({"loss": {"tile": NAN}}, r"model\.loss\.tile=nan"),
    ],
)
def test_a_setting_out_of_range_is_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_classifier(**setting)


def test_training_lowers_the_loss_and_logs_every_term(tiny_run: Path) -> None:
    with (tiny_run / "logs/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train/loss", "train/tile", "train/patch", "train/photo"} <= set(rows[0])
    validated = {name for name in rows[0] if name.startswith("val/")}
    too_few_for = {"val/tpr_at_fpr_1_all_real"}
    assert validated == {*MONITORED, "val/photos", "val/loss"} - too_few_for
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 6  # two batches of seven units, three epochs
    assert losses[-1] < losses[0]


def test_a_rate_of_1_percent_takes_100_real_photos(
    tiny_config, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        "val/tpr_at_fpr_1_all_real"
        not in load_classifier(tiny_run / "best.ckpt").validation_figures
    )
    monkeypatch.setattr("realdamage.training.classifier.MIN_REAL_FOR_1_PERCENT", 1)
    train.run(tiny_config(tmp_path, "trainer.max_epochs=1"))
    figures = load_classifier(tmp_path / "best.ckpt").validation_figures
    assert 0.0 <= figures["val/tpr_at_fpr_1_all_real"] <= 1.0


def test_photos_of_one_class_have_no_auroc(tiny_config, tmp_path: Path) -> None:
    train.run(tiny_config(tmp_path, "trainer.max_epochs=1", "trainer.limit_val_batches=1"))
    with (tmp_path / "logs/version_0/metrics.csv").open() as file:
        assert "nan" in {row["val/auroc"] for row in csv.DictReader(file)}
    assert "val/auroc" not in load_classifier(tmp_path / "best.ckpt").validation_figures


def test_the_learning_rate_warms_up_and_falls_to_its_floor(tiny_config, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, "trainer.max_epochs=5", "model.lr=0.01", "model.warmup=0.3", "model.final_lr=0.1"
    )
    train.run(config)
    with (tmp_path / "logs/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    (column, *_) = [name for name in rows[0] if name.startswith("lr-AdamW")]
    rates = [float(row[column]) for row in rows if row[column]]
    cosine = [0.01 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 7))) for step in range(7)]
    assert rates == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, *cosine])


def test_the_best_figure_is_that_of_the_wrapper_on_the_same_photos(
    tiny_run: Path, tiny_manifest: Path
) -> None:
    """torchmetrics over validation batches against scikit-learn over the wrapper's scores."""
    classifier = load_classifier(tiny_run / "best.ckpt")
    detector = Detector(TorchScorer(classifier.network), model_metadata(classifier))
    predictions, _ = score_manifest(detector, read_manifest(tiny_manifest).select(split="val"))
    expected = roc_auc_score(predictions["label"] == "synthetic", predictions["score"])
    assert classifier.validation_figures["val/auroc"] == pytest.approx(expected, abs=1e-6)


def test_the_checkpoint_holds_the_averaged_weights(
    tiny_config, tmp_path: Path, monkeypatch
) -> None:
    """Average after a step: 0.9 of the average before, 0.1 of the weights (the first step starts it)."""
    seen: list[torch.Tensor] = []

    def remember(self: DamageClassifier, *_: Any) -> None:
        seen.append(self.network.patch_head.weight.detach().clone())

    monkeypatch.setattr(DamageClassifier, "on_train_batch_end", remember)
    train.run(tiny_config(tmp_path, "trainer.max_epochs=2", "callbacks.ema.decay=0.9"))
    average = seen[0]
    for weight in seen[1:]:
        average = 0.9 * average + 0.1 * weight
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(checkpoint["state_dict"]["network.patch_head.weight"], average)
    assert not torch.allclose(average, seen[-1])
    loaded = load_classifier(tmp_path / "last.ckpt").network.patch_head.weight
    torch.testing.assert_close(loaded, average)


def test_compiling_leaves_the_keys_of_the_checkpoint_as_they_are() -> None:
    compiled, plain = tiny_classifier(compile=True), tiny_classifier()
    compiled.setup("fit")
    plain.setup("fit")
    assert compiled.network._compiled_call_impl is not None
    assert plain.network._compiled_call_impl is None
    assert list(compiled.state_dict()) == list(plain.state_dict())


class TestLoading:
    @pytest.fixture
    def no_download(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a checkpoint was loaded by downloading weights")

        monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)
        monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)

    @staticmethod
    def changed(tiny_run: Path, to: Path, **hparams: Any) -> Path:
        checkpoint = torch.load(tiny_run / "best.ckpt", weights_only=True)
        checkpoint["hyper_parameters"].update(hparams)
        torch.save(checkpoint, to)
        return to

    def test_hyper_parameters_are_primitives(self, tiny_run: Path) -> None:
        checkpoint = torch.load(tiny_run / "best.ckpt", weights_only=True)

        def plain(value: Any) -> bool:
            if isinstance(value, dict):
                return all(plain(key) and plain(inner) for key, inner in value.items())
            if isinstance(value, list | tuple):
                return all(plain(inner) for inner in value)
            return type(value) in (str, int, float, bool, type(None))

        assert plain(checkpoint["hyper_parameters"])
        assert plain(checkpoint["datamodule_hyper_parameters"])

    def test_pretrained_weights_are_not_asked_for_again(
        self, tiny_run: Path, tmp_path: Path, no_download
    ) -> None:
        path = self.changed(
            tiny_run,
            tmp_path / "a.ckpt",
            backbone="test_vit.r160_in1k",
            pretrained=True,
            weights="gone.pth",
        )
        loaded, plain = load_classifier(path), load_classifier(tiny_run / "best.ckpt")
        assert not loaded.training
        assert all(
            torch.equal(loaded.state_dict()[name], value)
            for name, value in plain.state_dict().items()
        )

    def test_it_remembers_what_it_was_trained_on(self, tiny_run: Path, tiny_manifest: Path) -> None:
        metadata = model_metadata(load_classifier(tiny_run / "best.ckpt"))
        digest = read_manifest(tiny_manifest).digest()
        assert metadata.training["manifest_sha256"] == digest
        assert metadata.training["generators"] == ["even", "odd"]
        assert metadata.training["experiment"] == "tiny"
        assert metadata.backbone == "test_vit"
        assert metadata.calibration is None
        assert set(metadata.metrics) == {"val/auroc", "val/localisation_ap", "val/photos"}

    def test_weights_of_another_architecture_are_refused(
        self, tiny_run: Path, tmp_path: Path
    ) -> None:
        for number, hparams in enumerate(
            ({"backbone": "test_vit2"}, {"adapt": {"strategy": "lora"}}, {"tile": 32})
        ):
            path = self.changed(tiny_run, tmp_path / f"{number}.ckpt", **hparams)
            with pytest.raises(
                ModelFileError, match=f"{number}.ckpt holds weights of another architecture"
            ):
                load_classifier(path)

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
    def test_what_is_no_checkpoint_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.ckpt").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"x\.ckpt is not a checkpoint of realdamage"):
            load_classifier(tmp_path / "x.ckpt")

    @pytest.mark.parametrize(
        "content",
        [
            {"state_dict": {}},
            {"state_dict": {}, "hyper_parameters": {"hidden": 3}},
            {
                "hyper_parameters": {"backbone": "test_vit", "tile": 64, "pretrained": False},
                "state_dict": {},
            },
            [1, 2],
        ],
    )
    def test_checkpoints_of_others_are_refused(self, tmp_path: Path, content: Any) -> None:
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(ModelFileError, match=r"x\.ckpt"):
            load_classifier(tmp_path / "x.ckpt")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match=r"nowhere\.ckpt: no such file"):
            load_classifier(tmp_path / "nowhere.ckpt")

    def test_adapters_come_back_merged(self, tiny_config, tmp_path: Path, monkeypatch) -> None:
        train.run(
            tiny_config(
                tmp_path, "adapt=lora", "adapt.rank=2", "trainer.max_epochs=1", "model.lr=0.01"
            )
        )
        checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert any("lora_A" in name for name in checkpoint["state_dict"])
        loaded = load_classifier(tmp_path / "last.ckpt")
        assert list(loaded.network.state_dict()) == list(tiny_classifier().network.state_dict())
        prefix = "network.backbone.blocks.0.mlp.fc1"
        base, a, b = (
            checkpoint["state_dict"][f"{prefix}.{part}.weight"]
            for part in ("base_layer", "lora_A.default", "lora_B.default")
        )
        assert b.abs().sum() > 0
        merged = loaded.network.backbone.blocks[0].mlp.fc1.weight
        torch.testing.assert_close(merged, base + (16.0 / 2) * b @ a)
