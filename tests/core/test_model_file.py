"""A model file describes itself; one that was damaged or changed is refused; files are whole or
absent."""

import errno
import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realdamage.core.detector import PACKAGED_MODEL, Detector
from realdamage.core.model_file import (
    FORMAT_VERSION,
    graph_sha256,
    read_model_file,
    split_metadata,
    with_metadata,
    write_model_file,
)
from realdamage.errors import MissingModelError, ModelFileError, RealDamageError
from realdamage.files import write_atomically

SAMPLE = Path(__file__).parents[2] / "data" / "sample" / "photos"


def test_the_round_trip(red_metadata, write_red_model, red_network):
    path = write_red_model()
    data, again, digest = read_model_file(path)
    assert again == red_metadata
    assert data == path.read_bytes()
    assert digest == graph_sha256(red_network)
    write_model_file(path, data, replace(red_metadata, model_version="new", calibration=None))
    _, again, digest_again = read_model_file(path)
    assert (again.model_version, again.calibration, digest_again) == ("new", None, digest)


@pytest.fixture
def written(write_red_model):
    return write_red_model().read_bytes()


def edit(path, change, *, sign=False):
    """Change the metadata; sign: with a new digest, as another version would write them."""
    data = path.read_bytes()
    values = json.loads(split_metadata(data)[1]["realdamage"])
    change(values)
    if sign:
        graph, _ = values.pop("graph_sha256"), values.pop("policy_sha256")
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        values.update(graph_sha256=graph, policy_sha256=digest)
    path.write_bytes(with_metadata(data, {"realdamage": json.dumps(values)}))


def test_older_files_are_read(red_metadata, write_red_model):
    def older(values):
        del values["policy"]["worst_source"], values["policy"]["gate"]
        del values["calibration"]["knots"]

    path = write_red_model()
    edit(path, older, sign=True)
    assert read_model_file(path)[1] == red_metadata


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda values: values["policy"].update(t_synthetic=9.0), "metadata_changed"),
        (lambda values: values.pop("graph_sha256"), "graph_changed"),
        (lambda values: values.update(format_version=FORMAT_VERSION + 1, new=1), "format_version"),
        (lambda values: values.pop("pooling"), "'pooling' is missing"),
        (lambda values: values.update(colour="red"), "'colour'"),
        (lambda values: values["pixel_spec"].update(tile=100), "pixel_spec: .*tile=100"),
        (lambda values: values["policy"].update(fpr="0.01"), "policy.fpr: expected float"),
        (lambda values: values["policy"].update(t_sinthetic=1), "did you mean t_synthetic"),
        (lambda values: values.update(labels=["real", 1]), r"labels\[1\]: expected str"),
    ],
)
def test_changed_metadata_are_refused(write_red_model, change, found):
    path = write_red_model()
    edit(path, change)
    with pytest.raises(ModelFileError, match=r"red\.onnx: ") as caught:
        read_model_file(path)
    assert found == caught.value.code or caught.match(found)


def test_other_metadata_are_refused(tmp_path, red_network):
    path = tmp_path / "model.onnx"
    for key, text in (
        ("author", "somebody"),
        *(("realdamage", other) for other in ("", "[]", '{"format_version": NaN}')),
    ):
        path.write_bytes(with_metadata(red_network, {key: text}))
        with pytest.raises(ModelFileError, match=r"model\.onnx: ") as caught:
            read_model_file(path)
        assert (caught.value.code == "no_metadata") == (key == "author")


@given(data=st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_flipped_bit_and_any_cut_is_noticed(data, written, tmp_path):
    content = bytearray(written)
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[position:]
    (tmp_path / "red.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"red\.onnx: "):
        read_model_file(tmp_path / "red.onnx")


def test_nothing_is_written_of_a_wrong_model(write_red_model, red_metadata, tmp_path):
    for metrics in ({"auroc": math.nan}, {"path": Path("x")}):
        with pytest.raises(ModelFileError):
            write_red_model(metrics=metrics)
    with pytest.raises(ModelFileError) as caught:
        write_model_file(tmp_path / "model.onnx", b"no model", red_metadata)
    assert caught.value.code == "not_onnx"
    assert not list(tmp_path.rglob("*.onnx"))
    with pytest.raises(MissingModelError, match=r"no\.onnx"):
        read_model_file(tmp_path / "no.onnx")


@given(entries=st.dictionaries(st.text(), st.text(max_size=300)))
@settings(max_examples=30, deadline=None)
def test_the_onnx_package_reads_what_we_write(entries, red_network):
    data = with_metadata(with_metadata(red_network, {"old": "1"}), entries)
    model = onnx.load_from_string(data)
    assert {entry.key: entry.value for entry in model.metadata_props} == entries
    assert split_metadata(data) == (red_network, entries)
    assert graph_sha256(data) == graph_sha256(red_network)


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, fails):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_atomically(path, b"old")
    write_atomically(str(path), b"new")
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, fails, Mock(side_effect=full))
        with pytest.raises(RealDamageError, match="No space left on device"):
            write_atomically(path, b"newer")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(RealDamageError, match=r"file\.bin/model\.onnx") as caught:
        write_atomically(path / "model.onnx", b"")
    assert caught.value.code == "cannot_write"


def test_the_packaged_model_is_small_calibrated_and_accuses_no_photo_of_the_sample():
    data, metadata, _ = read_model_file(PACKAGED_MODEL)
    card = PACKAGED_MODEL.with_suffix(".md").read_text()
    assert len(data) <= 12e6
    assert not metadata.demo
    assert metadata.calibration is not None
    assert metadata.policy is not None
    assert metadata.policy.t_real < metadata.policy.t_synthetic
    assert hashlib.sha256(data).hexdigest() in card
    assert "deployed generators" in card.splitlines()[0]
    wholes = sorted(SAMPLE.glob("*_ai_whole.jpg"))
    reals = [one for whole in wholes for one in SAMPLE.glob(f"{whole.name[:6]}_[od]*.jpg")]
    assert len(wholes) == len(reals) == 6
    detector = Detector(threads=1)
    before, after = detector.predict(reals), detector.predict(wholes)
    assert "synthetic" not in {verdict.outcome for verdict in before}
    higher = [one.score > other.score for one, other in zip(after, before, strict=True)]
    assert sum(higher) >= 5
