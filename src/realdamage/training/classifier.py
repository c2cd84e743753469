"""The LightningModule: loss, optimiser, schedule and validation figures around the network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection, SumMetric
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    BinarySensitivityAtSpecificity,
)

from realdamage.core.pooling import Pooling, pool
from realdamage.core.tiles import PixelSpec
from realdamage.errors import ConfigError, ModelFileError
from realdamage.training.adaptation import (
    Adaptation,
    adapt_network,
    merge_adapters,
    parameter_groups,
)
from realdamage.training.dataset import Batch
from realdamage.training.network import build_network, first_line

VALIDATION_TILES = 64
"""Tiles that go through the network at once in validation; bounds the memory for large photos."""

MONITORED = ("val/auroc", "val/tpr_at_fpr_1_all_real", "val/localisation_ap")
"""The figures of validation by which a checkpoint can be kept: higher is better."""

MIN_REAL_FOR_1_PERCENT = 100
"""Real photos from which on a rate of 1% of them can be told from none."""


@dataclass(frozen=True)
class LossWeights:
    """Factors of the loss terms: `tile` and `patch` BCE on labels from the mask, `photo` BCE on the pooled score of a
    photo's crops. With `data.tiles_per_photo=1` the photo term counts only photos without a mask: elsewhere one crop's
    score would repeat the other two terms, and the wrapper pools many tiles."""

    tile: float = 1.0
    patch: float = 1.0
    photo: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf:
                raise ConfigError(
                    f"model.loss.{name}={value}: a factor must be finite and not negative"
                )
        if self.tile + self.patch + self.photo == 0:
            raise ConfigError(
                "model.loss: tile, patch and photo are all 0, so nothing would be learned"
            )


class DamageClassifier(L.LightningModule):
    """Fine-tunes an EvidenceViT on batches of `DamageDataModule`.

    All arguments are primitives, so that checkpoints load with `weights_only`. `backbone`, `tile`, `pretrained`,
    `weights`,
    `drop_path`: see `build_network`; `overlap`, `max_side`, `filter`: see `PixelSpec`; `pooling`, `loss`, `adapt`: the
    fields of
    `Pooling`, `LossWeights`, `Adaptation`; `lr`: peak learning rate of AdamW after `warmup` (share of all steps), then
    cosine to `lr * final_lr`; `compile`: torch.compile, which leaves the checkpoint's keys as they are; `record`: what
    the run says about itself (`training.record`).
    """

    def __init__(
        self,
        backbone: str,
        tile: int,
        pretrained: bool,
        weights: str | None = None,
        drop_path: float = 0.0,
        overlap: int = 0,
        max_side: int = 2048,
        filter: str = "lanczos",
        pooling: dict[str, Any] | None = None,
        loss: dict[str, float] | None = None,
        adapt: dict[str, Any] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.05,
        final_lr: float = 0.01,
        compile: bool = False,
        record: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check_rates(lr, weight_decay, warmup, final_lr, drop_path)
        # What the weights have seen before: a model that starts warm must not call those generators unseen.
        self.trained_on: dict[str, Any] = _seen_before(weights)
        self.validation_figures: dict[str, float] = {}
        self.pooling = Pooling(**(pooling or {}))
        self.loss_weights = LossWeights(**(loss or {}))
        self.adaptation = Adaptation(**(adapt or {}))
        self.network = build_network(
            backbone, tile=tile, pretrained=pretrained, weights=weights, drop_path=drop_path
        )
        adapt_network(self.network, self.adaptation)
        self.pixel_spec = PixelSpec(tile, self.network.patch, overlap, max_side, filter)
        figures: dict[str, Metric | MetricCollection] = {
            "auroc": BinaryAUROC(),
            "tpr_at_fpr_1_all_real": _TruePositiveRate(min_specificity=0.99),
        }
        self.photo_metrics = MetricCollection(figures, prefix="val/", compute_groups=False)
        self.real_photos, self.synthetic_photos = SumMetric(), SumMetric()
        self.photo_loss = MeanMetric()
        self.localisation = BinaryAveragePrecision(thresholds=512)

    def setup(self, stage: str) -> None:
        if self.hparams["compile"]:
            self.network.compile()  # in place, so the keys of the state dict keep their names

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [n, tile, tile, 3] → logit [n], evidence [n, h, w]."""
        return cast(tuple[Tensor, Tensor], self.network(tiles))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        logit, evidence = self(batch["tiles"])
        terms = self._terms(batch, logit, evidence)
        weights = asdict(self.loss_weights)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        photos = len(batch["photo_label"])
        self.log_dict(
            {f"train/{name}": term.detach() for name, term in terms.items()}, batch_size=photos
        )
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=photos)
        return loss

    def _terms(self, batch: Batch, logit: Tensor, evidence: Tensor) -> dict[str, Tensor]:
        share, label = batch["patch_share"], batch["photo_label"]
        photos, crops = len(label), len(logit) // len(label)
        weight = batch["photo_weight"].repeat_interleave(crops)
        score = torch.vmap(lambda tiles, patches: pool(tiles, patches, self.pooling, torch))(
            logit.reshape(photos, crops), evidence.reshape(photos, crops, *evidence.shape[1:])
        )
        if crops == 1:
            unmasked = torch.isnan(share).flatten(1).any(dim=1)
            label = torch.where(unmasked, label, torch.nan)
        return {
            "tile": _labelled_bce(logit, batch["tile_label"], weight),
            "patch": _labelled_bce(evidence, share, weight[:, None, None].expand_as(share)),
            "photo": _labelled_bce(score, label, batch["photo_weight"]),
        }

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        label = batch["photo_label"]
        outputs = [self(tiles) for tiles in batch["tiles"].split(VALIDATION_TILES)]
        if torch.isnan(label).any():
            return  # a filler, see WholePhotoSampler
        logit, evidence = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        score = pool(logit, evidence, self.pooling, torch)
        self.photo_loss.update(F.binary_cross_entropy_with_logits(score, label.squeeze()))
        # The figures depend on the order of the scores only. Float32 sigmoids would all round to 1 above a score of 17,
        # and not every device has float64.
        self.photo_metrics.update((0.5 + 0.5 * F.softsign(score))[None], label.long())
        self.synthetic_photos.update(label)
        self.real_photos.update(1 - label)
        share = batch["patch_share"]
        if not batch["whole_edit"] and not torch.isnan(share).any() and label.item() == 1.0:
            self.localisation.update(evidence.sigmoid().flatten(), (share > 0.5).long().flatten())

    def on_validation_epoch_end(self) -> None:
        figures = dict(self.photo_metrics.compute())
        real, synthetic = self.real_photos.compute(), self.synthetic_photos.compute()
        if not (real and synthetic):
            figures["val/auroc"] = torch.full_like(
                real, torch.nan
            )  # of one class only there is none
        if not synthetic or real < MIN_REAL_FOR_1_PERCENT:
            del figures["val/tpr_at_fpr_1_all_real"]
        figures["val/photos"] = real + synthetic
        # Every process must take part in computing a figure, also one whose own photos had no mask.
        counted = self.trainer.strategy.reduce(self.localisation.confmat.sum(), reduce_op="sum")
        if int(counted):
            figures["val/localisation_ap"] = self.localisation.compute()
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
            # A model that goes on from another set has seen the generators of both.
            seen = {
                *self.trained_on.get("generators", ()),
                *(found := datamodule.describe())["generators"],
            }
            self.trained_on = {**found, "generators": sorted(seen)}
        checkpoint["trained_on"] = self.trained_on
        checkpoint["validation_figures"] = self.validation_figures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained_on = dict(checkpoint.get("trained_on", {}))
        self.validation_figures = dict(checkpoint.get("validation_figures", {}))

    def configure_optimizers(self) -> Any:
        lr, weight_decay = float(self.hparams["lr"]), float(self.hparams["weight_decay"])
        groups = parameter_groups(self.network, self.adaptation, lr, weight_decay)
        optimizer = torch.optim.AdamW(groups)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(float(self.hparams["warmup"]) * steps))
        floor = float(self.hparams["final_lr"])

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / max(1, steps - warmup))
            return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _check_rates(
    lr: float, weight_decay: float, warmup: float, final_lr: float, drop_path: float
) -> None:
    if not 0 < lr < math.inf:
        raise ConfigError(f"model.lr={lr}: must be finite and above 0")
    if not 0 <= weight_decay < math.inf:
        raise ConfigError(f"model.weight_decay={weight_decay}: must be finite and not negative")
    for name, value in (("warmup", warmup), ("final_lr", final_lr)):
        if not 0 <= value <= 1:
            raise ConfigError(f"model.{name}={value}: a share, must be in 0..1")
    if not 0 <= drop_path < 1:
        raise ConfigError(f"model.drop_path={drop_path}: a probability, must be in [0, 1)")


