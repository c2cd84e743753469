"""Models in folders laid out as on the Hugging Face Hub, and on a stubbed Hub."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from realdamage.core.detector import Detector
from realdamage.errors import MissingExtraError, MissingModelError, ModelFileError, UsageError

huggingface_hub = pytest.importorskip("huggingface_hub")
yaml = pytest.importorskip("yaml")
Models = Callable[..., Path]
THREE = ["README.md", "config.json", "model.onnx"]


@pytest.fixture
def detector(write_red_model):
    return Detector(write_red_model(metrics={"auroc": 0.75, "tpr_at_fpr_1": None}))


def front_matter(folder):
    _, front, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_saved_folder_is_loaded_again(detector, tmp_path):
    assert detector.path is not None
    folder = detector.save_pretrained(tmp_path / "saved", licence="Apache-2.0")
    assert sorted(path.name for path in folder.iterdir()) == THREE
    assert (folder / "model.onnx").read_bytes() == detector.path.read_bytes()
    again = Detector.from_pretrained(str(folder), prior=0.1)
    assert (again.policy_sha256, again.prior) == (detector.policy_sha256, 0.1)
    config = json.loads((folder / "config.json").read_text())
    assert config["graph_sha256"] == detector.graph_sha256
    assert config["pixel_spec"]["tile"] == 32
    front, text = front_matter(folder)
    assert (front["license"], front["library_name"]) == ("apache-2.0", "realdamage")
    assert "from_pretrained" in text
    (result,) = front["model-index"][0]["results"]  # the other figure is None
    assert result["metrics"] == [{"type": "roc_auc", "value": 0.75, "name": "AUROC"}]
    # The model's own card is kept; our files are replaced, those of something else are not.
    card = "# Model card\n\n| licence | MIT |\n"
    detector.path.with_suffix(".md").write_text(card)
    assert front_matter(detector.save_pretrained(folder))[1].lstrip("\n") == card
    for name in ("README.md", "config.json"):
        before = (folder / name).read_text()
        (folder / name).write_text("my project")
        (folder / "model.onnx").unlink(missing_ok=True)
        with pytest.raises(UsageError) as caught:
            detector.save_pretrained(folder)
        assert caught.value.code == "other_files"
        assert not (folder / "model.onnx").exists()
        (folder / name).write_text(before)


def test_a_download(detector, monkeypatch):
    asked = []

    def download(*words, revision):
        asked.append((*words, revision))
        if revision is None:
            raise OSError("no network")
        return str(detector.path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    found = Detector.from_pretrained("user/model", revision="v2")
    assert found.graph_sha256 == detector.graph_sha256
    assert asked == [("user/model", "model.onnx", "v2")]
    with pytest.raises(ModelFileError, match="user/model") as caught:
        Detector.from_pretrained("user/model")
    assert caught.value.code == "download_failed"


def test_an_upload(detector, tmp_path, monkeypatch):
    hub = Mock()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    detector.save_pretrained(tmp_path, push_to_hub=True, repo_id="user/model", private=True)
    hub.create_repo.assert_called_once_with("user/model", private=True, exist_ok=True)
    given = hub.upload_folder.call_args.kwargs
    assert (given["repo_id"], given["folder_path"]) == ("user/model", tmp_path)
    assert sorted(given["allow_patterns"]) == THREE
    hub.create_repo.side_effect = OSError("no access")
    with pytest.raises(ModelFileError) as caught:
        detector.save_pretrained(tmp_path, push_to_hub=True, repo_id="user/model")
    assert caught.value.code == "upload_failed"
    with pytest.raises(UsageError):
        detector.save_pretrained(tmp_path, push_to_hub=True)


def test_what_cannot_be_saved_or_loaded(detector, tmp_path, monkeypatch):
    for source, code in ((tmp_path, "no_model_in_folder"), (tmp_path / "a/b", "no_such_folder")):
        with pytest.raises(MissingModelError) as caught:
            Detector.from_pretrained(source)
        assert caught.value.code == code
    bare = Detector(lambda tiles: (np.zeros(1), np.zeros(1)), detector.metadata)
    with pytest.raises(UsageError):
        bare.save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"realdamage\[hub\]"):
        Detector.from_pretrained("user/model")
    with pytest.raises(MissingExtraError, match=r"realdamage\[hub\]"):
        detector.save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.*")) == []
