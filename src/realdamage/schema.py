"""The shape of every configuration: what may be set, of which type, with which default.

Hydra merges the YAML files into these dataclasses, so a misspelt key stops the run where it is written. What a value
means stands with the class that takes it (`DamageClassifier`, `DamageDataModule`, `Recipe`, …).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from realdamage.schema_recipe import PromptsConfig, RecipeConfig


@dataclass
class PathsConfig:
    """Every path of every command goes through here. `out`: where runs go; `run`: this run's own folder; `data`: where
    sets of photos are made and looked for."""

    out: str = MISSING
    run: str = MISSING
    data: str = MISSING


@dataclass
class DegradationsConfig:
    """See `realdamage.data.degradations.Degradations`."""

    probability: float = 0.0
    resize: float = 0.3
    scale: list[float] = field(default_factory=lambda: [0.5, 1.0])
    blur: float = 0.1
    blur_sigma: list[float] = field(default_factory=lambda: [0.3, 1.0])
    noise: float = 0.1
    noise_sigma: list[float] = field(default_factory=lambda: [1.0, 5.0])
    jpeg: float = 0.8
    webp: float = 0.1
    quality: list[int] = field(default_factory=lambda: [50, 95])
    double: float = 0.2
    curriculum_epochs: int = 0
    filters: list[str] = field(default_factory=lambda: ["bilinear", "bicubic", "lanczos", "box"])


@dataclass
class ReaderConfig:
    """See `realdamage.data.readers.Reader`; the same keys as the file of `realdamage manifest --columns`."""

    layout: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)


@dataclass
class ClassWeightsConfig:
    """Factor on the loss of photos of a label; one for each of `realdamage.data.vocabulary.LABELS`."""

    real: float = 1.0
    synthetic: float = 1.0


@dataclass
class KindWeightsConfig:
    """Factor on the loss of photos of a kind, beside that of their label; one for each of
    `realdamage.data.vocabulary.KINDS`."""

    original: float = 1.0
    damaged: float = 1.0
    annotated: float = 1.0
    ai_region: float = 1.0
    ai_whole: float = 1.0
    pasted: float = 1.0


@dataclass
class DataConfig:
    """See `realdamage.training.datamodule.DamageDataModule`."""

    root: str = MISSING
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    recipe: str | None = None
    batch_units: int = 16
    tiles_per_photo: int = 2
    focus: float = 0.7
    workers: int = 0
    degradations: DegradationsConfig = field(default_factory=DegradationsConfig)
    class_weights: ClassWeightsConfig = field(default_factory=ClassWeightsConfig)
    kind_weights: KindWeightsConfig = field(default_factory=KindWeightsConfig)
    exclude: dict[str, list[str]] = field(default_factory=dict)
    on_error: str = "raise"
    audit: str = "stop"
    cache_gib: float = 0.0
    part_shares: dict[str, float] = field(default_factory=dict)
    epoch_units: int | None = None


@dataclass
class PoolingConfig:
    """See `realdamage.core.pooling.Pooling`."""

    name: str = "log_mean_exp"
    tile_sharpness: float = 3.0
    patch_sharpness: float = 4.0
    patch_weight: float = 0.5


@dataclass
class LossConfig:
    """See `realdamage.training.classifier.LossWeights`."""

    tile: float = 1.0
    patch: float = 1.0
    photo: float = 0.5


@dataclass
class ModelConfig:
    """See `realdamage.training.classifier.DamageClassifier`."""

    backbone: str = MISSING
    tile: int = MISSING
    pretrained: bool = MISSING
    weights: str | None = None
    drop_path: float = 0.0
    overlap: int = 0
    max_side: int = 2048
    filter: str = "lanczos"
    pooling: PoolingConfig = field(default_factory=PoolingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    final_lr: float = 0.01
    compile: bool = False


@dataclass
class AdaptConfig:
    """See `realdamage.training.adaptation.Adaptation`."""

    strategy: str = "full"
    layer_decay: float = 1.0
    stem: float = 1.0
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0


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
    max_time: str | None = None
    gradient_clip_val: float | None = 1.0
    accumulate_grad_batches: int = 1
    check_val_every_n_epoch: int = 1
    num_sanity_val_steps: int = 0
    limit_train_batches: float | int = 1.0
    limit_val_batches: float | int = 1.0
    overfit_batches: float | int = 0
    fast_dev_run: bool = False
    log_every_n_steps: int = 10
    deterministic: bool = False
    detect_anomaly: bool = False
    benchmark: bool = False


@dataclass
class TrainConfig:
    """`train.py`. `name`: of the run and its folder; `monitor`: the one figure by which the best checkpoint is kept
    (higher is better);
    `seed`: of everything, 0 included; `threads`: of torch on the CPU (null: all it may use); `demo`: the model is for
    trying the pipeline and never says "synthetic" unasked; `debug`: the run may replace an earlier debug run, but no
    other; `resume`: "last", a checkpoint's path, or null;
    `overwrite`: start over in a folder that holds a run."""

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


@dataclass
class EvaluateDataConfig:
    """`root`: folder of photos, or a table of them; `reader`: how they lie there; `split`: the rows to score, null for
    all; `limit`: score so many of them at most, drawn at random by whole groups (null: all); `on_error`: "raise" or
    "skip" for photos that can't be read."""

    root: str = MISSING
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    split: str | None = "test"
    limit: int | None = None
    on_error: str = "raise"


