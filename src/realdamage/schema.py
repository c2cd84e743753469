"""What a configuration may hold: keys, types, defaults and allowed values, each written once, here.

Hydra merges the YAML files into these dataclasses, so a misspelt key stops the run where it is
written. YAML sets only what differs from the defaults. `OmegaConf.to_object` makes the dataclasses
and raises ConfigError for a value out of range.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from realdamage.core.pooling import Pooling
from realdamage.data.degradations import Degradations
from realdamage.data.vocabulary import KINDS, LABELS
from realdamage.errors import ConfigError
from realdamage.synthesis.prompts import PromptCatalogue
from realdamage.synthesis.recipe import Recipe

MONITORED = ("val/auroc", "val/tpr_at_fpr_1_all_real", "val/localisation_ap")
"""The validation figures that can choose the best checkpoint; higher is better."""

MANY = 1_000_000


def _check_ranges(group: str, values: Any, **ranges: tuple[float, float]) -> None:
    for name, (low, high) in ranges.items():
        value = getattr(values, name)
        if not low <= value <= high:
            raise ConfigError(f"{group}.{name}={value}: must be in {low:g}..{high:g}")


def _check_choices(group: str, values: Any, **choices: tuple[str | None, ...]) -> None:
    for name, allowed in choices.items():
        value = getattr(values, name)
        if value not in allowed:
            raise ConfigError(f"{group}{name}={value}: allowed are {', '.join(map(str, allowed))}")


@dataclass
class PathsConfig:
    """Every path of every command."""

    out: str = MISSING  # where runs go
    run: str = MISSING  # this run's own folder
    data: str = MISSING  # where sets of photos are made and found


@dataclass
class ReaderConfig:
    """How photos are laid out: see `realdamage.data.readers.Reader`."""

    layout: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    relative_to: str = ""


@dataclass
class DataConfig:
    """The photos of a training run, and how crops are drawn from them."""

    root: str = MISSING  # folder of photos, a table of them, or a folder or URL of shards
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    recipe: str | None = None  # makes photos in `root` first if it is empty
    batch_units: int = 16  # pairs or single photos per step and process
    tiles_per_photo: int = 2  # crops of each photo per step
    focus: float = 0.7  # share of an edit's crops that are placed on its mask
    workers: int = 0  # processes that read photos
    degradations: Degradations = field(default_factory=Degradations)
    # Factors on the loss of photos, by label and by kind; a photo has both.
    class_weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LABELS, 1.0))
    kind_weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    # Left out of train and val, by column: {family: [taesd], source: [shop]}.
    exclude: dict[str, list[str]] = field(default_factory=dict)
    on_error: str = "raise"  # raise or skip, for photos that cannot be read
    audit: str = "stop"  # stop or warn, if photos give their label away without the damage
    cache_gib: float = 0.0  # memory for decoded photos (about 20 times their files)
    # Share of the draws for each part of the set; empty: every unit once per epoch. Synthetic
    # photos without an original then get a real partner.
    part_shares: dict[str, float] = field(default_factory=dict)
    # Columns whose values are drawn alike, nested: [family, source]. Simpler than part_shares, and
    # every column will do.
    balance: list[str] = field(default_factory=list)
    epoch_units: int | None = None  # draws per epoch with one of the two; null: as many as units
    # Photos in shards: how many shards are read and mixed at a time, so that each is read once per
    # epoch, from its start to its end; null: photos come from all shards in any order.
    mixed_shards: int | None = None
    # With part_shares, a synthetic photo without an original and its partner are each resized by a
    # factor from this range, so that sharpness does not tell them apart.
    unpaired_scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        _check_ranges("data", self, batch_units=(1, MANY), tiles_per_photo=(1, MANY), focus=(0, 1))
        _check_ranges("data", self, workers=(0, MANY), cache_gib=(0, MANY))
        _check_choices("data.", self, on_error=("raise", "skip"), audit=("stop", "warn"))
        for key, names in (("class_weights", LABELS), ("kind_weights", KINDS)):
            for name, weight in getattr(self, key).items():
                if name not in names or not 0 <= weight <= MANY:
                    raise ConfigError(
                        f"data.{key}.{name}={weight}: allowed are {', '.join(names)}, in 0..{MANY}"
                    )
        if self.cache_gib and self.workers:
            raise ConfigError(
                f"data.cache_gib={self.cache_gib} with data.workers={self.workers}: each worker "
                "would keep every photo for itself. Set one of them to 0."
            )
        low, high = self.unpaired_scale
        if not 0.05 <= low <= high <= 4:
            raise ConfigError(
                f"data.unpaired_scale={list(self.unpaired_scale)}: must rise and lie in 0.05..4"
            )
        if self.part_shares and self.balance:
            raise ConfigError("data.part_shares, data.balance: only one of them may be set")
        drawn = bool(self.part_shares or self.balance)
        if self.mixed_shards is not None and (self.mixed_shards < 1 or drawn):
            raise ConfigError(
                f"data.mixed_shards={self.mixed_shards}: must be at least 1, and goes with neither "
                "data.part_shares nor data.balance, which draw from all shards"
            )
        if self.epoch_units is not None and not (self.epoch_units >= 1 and drawn):
            raise ConfigError(
                f"data.epoch_units={self.epoch_units}: must be at least 1, and needs "
                "data.part_shares or data.balance"
            )


@dataclass
class LossWeightsConfig:
    """Factors of the loss terms. With data.tiles_per_photo=1 the photo term counts only photos
    without a mask: elsewhere one crop's score would repeat the other two terms."""

    tile: float = 1.0  # tiles, labelled by the mask
    patch: float = 1.0  # patches, labelled by the mask
    photo: float = 0.5  # pooled score of a photo's crops

    def __post_init__(self) -> None:
        _check_ranges("model.loss_weights", self, **dict.fromkeys(asdict(self), (0, MANY)))
        if not any(asdict(self).values()):
            raise ConfigError("model.loss_weights: all are 0, so nothing would be learned")


