"""Every experiment composes and builds: trainer, callbacks, loggers, data module and network,
without any download."""

import pytest
import timm
import torch
from omegaconf import OmegaConf

from realdamage.configuration import compose, config_folder, plain
from realdamage.synthesis.recipe import recipe_from_config
from realdamage.training.callbacks import AtomicCheckpoints
from realdamage.training.module import DamageClassifier
from realdamage.training.run import build

EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))
MODELS = sorted(path.stem for path in (config_folder() / "model").glob("*.yaml"))
RECIPES = sorted(path.stem for path in (config_folder() / "recipe").glob("*.yaml"))


@pytest.fixture
def asked(monkeypatch):
    """timm makes a backbone of two narrow blocks with random weights, and we note what it was asked
    for."""
    create = timm.create_model
    names = []

    def stub(name, pretrained=False, **options):
        names.append((name, pretrained))
        return create(name, depth=2, embed_dim=48, num_heads=3, **options)

    monkeypatch.setattr(timm, "create_model", stub)
    return names


@pytest.fixture
def composed(tmp_path):
    """A training configuration in `tmp_path`, on the CPU whatever the experiment says."""

    def make(*overrides):
        return compose(
            "train", [*overrides, "trainer=cpu", f"paths.run={tmp_path}", f"paths.out={tmp_path}"]
        )

    return make


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds(experiment, composed, asked, tmp_path):
    config = composed(f"+experiment={experiment}")
    trainer, classifier, datamodule = build(config)
    assert config.name == experiment
    assert asked == [(config.model.backbone, config.model.pretrained)]
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpoints)
    best = trainer.checkpoint_callback
    assert best.monitor == config.monitor == "val/auroc"
    assert datamodule.spec == classifier.pixel_spec
    tiles = torch.zeros(1, config.model.tile, config.model.tile, 3, dtype=torch.uint8)
    logit, evidence = classifier.eval()(tiles)
    assert logit.shape == (1,)
    assert evidence.shape == (1, *(config.model.tile // classifier.pixel_spec.patch,) * 2)
    learning = {
        name for name, parameter in classifier.network.named_parameters() if parameter.requires_grad
    }
    backbone = {name for name in learning if name.startswith("backbone")}
    strategy = config.adapt.strategy
    assert learning - backbone == {
        "patch_head.weight",
        "patch_head.bias",
        "tile_head.weight",
        "tile_head.bias",
    }
    assert bool(backbone) == (strategy != "head")
    assert all("lora" in name for name in backbone) == (strategy != "full")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_config_fits_its_backbone(model, composed, asked):
    """Tile, overlap and patch agree, and the tag names weights that this timm knows."""
    config = composed(f"model={model}", "adapt=full")
    classifier = DamageClassifier(OmegaConf.to_object(config.model))
    assert classifier.pixel_spec.overlap % classifier.pixel_spec.patch == 0
    assert asked == [(config.model.backbone, config.model.pretrained)]
    if config.model.pretrained:
        packaged = config.model.backbone.startswith("vit_lite")  # weights from a package, no hub
        assert packaged or config.model.backbone in timm.list_pretrained()
        licence = classifier.network.backbone.pretrained_cfg["license"]
        assert (licence == "apache-2.0") == (model != "dinov3_small")
    lowest, highest = classifier.network.mean.min(), classifier.network.mean.max()
    assert 100 < lowest <= highest < 140  # of the backbone's own settings, in grey levels


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes_into_a_recipe(recipe, tmp_path):
    roots = {"recipe.source.root": str(tmp_path)}
    if recipe == "reference":
        roots |= {f"recipe.include.{name}.root": str(tmp_path) for name in ("generated", "wild")}
    config = compose(
        "synthesize", [f"+recipe={recipe}", *(f"{key}={root}" for key, root in roots.items())]
    )
    built = recipe_from_config(plain(config.recipe))
    assert built.name == recipe
    assert sum(built.fractions.values()) == pytest.approx(1.0)
    assert built.loadable()
