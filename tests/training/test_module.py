"""The loss counts what is known and nothing else; checkpoints hold averaged weights and load
without a download."""

import json

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from realdamage.core.detector import Detector
from realdamage.core.pooling import Pooling, pool
from realdamage.data.manifest import read_manifest
from realdamage.errors import ModelFileError
from realdamage.evaluation.predictions import score_manifest
from realdamage.schema import AdaptConfig, LossWeightsConfig, ModelConfig
from realdamage.training.losses import LOSSES, dice
from realdamage.training.module import DamageClassifier, load_classifier, model_metadata
from realdamage.training.network import TorchScorer

NAN = float("nan")


def tiny_classifier(**options):
    torch.manual_seed(0)
    return DamageClassifier(ModelConfig("test_vit", 64, False, **options))


def batch_of(labels, *, masks=True, tiles=2):
    """Photos of the given labels; without masks the synthetic ones have no labelled tile."""
    photos = len(labels)
    label = torch.tensor(labels).repeat_interleave(tiles)
    label = torch.where(label == 1.0, label if masks else torch.full_like(label, NAN), label)
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (photos * tiles, 64, 64, 3), generator=generator)
    return {
        "tiles": pixels.to(torch.uint8),
        "tile_label": label,
        "patch_share": label[:, None, None].expand(-1, 4, 4).clone(),
        "photo_label": torch.tensor(labels),
        "photo_weight": torch.ones(photos),
        "skipped": [],
    }


def loss_terms(classifier, batch):
    logit, evidence = classifier.eval()(batch["tiles"])
    return classifier.loss_terms(batch, logit, evidence)


def test_the_terms_are_the_binary_cross_entropies_of_tile_patch_and_photo():
    classifier, batch = tiny_classifier(), batch_of([0.0, 1.0, 1.0], tiles=3)
    logit, evidence = classifier.eval()(batch["tiles"])
    photos = [slice(3 * i, 3 * i + 3) for i in range(3)]
    score = torch.stack([pool(logit[each], evidence[each], Pooling(), torch) for each in photos])
    terms = classifier.loss_terms(batch, logit, evidence)
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(terms["tile"], bce(logit, batch["tile_label"]))
    torch.testing.assert_close(terms["patch"], bce(evidence, batch["patch_share"]))
    torch.testing.assert_close(terms["photo"], bce(score, batch["photo_label"]))


def test_a_synthetic_photo_without_mask_teaches_through_its_photo_score_alone():
    classifier = tiny_classifier()
    both, real = batch_of([0.0, 1.0], masks=False), batch_of([0.0])
    real["tiles"] = both["tiles"][:2]
    terms, expected = loss_terms(classifier, both), loss_terms(classifier, real)
    torch.testing.assert_close(terms["tile"], expected["tile"])
    torch.testing.assert_close(terms["patch"], expected["patch"])
    assert not torch.isclose(terms["photo"], expected["photo"])
    only_synthetic = loss_terms(classifier, batch_of([1.0], masks=False))
    assert only_synthetic["tile"].item() == only_synthetic["patch"].item() == 0.0
    only_synthetic["tile"].backward()  # 0, yet part of the graph: ddp's processes stay together
    loss_terms(classifier, batch_of([1.0], masks=False))["photo"].backward()
    gradient = classifier.network.patch_head.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_one_crop_of_a_photo_with_a_mask_trains_no_photo_score():
    """The wrapper pools the whole photo; the score of one crop says nothing that tile and patches
    don't."""
    masked, unmasked = (batch_of([0.0, 1.0], masks=masks, tiles=1) for masks in (True, False))
    weights = LossWeightsConfig(0.0, 0.0, 1.0)
    assert float(tiny_classifier(loss_weights=weights).training_step(masked, 0)) == 0.0
    assert float(tiny_classifier(loss_weights=weights).training_step(unmasked, 0)) > 0.1


def test_losses_are_chosen_by_name():
    batch = batch_of([0.0, 1.0])
    plain = loss_terms(tiny_classifier(), batch)
    focused = loss_terms(tiny_classifier(loss="focal"), batch)
    assert all(0 < focused[name] < plain[name] for name in plain)
    patches = loss_terms(tiny_classifier(patch_loss="dice"), batch)
    assert [name for name in plain if not torch.isclose(patches[name], plain[name])] == ["patch"]


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_labels_count_for_nothing_and_without_any_the_loss_is_0(name):
    logit = torch.tensor([-2.0, 1.0, 3.0], requires_grad=True)
    label, weight = torch.tensor([0.0, 1.0, NAN]), torch.tensor([1.0, 2.0, 5.0])
    known = LOSSES[name](logit[:2], label[:2], weight[:2])
    torch.testing.assert_close(LOSSES[name](logit, label, weight), known)
    nothing = LOSSES[name](logit, torch.full((3,), NAN), weight)
    nothing.backward()
    assert nothing.item() == 0.0


def test_dice_has_its_published_value():
    logit, label, weight = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]), torch.ones(2)
    p = logit.sigmoid()
    overlap = (2 * 0.5 + 1) / (0.5 + p[1] + 1 + 1)
    torch.testing.assert_close(dice(logit, label, weight), 1 - overlap)
    assert dice(torch.tensor([20.0, -20.0]), label, weight).item() == pytest.approx(0, abs=1e-6)


def test_validation_ranks_scores_that_a_float32_probability_cannot_tell_apart():
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


def test_the_best_figure_is_that_of_the_wrapper_on_the_same_photos(tiny_run, tiny_manifest):
    """torchmetrics over validation batches against scikit-learn over the wrapper's scores."""
    classifier = load_classifier(tiny_run / "best.ckpt")
    detector = Detector(TorchScorer(classifier.network), model_metadata(classifier))
    predictions, _ = score_manifest(detector, read_manifest(tiny_manifest).select(split="val"))
    expected = roc_auc_score(predictions["label"] == "synthetic", predictions["score"])
    assert classifier.validation_figures["val/auroc"] == pytest.approx(expected, abs=1e-6)


