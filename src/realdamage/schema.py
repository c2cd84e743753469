"""What a configuration may hold: keys, types, defaults and allowed values, each written once, here.

Hydra merges the YAML files into these dataclasses, so a misspelt key stops the run where it is written. YAML sets only
what differs from the defaults. A value out of range raises ConfigError when `OmegaConf.to_object` makes the dataclass,
before torch is imported.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from realdamage.core.pooling import Pooling
from realdamage.data.degradations import Degradations
from realdamage.errors import ConfigError
from realdamage.schema_recipe import PromptsConfig, RecipeConfig

MONITORED = ("val/auroc", "val/tpr_at_fpr_1_all_real", "val/localisation_ap")
"""The validation figures that can choose the best checkpoint; higher is better."""


def _check(fits: bool, key: str, value: Any, rule: str) -> None:
    if not fits:
        raise ConfigError(f"{key}={value}: {rule}")


def _check_factors(key: str, factors: Any) -> None:
    for name, value in asdict(factors).items():
        _check(0 <= value < math.inf, f"{key}.{name}", value, "must be finite and at least 0")


@dataclass
class PathsConfig:
    """Every path of every command.

    out: where runs go.
    run: this run's own folder.
    data: where sets of photos are made and found.
    """

    out: str = MISSING
    run: str = MISSING
    data: str = MISSING


@dataclass
class ReaderConfig:
    """How photos are laid out, see `realdamage.data.mapping.Reader`. `realdamage manifest --columns` takes the same keys."""

    layout: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)


@dataclass
class ClassWeightsConfig:
    """Factor on the loss of photos, by label."""

    real: float = 1.0
    synthetic: float = 1.0


@dataclass
class KindWeightsConfig:
    """Factor on the loss of photos, by kind; multiplied with that of the label."""

    original: float = 1.0
    damaged: float = 1.0
    annotated: float = 1.0
    ai_region: float = 1.0
    ai_whole: float = 1.0
    pasted: float = 1.0


@dataclass
class DataConfig:
    """The photos of a training run.

    root: folder of photos, or a table of them; `reader` says how they are laid out.
    recipe: what to synthesize in `root` first if it is empty (null: an empty folder is an error).
    batch_units: pairs or single photos per step (and process).
    tiles_per_photo: crops of each photo per step.
    focus: share of an edit's crops that are placed on its mask, in 0..1.
    workers: processes that read photos.
    exclude: what to leave out of train and val, by column: {family: [taesd], source: [shop]}.
    on_error: "raise" or "skip", for photos that cannot be read.
    audit: "stop" or "warn", when the photos give their label away without the damage.
    cache_gib: memory for decoded photos, only with workers=0. A decoded photo takes about 20 times its file.
    part_shares: share of the draws for each part of the set (empty: every unit once per epoch). Synthetic photos
        without an original then get a real partner.
    epoch_units: draws per epoch with part_shares (null: as many as units).
    """

    root: str = MISSING
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    recipe: str | None = None
    batch_units: int = 16
    tiles_per_photo: int = 2
    focus: float = 0.7
    workers: int = 0
    degradations: Degradations = field(default_factory=Degradations)
    class_weights: ClassWeightsConfig = field(default_factory=ClassWeightsConfig)
    kind_weights: KindWeightsConfig = field(default_factory=KindWeightsConfig)
    exclude: dict[str, list[str]] = field(default_factory=dict)
    on_error: str = "raise"
    audit: str = "stop"
    cache_gib: float = 0.0
    part_shares: dict[str, float] = field(default_factory=dict)
    epoch_units: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_units", "tiles_per_photo"):
            _check(
                getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "must be at least 1"
            )
        for name in ("workers", "cache_gib"):
            _check(
                getattr(self, name) >= 0, f"data.{name}", getattr(self, name), "must be at least 0"
            )
        _check(0 <= self.focus <= 1, "data.focus", self.focus, "must be in 0..1")
        _check(
            self.on_error in ("raise", "skip"),
            "data.on_error",
            self.on_error,
            "allowed are raise, skip",
        )
        _check(self.audit in ("stop", "warn"), "data.audit", self.audit, "allowed are stop, warn")
        _check_factors("data.class_weights", self.class_weights)
        _check_factors("data.kind_weights", self.kind_weights)
        _check(
            not (self.cache_gib and self.workers),
            "data.cache_gib",
            self.cache_gib,
            f"with data.workers={self.workers} each worker would keep every photo for itself. Set one of them to 0.",
        )
        _check(
            self.epoch_units is None or bool(self.epoch_units >= 1 and self.part_shares),
            "data.epoch_units",
            self.epoch_units,
            "must be at least 1, and needs data.part_shares",
        )


@dataclass
class LossWeightsConfig:
    """Factors of the loss terms.

    tile, patch: of tiles and patches, labelled by the mask.
    photo: of the pooled score of a photo's crops. With data.tiles_per_photo=1 it counts only photos without a mask:
        elsewhere one crop's score would repeat the other two terms.
    """

    tile: float = 1.0
    patch: float = 1.0
    photo: float = 0.5

    def __post_init__(self) -> None:
        _check_factors("model.loss_weights", self)
        if not any(asdict(self).values()):
            raise ConfigError("model.loss_weights: all are 0, so nothing would be learned")


@dataclass
class ModelConfig:
    """The network and how it learns.

    backbone: a timm name, with its tag for pretrained weights.
    tile, overlap, max_side, filter: see `PixelSpec`, in pixels.
    pretrained: start from timm's pretrained weights.
    weights: a file to start from instead: of the backbone, or a .ckpt of realdamage-train.
    drop_path: probability, in [0, 1).
    loss: "bce" or "focal" (`realdamage.training.losses`).
    patch_loss: of the patches alone: "bce", "focal" or "dice" (null: as `loss`).
    lr: peak learning rate of AdamW. It rises over the share `warmup` of all steps, then falls along a cosine to
        `lr * final_lr`.
    """

    backbone: str = MISSING
    tile: int = MISSING
    pretrained: bool = MISSING
    weights: str | None = None
    drop_path: float = 0.0
    overlap: int = 0
    max_side: int = 2048
    filter: str = "lanczos"
    pooling: Pooling = field(default_factory=Pooling)
    loss: str = "bce"
    patch_loss: str | None = None
    loss_weights: LossWeightsConfig = field(default_factory=LossWeightsConfig)
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    final_lr: float = 0.01

    def __post_init__(self) -> None:
        _check(0 < self.lr < math.inf, "model.lr", self.lr, "must be finite and above 0")
        decay = self.weight_decay
        _check(0 <= decay < math.inf, "model.weight_decay", decay, "must be finite and at least 0")
        _check(0 <= self.warmup <= 1, "model.warmup", self.warmup, "must be in 0..1")
        _check(0 <= self.final_lr <= 1, "model.final_lr", self.final_lr, "must be in 0..1")
        _check(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "must be in [0, 1)")


@dataclass
class AdaptConfig:
    """How to fine-tune, see `realdamage.training.adapt`.

    strategy: "full", "lora" or "head".
    layer_decay: factor of the learning rate from one block to the one below, in (0, 1]; for full.
    stem: factor of the learning rate of vit_lite's convolutional stem, in 0..1 (0 freezes it); for full.
    rank, alpha, dropout: of the adapters; for lora.
    """

    strategy: str = "full"
    layer_decay: float = 1.0
    stem: float = 1.0
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        strategies = ("full", "lora", "head")
        allowed = f"allowed are {', '.join(strategies)}"
        _check(self.strategy in strategies, "adapt.strategy", self.strategy, allowed)
        decay = self.layer_decay
        _check(0 < decay <= 1, "adapt.layer_decay", decay, "must be in (0, 1]")
        _check(0 <= self.stem <= 1, "adapt.stem", self.stem, "must be in 0..1")
        _check(self.rank >= 1, "adapt.rank", self.rank, "must be at least 1")
        _check(0 < self.alpha < math.inf, "adapt.alpha", self.alpha, "must be finite and above 0")
        _check(0 <= self.dropout < 1, "adapt.dropout", self.dropout, "must be in [0, 1)")


@dataclass
class TrainerConfig:
    """The arguments of `lightning.Trainer` that a run may set, under Lightning's own names."""

    accelerator: str = "cpu"
    devices: Any = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    max_epochs: int = 10
    max_steps: int = -1
    gradient_clip_val: float | None = 1.0
    accumulate_grad_batches: int = 1
    check_val_every_n_epoch: int = 1
    limit_train_batches: float | int = 1.0
    limit_val_batches: float | int = 1.0
    overfit_batches: float | int = 0
    log_every_n_steps: int = 10
    benchmark: bool = False


