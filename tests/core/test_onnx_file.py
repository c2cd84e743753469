"""Our reader of the outermost ONNX fields agrees with the `onnx` package, and files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realdamage.core.model_file import graph_sha256, split_metadata, with_metadata
from realdamage.errors import ModelFileError, RealDamageError
from realdamage.files import write_atomically


@given(entries=st.dictionaries(st.text(), st.text(max_size=300)))
def test_the_onnx_package_reads_what_we_write(entries: dict[str, str], red_network: bytes) -> None:
    data = with_metadata(red_network, entries)
    model = onnx.load_from_string(data)
    assert {entry.key: entry.value for entry in model.metadata_props} == entries
    assert split_metadata(data) == (red_network, entries)
    assert graph_sha256(data) == graph_sha256(red_network)


def test_we_read_what_the_onnx_package_writes(red_network: bytes) -> None:
    model = onnx.load_from_string(red_network)
    model.doc_string = "a field behind the graph"
    plain = model.SerializeToString()
    onnx.helper.set_model_props(model, {"one": "1", "größe": "ü" * 200})
    graph, entries = split_metadata(model.SerializeToString())
    assert entries == {"one": "1", "größe": "ü" * 200}
    assert onnx.load_from_string(graph) == onnx.load_from_string(plain)


def test_metadata_is_replaced_and_not_piled_up(red_network: bytes) -> None:
    twice = with_metadata(with_metadata(red_network, {"a": "1", "b": "2"}), {"a": "3"})
    assert split_metadata(twice)[1] == {"a": "3"}


def test_the_digest_covers_the_graph(red_network: bytes) -> None:
    model = onnx.load_from_string(red_network)
    model.graph.node[0].name = "renamed"
    assert graph_sha256(model.SerializeToString()) != graph_sha256(red_network)


@pytest.mark.parametrize(
    "data", [b"", b"plain text, no model", b"\x00" * 50, b"\xff" * 50, b"\x08\x0a", b"\x72\x7f"]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="not an ONNX file, or a damaged one"):
        split_metadata(data)


def test_writing_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    write_atomically(path, b"old")
    write_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def writing_half(real_open: Callable[..., Any]) -> Callable[..., Any]:
    def open_(path: Path, *arguments: Any, **options: Any) -> Any:
        file = real_open(path, *arguments, **options)

        class HalfFull:
            def __enter__(self) -> HalfFull:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: bytes) -> None:
                file.write(data[: len(data) // 2])
                full_disk()

        return HalfFull()

    return open_


@pytest.mark.parametrize("fails", ["fsync", "replace", "write"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old model")
    with monkeypatch.context() as patch:
        if fails == "write":
            patch.setattr(Path, "open", writing_half(Path.open))
        else:
            patch.setattr(os, fails, full_disk)
        with pytest.raises(
            RealDamageError, match=r"model\.onnx: cannot be written: No space left on device"
        ):
            write_atomically(path, b"the new model")
    assert path.read_bytes() == b"the old model"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RealDamageError, match=r"file/model\.onnx: cannot be written"):
        write_atomically(tmp_path / "file" / "model.onnx", b"")