@dataclass
class ModelConfig:
    """The network and how it learns. `tile`, `overlap`, `max_side`, `filter`: see `PixelSpec`."""

    backbone: str = MISSING  # a timm name, with its tag for pretrained weights
    tile: int = MISSING
    pretrained: bool = MISSING
    weights: str | None = None  # to start from: a file of the backbone, or a run's .ckpt or folder
    drop_path: float = 0.0
    overlap: int = 0
    max_side: int = 2048
    filter: str = "lanczos"
    pooling: Pooling = field(default_factory=Pooling)
    loss: str = "bce"  # bce or focal, see training/losses.py
    patch_loss: str | None = None  # of the patches alone: bce, focal or dice; null: as `loss`
    loss_weights: LossWeightsConfig = field(default_factory=LossWeightsConfig)
    lr: float = 1e-3  # peak of AdamW's learning rate
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of all steps in which the rate rises; then it falls as a cosine
    final_lr: float = 0.01  # of `lr`, at the end

    def __post_init__(self) -> None:
        _check_ranges("model", self, lr=(1e-12, MANY), weight_decay=(0, MANY), warmup=(0, 1))
        _check_ranges("model", self, final_lr=(0, 1), drop_path=(0, 0.99))
        _check_choices("model.", self, loss=("bce", "focal"))
        _check_choices("model.", self, patch_loss=(None, "bce", "focal", "dice"))


@dataclass
class AdaptConfig:
    """How to fine-tune, see `realdamage.training.adapt`."""

    strategy: str = "full"  # full, lora or head
    layer_decay: float = 1.0  # full: factor of the rate from one block to the one below
    stem: float = 1.0  # full: factor of the rate of vit_lite's convolutions; 0 freezes them
    rank: int = 8  # lora
    alpha: float = 16.0  # lora
    dropout: float = 0.0  # lora

    def __post_init__(self) -> None:
        _check_choices("adapt.", self, strategy=("full", "lora", "head"))
        _check_ranges("adapt", self, layer_decay=(1e-6, 1), stem=(0, 1), dropout=(0, 0.99))
        _check_ranges("adapt", self, rank=(1, MANY), alpha=(1e-6, MANY))


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
    profiler: Any = None  # simple, advanced or pytorch, or a _target_