@dataclass
class RobustnessConfig:
    """What each photo is put through, beside being scored as it is: {title: for people, steps: [{step: NAME, …}, …]}
    under each name, so that a command line can add one, change one, or take it out with null. See
    `realdamage.evaluation.perturbations`."""

    perturbations: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateConfig:
    """`evaluate.py`. `checkpoint`: a .ckpt or .onnx; `threads`: of one photo's judgement; `workers`: processes that
    judge photos side by side (null: as many as CPUs; a .ckpt is judged in one); `overwrite`: drop what an interrupted
    evaluation with other settings left in the folder; `format`: of the predictions file, csv or parquet; `shortcuts`:
    also train a classifier on the files' own facts alone, which must stay at chance; `prior`: see
    `realdamage predict --prior`; `benchmark`: whose table to print besides, "fraudbench" or null (give it as
    `+benchmark=fraudbench`, which also says how that set is read)."""

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
    """`root`: folder of photos, or a table of them, with splits; `reader`: how they lie there."""

    root: str = MISSING
    reader: ReaderConfig = field(default_factory=ReaderConfig)


@dataclass
class FoldsConfig:
    """`folds.py`. `column`: of the manifest, whose values are left out; `folds`: the values that each leaves out, by
    its name (null: all values of synthetic photos, dealt into `count` folds); `stages`: experiments, trained one after
    another, each from the weights of the one before; `overrides`: what else realdamage-train is called with, in every
    stage; `stage_overrides`: the same for single stages, by their name; `jobs`: folds trained side by side, which share
    the CPUs; `limit`: score so many photos of a fold at most, drawn at random by whole groups (null: all); `seed`: of
    that draw, the perturbations and the intervals; `overwrite`: train all folds anew."""

    name: str = "folds"
    column: str = "family"
    folds: Any = None  # {NAME: [value, …]}; as Any it can be replaced whole on a command line
    count: int = 6
    stages: list[str] = field(default_factory=lambda: ["vit_lite"])
    overrides: list[str] = field(default_factory=list)
    stage_overrides: Any = None  # {STAGE: [override, …]}
    jobs: int = 1
    limit: int | None = None
    seed: int = 0
    overwrite: bool = False
    paths: PathsConfig = field(default_factory=PathsConfig)
    data: FoldsDataConfig = field(default_factory=FoldsDataConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)


@dataclass
class ExportConfig:
    """`export.py`. `checkpoint`: a .ckpt; `output`: the .onnx to write (null: model.onnx beside the checkpoint);
    `tile`, `overlap`: of the exported model, where its backbone takes any tile (null: as trained); `overwrite`: replace
    a file that is there; `opset`: of ONNX; `tolerance`: largest difference of the probability between torch and the
    wrapper on the awkward photos."""

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
    """`synthesize.py`. `out`: the folder to fill; `overwrite`: remove what a recipe made there first."""

    out: str = MISSING
    overwrite: bool = False
    name: str = "synthesize"
    paths: PathsConfig = field(default_factory=PathsConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)


def register() -> None:
    """Makes the schemas known to Hydra; each command's YAML names its own first in its defaults list."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="folds_schema", node=FoldsConfig)
    store.store(name="export_schema", node=ExportConfig)
    store.store(name="synthesize_schema", node=SynthesizeConfig)