@dataclass
class TrainConfig:
    """`realdamage-train`.

    name: of the run and its folder.
    seed: of everything.
    monitor: one of `MONITORED`; chooses the best checkpoint.
    threads: of torch on the CPU (null: all).
    demo: the model is for trying the pipeline and never says "synthetic" unless asked to.
    debug: the run may replace an earlier debug run, but no other.
    resume: "last", the path of a checkpoint, or null.
    overwrite: start over in a folder that holds a run.
    """

    name: str = "train"
    seed: int = 0
    monitor: str = "val/auroc"
    threads: int | None = None
    demo: bool = False
    debug: bool = False
    resume: str | None = None
    overwrite: bool = False
    paths: PathsConfig = field(default_factory=PathsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(
            self.monitor in MONITORED,
            "monitor",
            self.monitor,
            f"allowed are {', '.join(MONITORED)}",
        )


@dataclass
class EvaluateDataConfig:
    """The photos of an evaluation.

    root: folder of photos, or a table of them; `reader` says how they are laid out.
    split: the rows to score (null: all).
    limit: score at most this many, drawn at random by whole groups (null: all).
    on_error: "raise" or "skip", for photos that cannot be read.
    """

    root: str = MISSING
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    split: str | None = "test"
    limit: int | None = None
    on_error: str = "raise"


@dataclass
class RobustnessConfig:
    """Perturbations by name, {title: for people, steps: [{step: NAME, …}, …]}, so that a command line can add or change
    one, or remove it with null. Each photo is also scored unchanged. See `realdamage.evaluation.perturbations`."""

    perturbations: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateConfig:
    """`realdamage-evaluate`.

    checkpoint: a .ckpt or .onnx.
    threads: per photo.
    workers: processes that judge photos (null: one per CPU; a .ckpt always takes one).
    overwrite: drop what an interrupted evaluation with other settings left in the folder.
    format: of the predictions file, "csv" or "parquet".
    shortcuts: also train a classifier on the files' own facts alone, which must stay at chance.
    prior: see `realdamage predict --prior`.
    benchmark: "fraudbench" also prints that benchmark's table; `+benchmark=fraudbench` also sets how the set is read.
    """

    checkpoint: str = MISSING
    name: str = "evaluate"
    seed: int = 0
    threads: int | None = None
    workers: int | None = None
    overwrite: bool = False
    format: str = "csv"
    shortcuts: bool = True
    prior: float | None = None
    paths: PathsConfig = field(default_factory=PathsConfig)
    data: EvaluateDataConfig = field(default_factory=EvaluateDataConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    benchmark: str | None = None


@dataclass
class FoldsDataConfig:
    """root: folder of photos, or a table of them, with splits; `reader` says how they are laid out."""

    root: str = MISSING
    reader: ReaderConfig = field(default_factory=ReaderConfig)


@dataclass
class FoldsConfig:
    """`realdamage-folds`.

    column: of the manifest; its values are left out.
    folds: {NAME: [value, …]}, the values that each fold leaves out (null: all values of synthetic photos, dealt into
        `count` folds).
    stages: experiments trained one after another, each from the weights of the one before.
    overrides: what else realdamage-train is called with, in every stage.
    stage_overrides: {STAGE: [override, …]}, the same for single stages.
    jobs: folds trained at the same time, which share the CPUs.
    limit: score at most this many photos of a fold, drawn at random by whole groups (null: all).
    seed: of that draw, the perturbations and the intervals.
    overwrite: train all folds again.
    """

    name: str = "folds"
    column: str = "family"
    folds: Any = None  # as Any, a command line can replace it whole
    count: int = 6
    stages: list[str] = field(default_factory=lambda: ["vit_lite"])
    overrides: list[str] = field(default_factory=list)
    stage_overrides: Any = None
    jobs: int = 1
    limit: int | None = None
    seed: int = 0
    overwrite: bool = False
    paths: PathsConfig = field(default_factory=PathsConfig)
    data: FoldsDataConfig = field(default_factory=FoldsDataConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)


@dataclass
class ExportConfig:
    """`realdamage-export`.

    checkpoint: a .ckpt.
    output: the .onnx to write (null: model.onnx beside the checkpoint).
    tile, overlap: of the exported model, if its backbone takes any tile (null: as trained).
    overwrite: replace an existing file.
    opset: of ONNX.
    tolerance: largest difference of the probability between torch and the wrapper.
    """

    checkpoint: str = MISSING
    output: str | None = None
    tile: int | None = None
    overlap: int | None = None
    overwrite: bool = False
    name: str = "export"
    opset: int = 20
    tolerance: float = 1e-3
    threads: int | None = None
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass
class SynthesizeConfig:
    """`realdamage-synthesize`. `out`: the folder to fill; `overwrite`: first remove what a recipe made there."""

    out: str = MISSING
    overwrite: bool = False
    name: str = "synthesize"
    paths: PathsConfig = field(default_factory=PathsConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)


COMMANDS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "folds": FoldsConfig,
    "export": ExportConfig,
    "synthesize": SynthesizeConfig,
}


def register() -> None:
    """Makes the schemas known to Hydra; each command's YAML names its own first in its defaults list."""
    for command, schema in COMMANDS.items():
        node = OmegaConf.structured(schema)
        _thaw(node)
        ConfigStore.instance().store(name=f"{command}_schema", node=node)


def _thaw(node: DictConfig) -> None:
    """OmegaConf makes frozen dataclasses read-only, but here they are a form that YAML fills in."""
    OmegaConf.set_readonly(node, None)
    for name in node:
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            _thaw(child)
