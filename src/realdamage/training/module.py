"""The LightningModule: loss, optimiser, schedule and validation figures around the network; and its
checkpoints."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from torch import Tensor
from torch.nn.utils import get_total_norm
from torchmetrics import MeanMetric, Metric, MetricCollection, SumMetric
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    BinarySensitivityAtSpecificity,
)

from realdamage.core.model_file import ModelMetadata
from realdamage.core.pooling import Pooling, pool
from realdamage.core.tiles import PixelSpec
from realdamage.errors import ModelFileError
from realdamage.files import write_atomically
from realdamage.schema import MONITORED, AdaptConfig, LossWeightsConfig, ModelConfig
from realdamage.training.adapt import adapt_network, merge_adapters, parameter_groups
from realdamage.training.dataset import Batch
from realdamage.training.losses import LOSSES, Loss
from realdamage.training.network import (
    WEIGHTS,
    build_network,
    first_line,
    of_a_run,
    read_checkpoint,
)

VALIDATION_TILES = 64
"""Tiles per forward pass in validation; bounds the memory for large photos."""

MIN_REAL_FOR_1_PERCENT = 100
"""Real photos needed to distinguish a rate of 1% from 0."""


class DamageClassifier(L.LightningModule):
    """Fine-tunes an EvidenceViT on batches of `DamageDataModule`.

    record: what the run says about itself, `training.run.training_record`.

    The hyper-parameters in a checkpoint are plain values, so that it loads with `weights_only`.
    Raises ConfigError and ModelFileError.
    """

    def __init__(
        self,
        model: ModelConfig,
        adapt: AdaptConfig | None = None,
        record: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.adapt, self.record = model, adapt or AdaptConfig(), record or {}
        self.save_hyperparameters({**asdict(model), "adapt": asdict(self.adapt), "record": record})
        self.validation_figures: dict[str, float] = {}
        # What the weights have seen before: a model that starts warm must not call those generators
        # unseen.
        self.trained_on: dict[str, Any] = {}
        self.configure_losses()
        self.network = build_network(model)
        if of_a_run(model.weights):
            seen = read_checkpoint(str(model.weights)).get("trained_on", {})
            self.trained_on = {"generators": seen.get("generators", [])}
        adapt_network(self.network, self.adapt)
        self.pixel_spec = PixelSpec(
            model.tile, self.network.patch, model.overlap, model.max_side, model.filter
        )
        self.configure_metrics()

    def configure_losses(self) -> None:
        """The loss of each term, by name."""
        loss = LOSSES[self.model.loss]
        patch_loss = LOSSES[self.model.patch_loss or self.model.loss]
        self.losses: dict[str, Loss] = {"tile": loss, "patch": patch_loss, "photo": loss}

    def configure_metrics(self) -> None:
        """The figures of validation."""
        figures: dict[str, Metric | MetricCollection] = {
            "auroc": BinaryAUROC(),
            "tpr_at_fpr_1_all_real": _TruePositiveRate(min_specificity=0.99),
        }
        self.photo_metrics = MetricCollection(figures, prefix="val/", compute_groups=False)
        self.real_photos, self.synthetic_photos = SumMetric(), SumMetric()
        self.photo_loss = MeanMetric()
        self.localisation = BinaryAveragePrecision(thresholds=512)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [n, tile, tile, 3] → logit [n], evidence [n, h, w]."""
        return cast(tuple[Tensor, Tensor], self.network(tiles))

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Seeds dropout and drop_path by process, epoch and batch, as crops are seeded by epoch and
        unit, so that a resumed run draws what a straight one draws."""
        key = (self.record.get("seed", 0), self.global_rank, self.current_epoch, batch_index)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        terms = self.loss_terms(batch, *self(batch["tiles"]))
        weights = asdict(self.model.loss_weights)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        photos = len(batch["photo_label"])
        logged = {f"train/{name}": term.detach() for name, term in terms.items()}
        self.log_dict(logged, batch_size=photos)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=photos)
        return loss

    def loss_terms(self, batch: Batch, logit: Tensor, evidence: Tensor) -> dict[str, Tensor]:
        """The terms `tile`, `patch` and `photo` of the loss, not yet weighted, for the outputs on
        `batch`."""
        share, label = batch["patch_share"], batch["photo_label"]
        photos, crops = len(label), len(logit) // len(label)
        weight = batch["photo_weight"].repeat_interleave(crops)
        score = torch.vmap(lambda tiles, patches: pool(tiles, patches, self.model.pooling, torch))(
            logit.reshape(photos, crops), evidence.reshape(photos, crops, *evidence.shape[1:])
        )
        if crops == 1:
            unmasked = torch.isnan(share).flatten(1).any(dim=1)
            label = torch.where(unmasked, label, torch.nan)
        patch_weight = weight[:, None, None].expand_as(share)
        return {
            "tile": self.losses["tile"](logit, batch["tile_label"], weight),
            "patch": self.losses["patch"](evidence, share, patch_weight),
            "photo": self.losses["photo"](score, label, batch["photo_weight"]),
        }

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.log("train/grad_norm", get_total_norm(gradients))  # before clipping
        self.log("train/lr", max(group["lr"] for group in optimizer.param_groups))

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor] | None:
        """The photo's place among all, in 0..1, and its label; None for a filler."""
        label = batch["photo_label"]
        outputs = [self(tiles) for tiles in batch["tiles"].split(VALIDATION_TILES)]
        if torch.isnan(label).any():
            return None  # a filler, see WholePhotoSampler
        logit, evidence = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        score = pool(logit, evidence, self.model.pooling, torch)
        self.photo_loss.update(F.binary_cross_entropy_with_logits(score, label.squeeze()))
        # The figures depend on the order of the scores only. Float32 sigmoids would all round to 1
        # above a score of 17, and not every device has float64.
        rank = (0.5 + 0.5 * F.softsign(score))[None]
        self.photo_metrics.update(rank, label.long())
        self.synthetic_photos.update(label)
        self.real_photos.update(1 - label)
        share = batch["patch_share"]
        if not batch["whole_edit"] and not torch.isnan(share).any() and label.item() == 1.0:
            self.localisation.update(evidence.sigmoid().flatten(), (share > 0.5).long().flatten())
        return {"rank": rank, "label": label.long()}

    def on_validation_epoch_end(self) -> None:
        real, synthetic = self.real_photos.compute(), self.synthetic_photos.compute()
        figures = {**self.photo_metrics.compute(), "val/photos": real + synthetic}
        # Every process must take part in computing a figure, also one whose own photos had no mask.
        masked = self.trainer.strategy.reduce(self.localisation.confmat.sum(), reduce_op="sum")
        if masked:
            figures["val/localisation_ap"] = self.localisation.compute()
        measured = {
            "val/auroc": bool(real and synthetic),
            "val/tpr_at_fpr_1_all_real": bool(synthetic and real >= MIN_REAL_FOR_1_PERCENT),
            "val/localisation_ap": bool(masked),
        }
        # ModelCheckpoint would stop the run at a missing figure, but takes one that is NaN.
        figures |= {name: real.new_tensor(torch.nan) for name in MONITORED if not measured[name]}
        for metric in (
            self.photo_metrics,
            self.real_photos,
            self.synthetic_photos,
            self.localisation,
        ):
            metric.reset()
        self.validation_figures = {
            name: float(value) for name, value in figures.items() if value.isfinite()
        }
        self.log_dict({name: value.float() for name, value in figures.items()}, prog_bar=True)
        self.log("val/loss", self.photo_loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None:
            found = datamodule.describe()
            seen = {*self.trained_on.get("generators", ()), *found["generators"]}
            self.trained_on = {**found, "generators": sorted(seen)}
        checkpoint["trained_on"] = self.trained_on
        checkpoint["validation_figures"] = self.validation_figures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained_on = dict(checkpoint.get("trained_on", {}))
        self.validation_figures = dict(checkpoint.get("validation_figures", {}))

    def configure_optimizers(self) -> Any:
        lr, floor = self.model.lr, self.model.final_lr
        optimizer = torch.optim.AdamW(
            parameter_groups(self.network, self.adapt, lr, self.model.weight_decay)
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(self.model.warmup * steps))

        # As timm's cosine schedule, but the first step already has a share of the rate.
        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / max(1, steps - warmup))
            return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes model.safetensors (weights and settings, adapters merged) and config.json (for
        people) into a folder, and returns it. The folder works wherever a .ckpt does."""
        network = copy.deepcopy(self.network)
        merge_adapters(network)
        about = {
            "hyper_parameters": {**self.hparams, "adapt": None},
            "trained_on": self.trained_on,
            "validation_figures": self.validation_figures,
        }
        state = {f"network.{name}": value for name, value in network.state_dict().items()}
        metadata = {"format": "pt", "realdamage": json.dumps(about)}
        config = {
            "about": f"For people: realdamage reads all of this from {WEIGHTS}.",
            **json.loads(model_metadata(self).to_json()),
        }
        write_atomically(Path(folder) / WEIGHTS, safetensors.torch.save(state, metadata))
        write_atomically(Path(folder) / "config.json", json.dumps(config, indent=2).encode())
        return Path(folder)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None
    ) -> DamageClassifier:
        """A classifier for scoring, export or further training: from a folder that
        `save_pretrained` wrote, or from "user/model" on the Hugging Face Hub.

        Raises ModelFileError (code download_failed, or as `load_classifier`).
        """
        folder = Path(source)
        if not folder.is_dir():
            try:
                folder = Path(hf_hub_download(str(source), WEIGHTS, revision=revision)).parent
            except Exception as error:
                raise ModelFileError(
                    f"{source}: no such folder, and the Hugging Face Hub gave no {WEIGHTS} of that "
                    f"name ({type(error).__name__}: {first_line(error)}). Check the name, the "
                    "connection, and `hf auth login` for a private model.",
                    code="download_failed",
                ) from error
        return load_classifier(folder)


class _TruePositiveRate(BinarySensitivityAtSpecificity):
    """torchmetrics' figure without the threshold that comes with it."""

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()[0]