class TestLoading:
    @pytest.fixture
    def no_download(self, monkeypatch):
        def refuse(*_, **__):
            raise AssertionError("a checkpoint was loaded by downloading weights")

        monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)
        monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)

    @staticmethod
    def changed(tiny_run, to, **hparams):
        checkpoint = torch.load(tiny_run / "best.ckpt", weights_only=True)
        checkpoint["hyper_parameters"].update(hparams)
        torch.save(checkpoint, to)
        return to

    def test_hyper_parameters_are_primitives(self, tiny_run):
        checkpoint = torch.load(tiny_run / "best.ckpt", weights_only=True)

        def plain(value):
            if isinstance(value, dict):
                return all(plain(key) and plain(inner) for key, inner in value.items())
            if isinstance(value, list | tuple):
                return all(plain(inner) for inner in value)
            return type(value) in (str, int, float, bool, type(None))

        assert plain(checkpoint["hyper_parameters"])
        assert plain(checkpoint["datamodule_hyper_parameters"])

    def test_pretrained_weights_are_not_asked_for_again(self, tiny_run, tmp_path, no_download):
        asking = {"backbone": "test_vit.r160_in1k", "pretrained": True, "weights": "gone.pth"}
        loaded = load_classifier(self.changed(tiny_run, tmp_path / "a.ckpt", **asking))
        state = load_classifier(tiny_run / "best.ckpt").state_dict()
        assert not loaded.training
        assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)

    def test_it_remembers_what_it_was_trained_on(self, tiny_run, tiny_manifest):
        metadata = model_metadata(load_classifier(tiny_run / "best.ckpt"))
        expected = {
            "experiment": "tiny",
            "manifest_sha256": read_manifest(tiny_manifest).digest(),
            "photos": {"real": 10, "synthetic": 12},
            "generators": ["even", "odd"],
            "excluded": {},
        }
        assert expected.items() <= metadata.training.items()
        assert metadata.training["audit"]["verdict"] == "passed"
        assert metadata.backbone == "test_vit"
        assert metadata.calibration is None
        assert set(metadata.metrics) == {"val/auroc", "val/localisation_ap", "val/photos"}

    def test_a_folder_of_safetensors_works_wherever_a_checkpoint_does(
        self, tiny_run, tmp_path, no_download
    ):
        saved = load_classifier(tiny_run / "best.ckpt")
        folder = saved.save_pretrained(tmp_path / "model")
        assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json"}
        config = json.loads((folder / "config.json").read_text())
        assert config["training"]["generators"] == ["even", "odd"]
        assert config["backbone"] == "test_vit"
        (folder / "config.json").unlink()  # it is for people only
        for loaded in (DamageClassifier.from_pretrained(folder), load_classifier(folder)):
            state = loaded.state_dict()
            assert all(torch.equal(state[name], own) for name, own in saved.state_dict().items())
            assert model_metadata(loaded) == model_metadata(saved)
        warm = DamageClassifier(ModelConfig("test_vit", 64, False, weights=str(folder)))
        assert torch.equal(warm.network.patch_head.weight, saved.network.patch_head.weight)
        assert warm.trained_on == {"generators": ["even", "odd"]}

    def test_saved_adapters_are_merged_and_the_classifier_keeps_its_own(self, tmp_path):
        torch.manual_seed(0)
        adapt = AdaptConfig("lora", rank=2)
        classifier = DamageClassifier(ModelConfig("test_vit", 64, False), adapt).eval()
        for name, parameter in classifier.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        loaded = DamageClassifier.from_pretrained(classifier.save_pretrained(tmp_path))
        pixels = batch_of([0.0, 1.0])["tiles"]
        torch.testing.assert_close(loaded(pixels), classifier(pixels))
        assert any("lora_A" in name for name in classifier.state_dict())
        assert not any("lora_A" in name for name in loaded.state_dict())

    def test_the_hub_is_asked_for_what_is_no_folder(self, tmp_path, monkeypatch):
        folder = tiny_classifier().save_pretrained(tmp_path / "snapshot")
        asked = []

        def download(*names, revision):
            if names[0] == "shop/gone":
                raise OSError("no such repository")
            asked.append((*names, revision))
            return str(folder / names[1])

        monkeypatch.setattr("realdamage.training.module.hf_hub_download", download)
        assert DamageClassifier.from_pretrained("shop/model", revision="v1").model.tile == 64
        assert asked == [("shop/model", "model.safetensors", "v1")]
        with pytest.raises(ModelFileError, match="shop/gone") as caught:
            DamageClassifier.from_pretrained("shop/gone")
        assert caught.value.code == "download_failed"

    @pytest.mark.parametrize("hparams", [{"tile": 32}, {"depth": 2}])
    def test_weights_of_another_architecture_are_refused(self, hparams, tiny_run, tmp_path):
        with pytest.raises(ModelFileError, match=r"x\.ckpt") as caught:
            load_classifier(self.changed(tiny_run, tmp_path / "x.ckpt", **hparams))
        assert caught.value.code == "other_architecture"

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            (None, "no_such_file"),
            ({"state_dict": {}, "hyper_parameters": {"hidden": 3}}, "no_checkpoint"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path, content, code):
        path = tmp_path / "x.ckpt"
        if content is not None:
            torch.save(content, path)
        with pytest.raises(ModelFileError, match=r"x\.ckpt") as caught:
            load_classifier(path)
        assert caught.value.code == code