class _TruePositiveRate(BinarySensitivityAtSpecificity):
    """torchmetrics' figure without the threshold that it returns beside it."""

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()[0]


def _labelled_bce(logit: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Mean BCE over the entries whose label is known (not NaN); 0, with a gradient, when there are none."""
    known = ~torch.isnan(label)
    target = torch.where(known, label, torch.zeros_like(label)).to(logit.dtype)
    loss = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    weight = weight.to(logit.dtype) * known
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def _seen_before(weights: str | None) -> dict[str, Any]:
    if not weights or Path(weights).suffix != ".ckpt":
        return {}
    try:
        return {"generators": read_checkpoint(weights).get("trained_on", {}).get("generators", [])}
    except ModelFileError:
        return {}  # weights of somebody else's; `build_network` judges whether they fit


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `realdamage-train` wrote, as plain values and tensors. Raises ModelFileError: no such file, or no such
    checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(
            f"checkpoint={path}: no such file. Give the path of a .ckpt that realdamage-train wrote."
        )
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["hyper_parameters"]["backbone"], checkpoint["state_dict"]
    except Exception as error:
        raise ModelFileError(
            f"{path} is not a checkpoint of realdamage ({type(error).__name__}: {first_line(error)}). "
            "Give a .ckpt that realdamage-train wrote."
        ) from error
    return checkpoint


def load_classifier(
    path: str | Path, *, tile: int | None = None, overlap: int | None = None
) -> DamageClassifier:
    """Loads a checkpoint for scoring or export, without any download: its own weights replace pretrained ones; adapters
    are merged.

    tile, overlap: in pixels, instead of those it was trained with; a backbone with position embeddings has one tile.
    Raises ModelFileError: no such file, not one of our checkpoints, or weights of another architecture or tile.
    """
    checkpoint = read_checkpoint(path)
    hparams, state = dict(checkpoint["hyper_parameters"]), checkpoint["state_dict"]
    hparams.pop("_instantiator", None)
    hparams |= {
        name: value for name, value in (("tile", tile), ("overlap", overlap)) if value is not None
    }
    hparams["loss"] = {
        name: value for name, value in (hparams.get("loss") or {}).items() if name != "consistency"
    }
    try:
        classifier = DamageClassifier(
            **{**hparams, "pretrained": False, "weights": None, "compile": False}
        )
        classifier.load_state_dict(state)
        classifier.on_load_checkpoint(checkpoint)
    except (RuntimeError, TypeError) as error:
        lines = str(error).strip().splitlines()
        raise ModelFileError(
            f"{path} holds weights of another architecture than its settings name "
            f"(backbone {hparams.get('backbone')!r}, tile {hparams.get('tile')}): {' '.join(lines[:3])[:300]}. "
            "Train again, or use the version and the tile that wrote it."
        ) from error
    merge_adapters(classifier.network)
    return classifier.eval()