@dataclass
class TrainConfig:
    """`realdamage-train`."""

    name: str = "train"  # of the run and its folder
    seed: int = 0
    monitor: str = "val/auroc"  # the figure that chooses the best checkpoint
    threads: int | None = None  # of torch on the CPU; null: all
    demo: bool = False  # the model never says "synthetic" unless asked to
    resume: str | None = None  # "last", or the path of a checkpoint
    overwrite: bool = False  # start over in a folder that holds a run
    paths: PathsConfig = field(default_factory=PathsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_choices("", self, monitor=MONITORED)


@dataclass
class EvaluateDataConfig:
    """The photos of an evaluation."""

    root: str = MISSING  # folder of photos, or a table of them
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    split: str | None = "test"  # null: all photos
    limit: int | None = None  # at most this many photos, drawn by whole groups; null: all
    on_error: str = "raise"  # raise or skip, for photos that cannot be read

    def __post_init__(self) -> None:
        _check_choices("data.", self, on_error=("raise", "skip"))


@dataclass
class RobustnessConfig:
    """Perturbations by name: {title: for people, steps: [{step: NAME, …}, …]}, or null to leave one
    out. Each photo is also scored unchanged. See `realdamage.evaluation.perturbations`."""

    perturbations: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateConfig:
    """`realdamage-evaluate`."""

    checkpoint: str = MISSING  # a .ckpt or .onnx
    name: str = "evaluate"
    seed: int = 0
    threads: int | None = None  # per photo
    workers: int | None = None  # processes; null: one per CPU. A .ckpt always takes one
    overwrite: bool = False  # drop what an interrupted evaluation with other settings left
    format: str = "csv"  # of the predictions file: csv or parquet
    shortcuts: bool = True  # also judge by the files' own facts alone, which must stay at chance
    prior: float | None = None  # see `realdamage predict --prior`
    paths: PathsConfig = field(default_factory=PathsConfig)
    data: EvaluateDataConfig = field(default_factory=EvaluateDataConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    benchmark: str | None = None  # "fraudbench": also print its table (+benchmark=fraudbench)

    def __post_init__(self) -> None:
        _check_choices("", self, format=("csv", "parquet"), benchmark=(None, "fraudbench"))


@dataclass
class FoldsDataConfig:
    """The photos of the folds, with splits."""

    root: str = MISSING  # folder of photos, or a table of them
    reader: ReaderConfig = field(default_factory=ReaderConfig)


@dataclass
class FoldsConfig:
    """`realdamage-folds`."""

    name: str = "folds"
    column: str = "family"  # of the manifest; its values are left out
    # {NAME: [value, …]} or {NAME: {COLUMN: [value, …], …}}: what each fold leaves out; null: all
    # values of synthetic photos, dealt into `count` folds. As Any, a command line can replace it.
    folds: Any = None
    count: int = 6
    train_experiment: str = "vit_lite"  # what each fold trains
    overrides: list[str] = field(default_factory=list)  # of realdamage-train
    # Thresholds of each fold, as of `realdamage calibrate`; where photos are too few for a
    # guarantee, these shares are rates. null: verdicts are not counted.
    alpha: float | None = None
    beta: float | None = None
    kinds: list[str] = field(default_factory=list)
    seed: int = 0  # of the perturbations and the intervals
    overwrite: bool = False  # train all folds again
    paths: PathsConfig = field(default_factory=PathsConfig)
    data: FoldsDataConfig = field(default_factory=FoldsDataConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)


@dataclass
class ExportConfig:
    """`realdamage-export`."""

    # a .ckpt, or a folder of DamageClassifier.save_pretrained; for triton also a calibrated .onnx
    checkpoint: str = MISSING
    target: str = "onnx"  # onnx: one file; triton: the model repository of a Triton server
    # the .onnx or the repository to write; null: model.onnx or models/ next to the checkpoint
    output: str | None = None
    overwrite: bool = False  # replace an existing file
    name: str = "export"
    tolerance: float = 1e-3  # largest difference of the probability from torch
    threads: int | None = None
    paths: PathsConfig = field(default_factory=PathsConfig)

    def __post_init__(self) -> None:
        _check_choices("", self, target=("onnx", "triton"))


@dataclass
class SynthesizeConfig:
    """`realdamage-synthesize`."""

    out: str = MISSING  # the folder to fill
    overwrite: bool = False  # first remove what a recipe made there
    runner: str = "local"  # local: processes of this machine; ray: a Ray cluster
    name: str = "synthesize"
    paths: PathsConfig = field(default_factory=PathsConfig)
    recipe: Recipe = field(default_factory=Recipe)
    prompts: PromptCatalogue = field(default_factory=PromptCatalogue)


COMMANDS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "folds": FoldsConfig,
    "export": ExportConfig,
    "synthesize": SynthesizeConfig,
}


@cache
def register() -> None:
    """Makes the schemas known to Hydra; each command's YAML names its own first in its defaults
    list."""
    for command, schema in COMMANDS.items():
        node = OmegaConf.structured(schema)
        _thaw(node)
        ConfigStore.instance().store(name=f"{command}_schema", node=node)


def _thaw(node: DictConfig) -> None:
    """OmegaConf makes frozen dataclasses read-only, but here YAML fills them in."""
    OmegaConf.set_readonly(node, None)
    for name in node:
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            _thaw(child)
