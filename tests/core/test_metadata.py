"""A model file says everything about itself, and one that was damaged or tampered with is refused."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realdamage.core.model_file import (
    FORMAT_VERSION,
    ModelMetadata,
    graph_sha256,
    read_model_file,
    split_metadata,
    with_metadata,
    write_model_file,
)
from realdamage.errors import ModelFileError


def test_the_round_trip(
    metadata: ModelMetadata, write_red_model: Callable[..., Path], red_network: bytes
) -> None:
    path = write_red_model()
    data, again, digest = read_model_file(path)
    assert again == metadata
    assert data == path.read_bytes()
    assert digest == graph_sha256(red_network)


def test_an_uncalibrated_model_survives_the_round_trip(
    write_red_model: Callable[..., Path],
) -> None:
    _, metadata, _ = read_model_file(write_red_model(calibration=None, policy=None, demo=True))
    assert (metadata.calibration, metadata.policy, metadata.demo) == (None, None, True)


def test_whole_numbers_where_a_float_belongs_do_not_break_the_digest(
    metadata: ModelMetadata, write_red_model: Callable[..., Path]
) -> None:
    policy = replace(metadata.policy, fpr=0, t_synthetic=2)  # type: ignore[type-var]
    _, again, _ = read_model_file(write_red_model(policy=policy))
    assert again.policy == policy


def test_new_metadata_keeps_the_graph_and_its_digest(
    metadata: ModelMetadata, write_red_model: Callable[..., Path]
) -> None:
    path = write_red_model()
    data, _, digest = read_model_file(path)
    write_model_file(path, data, replace(metadata, model_version="calibrated"))
    _, again, digest_again = read_model_file(path)
    assert (again.model_version, digest_again) == ("calibrated", digest)


def test_a_file_without_our_metadata_says_what_to_do(tmp_path: Path, red_network: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(with_metadata(red_network, {"author": "somebody"}))
    with pytest.raises(
        ModelFileError, match=r"other\.onnx: .*without realdamage's metadata.*realdamage-export"
    ):
        read_model_file(path)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = path.read_bytes()
    values = json.loads(split_metadata(data)[1]["realdamage"])
    change(values)
    path.write_bytes(with_metadata(data, {"realdamage": json.dumps(values)}))


def test_a_file_from_before_sources_were_compared_is_read(
    metadata: ModelMetadata, write_red_model: Callable[..., Path]
) -> None:
    def older(values: dict[str, Any]) -> None:
        del values["policy"]["worst_source"], values["policy_sha256"]
        graph = values.pop("graph_sha256")
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        values.update(
            graph_sha256=graph, policy_sha256=hashlib.sha256(canonical.encode()).hexdigest()
        )

    path = write_red_model()
    edit(path, older)
    assert read_model_file(path)[1] == metadata


def test_a_newer_format_says_upgrade(write_red_model: Callable[..., Path]) -> None:
    path = write_red_model()
    edit(
        path, lambda values: values.update(format_version=FORMAT_VERSION + 1, a_field_of_tomorrow=1)
    )
    with pytest.raises(
        ModelFileError,
        match=r"red\.onnx: .*format version 2, .*reads up to 1; upgrade: pip install",
    ):
        read_model_file(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda values: values["policy"].update(t_synthetic=9.0),
            "metadata was changed after it was written",
        ),
        (lambda values: values.pop("policy_sha256"), "metadata was changed after it was written"),
        (lambda values: values.pop("graph_sha256"), "graph or its weights were changed or damaged"),
        (lambda values: values.pop("format_version"), "format_version None"),
        (lambda values: values.pop("pooling"), "metadata: the key 'pooling' is missing"),
        (lambda values: values.update(colour="red"), "metadata: unknown key 'colour'"),
        (lambda values: values["pixel_spec"].update(tile=100), r"metadata\.pixel_spec: .*tile=100"),
        (lambda values: values["pooling"].update(name="max"), r"metadata\.pooling: .*name='max'"),
        (
            lambda values: values.update(labels=["real"]),
            r"metadata\.labels: expected tuple.*, found \['real'\]",
        ),
        (
            lambda values: values.update(labels=["real", 1]),
            r"metadata\.labels\[1\]: expected str, found 1",
        ),
    ],
)
def test_changed_metadata_is_refused(
    write_red_model: Callable[..., Path], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = write_red_model()
    edit(path, change)
    with pytest.raises(ModelFileError, match=rf"red\.onnx: .*{message}"):
        read_model_file(path)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"format_version": NaN}'])
def test_metadata_that_is_no_object_is_refused(
    tmp_path: Path, red_network: bytes, text: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(with_metadata(red_network, {"realdamage": text}))
    with pytest.raises(ModelFileError, match=r"model\.onnx: the model's metadata"):
        read_model_file(path)


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_flipped_bit_and_any_cut_is_noticed(
    data: st.DataObject, write_red_model: Callable[..., Path]
) -> None:
    path = write_red_model()
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[position:]
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"red\.onnx: "):
        read_model_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no\.onnx: the model cannot be read: No such file"):
        read_model_file(tmp_path / "no.onnx")


@pytest.mark.parametrize("metrics", [{"auroc": math.nan}, {"path": Path("x")}])
def test_values_without_a_json_form_are_refused_before_writing(
    write_red_model: Callable[..., Path], tmp_path: Path, metrics: dict[str, Any]
) -> None:
    with pytest.raises(ModelFileError, match="cannot be written as JSON"):
        write_red_model(metrics=metrics)
    assert not list(tmp_path.rglob("*.onnx"))


def test_what_is_no_model_is_not_written(metadata: ModelMetadata, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        write_model_file(tmp_path / "model.onnx", b"no model", metadata)
    assert not list(tmp_path.iterdir())