def load_classifier(path: str | Path) -> DamageClassifier:
    """Loads a .ckpt, or a folder of `save_pretrained`, for scoring or export: without any download,
    and with adapters merged.

    Raises ModelFileError: no such file, not a checkpoint of realdamage-train, or weights of another
    architecture.
    """
    checkpoint = read_checkpoint(path)
    hparams = checkpoint["hyper_parameters"]
    try:
        classifier = DamageClassifier(*_settings(hparams))
        classifier.load_state_dict(checkpoint["state_dict"])
        classifier.on_load_checkpoint(checkpoint)
    except (RuntimeError, TypeError) as error:
        raise ModelFileError(
            f"{path} holds weights of another architecture than its settings name (backbone "
            f"{hparams.get('backbone')!r}, tile {hparams.get('tile')}): "
            f"{' '.join(str(error).split())[:300]}. Train again, or use the version that wrote it.",
            code="other_architecture",
        ) from error
    merge_adapters(classifier.network)
    return classifier.eval()


def _settings(hparams: dict[str, Any]) -> tuple[ModelConfig, AdaptConfig, dict[str, Any]]:
    """The arguments of a DamageClassifier from the hyper-parameters in a checkpoint, with nothing
    to download."""
    values = {**hparams, "pretrained": False, "weights": None}
    adapt, record = values.pop("adapt", None) or {}, values.pop("record", None) or {}
    values["loss_weights"] = LossWeightsConfig(**values.get("loss_weights", {}))
    values["pooling"] = Pooling(**(values.get("pooling") or {}))
    return ModelConfig(**values), AdaptConfig(**adapt), record


def model_metadata(classifier: DamageClassifier) -> ModelMetadata:
    """The metadata of a trained classifier, uncalibrated, as the exported file will carry it."""
    record = dict(classifier.record)
    demo = bool(record.pop("demo", False))
    return ModelMetadata(
        pixel_spec=classifier.pixel_spec,
        pooling=classifier.model.pooling,
        calibration=None,
        policy=None,
        backbone=classifier.model.backbone,
        demo=demo,
        model_version=f"{record.get('experiment', 'model')}-{record.get('created', '')[:10]}",
        training={**record, **classifier.trained_on},
        metrics=dict(classifier.validation_figures),
    )
