"""A model file whose network is known by heart (the redder, the more synthetic), and photos it can
judge.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from realdamage.core.model_file import ModelMetadata, write_model_file
from realdamage.core.pooling import Pooling
from realdamage.core.tiles import PixelSpec
from realdamage.data.manifest import Manifest, read_manifest, write_manifest
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS

SPEC = PixelSpec(tile=64, patch=16, overlap=16, max_side=256)
WritePhotos = Callable[..., Manifest]


def red_network() -> bytes:
    """evidence = (mean red of the patch - 128) / 16; logit = their mean."""
    tiles = helper.make_tensor_value_info(
        "tiles", TensorProto.UINT8, ["n", SPEC.tile, SPEC.tile, 3]
    )
    logit = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"])
    side = SPEC.tile // SPEC.patch
    evidence = helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["n", side, side])
    constants = {
        "red": np.array([0], dtype=np.int64),
        "channel": np.array([1], dtype=np.int64),
        "middle": np.array(128, dtype=np.float32),
        "step": np.array(16, dtype=np.float32),
        "patches": np.array([1, 2], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["tiles"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool",
            ["planes"],
            ["means"],
            kernel_shape=[SPEC.patch] * 2,
            strides=[SPEC.patch] * 2,
        ),
        helper.make_node("Gather", ["means", "red"], ["reds"], axis=1),
        helper.make_node("Squeeze", ["reds", "channel"], ["mean"]),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Div", ["centred", "step"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence", "patches"], ["logit"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "red",
        [tiles],
        [logit, evidence],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """An uncalibrated model file."""
    metadata = ModelMetadata(
        pixel_spec=SPEC,
        pooling=Pooling(),
        calibration=None,
        policy=None,
        backbone="red",
        demo=False,
        model_version="0",
    )
    write_model_file(tmp_path / "red.onnx", red_network(), metadata)
    return tmp_path / "red.onnx"


@pytest.fixture
def write_photos(tmp_path: Path) -> WritePhotos:
    """`write_photos(rows)`: each row names `file_name`, `label`, what else it likes, and `red`
    (0..255, not written).

    Photos are 80×64 PNG files; those with a `mask_file_name` are as red only in their left 40
    columns, which the mask covers, and black elsewhere.
    """

    def write(rows: list[dict[str, object]]) -> Manifest:
        folder = tmp_path / "photos"
        folder.mkdir()
        for row in rows:
            pixels = np.zeros((64, 80, 3), dtype=np.uint8)
            painted = np.zeros((64, 80), dtype=np.uint8)
            painted[:, : 40 if row.get("mask_file_name") else 80] = 255
            pixels[..., 0] = np.where(painted > 0, row["red"], 0)
            Image.fromarray(pixels).save(folder / str(row["file_name"]))
            if row.get("mask_file_name"):
                Image.fromarray(painted).save(folder / str(row["mask_file_name"]))
        write_manifest(folder, pd.DataFrame(rows).drop(columns="red"))
        return read_manifest(folder)

    return write


@pytest.fixture(scope="session")
def predictions_of() -> Callable[..., pd.DataFrame]:
    """`predictions_of(label=[…], score=[…], …)`: a predictions table with these columns; the others
    are empty.

    Without `outcome`, scores from 2 are synthetic, those below 0 real, the others for review.
    """

    def make(**columns: object) -> pd.DataFrame:
        empty = dict.fromkeys((*PREDICTION_COLUMNS, *FURTHER_COLUMNS), "")
        table = pd.DataFrame(columns)
        table = table.assign(**{name: value for name, value in empty.items() if name not in table})
        if "file_name" not in columns:
            table["file_name"] = [f"{index}.jpg" for index in range(len(table))]
        if "outcome" not in columns:
            called = [table["score"] >= 2, table["score"] < 0]
            table["outcome"] = np.select(called, ["synthetic", "real"], "review")
        return table

    return make
