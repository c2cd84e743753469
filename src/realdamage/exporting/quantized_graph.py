"""Makes variants of a model's graph with 8-bit integers or half-precision numbers, where they cannot blur what matters.

Generator traces are a few grey levels deep, so what turns pixels into residuals and the layer that reads them stay in
float32: a residual is mostly near zero with a few large values, and 255 steps over that range are coarser than a trace.
So do the heads, whose sums decide. All are found by the graph's structure: names change with exporters.

Integers are static: ranges come from tiles of training photos, activations are uint8, weights int8 per channel in 7 of
their 8 bits. On x86 with AVX2 but without VNNI the kernels add two products of uint8 and int8 in saturating 16 bits:
2 · 255 · 127 does not fit, 2 · 255 · 63 does. They also take three instructions for what is one with VNNI, so expect
little time from integers there.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.utils
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from realdamage.core.decode import UInt8Array
from realdamage.errors import ModelFileError, UsageError

_LAYERS = ("Conv", "MatMul", "Gemm")
# Of the values of an activation, the share that its range covers, in %. Up to the largest value of all, which one odd
# tile has, the steps would be too coarse for the others.
_PERCENTILE = 99.999
_BATCH = 4
# Their outputs tell sizes, not pixels.
_SIZES = ("Shape", "Size")
_LOW_PRECISION = (
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
)


@dataclass(frozen=True)
class Layers:
    """Names of nodes by what may happen to them, in the graph's order.

    front: the first learned layer and all that its input is computed from. convolutions, products: layers with weights
    between front and heads. heads: the last layers with weights on each way to an output, and all after them.
    """

    front: tuple[str, ...]
    convolutions: tuple[str, ...]
    products: tuple[str, ...]
    heads: tuple[str, ...]


def prepared(data: bytes) -> onnx.ModelProto:
    """The model with its shapes inferred, constants folded and every node named, as quantization wants it.

    Raises ModelFileError when the graph holds integers or half-precision weights already.
    """
    _check_float(onnx.load_model_from_string(data))
    with tempfile.TemporaryDirectory() as folder:
        # By files: from a model in memory, onnxruntime's tools move the weights out.
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        given.write_bytes(data)
        # Shapes are fixed but for the number of tiles, so the symbolic inference, which takes sympy, adds nothing.
        quant_pre_process(str(given), str(made), skip_symbolic_shape=True)
        model = onnx.load_model(made)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def find_layers(model: onnx.ModelProto) -> Layers:
    """Sorts the nodes of a `prepared` model.

    The first learned layer is the first with weights that every way from the tiles to an output leads through. The
    filters of a residual front end have weights too, but the pixels also go around them: x minus its local mean.

    Raises ModelFileError: no such layer, or none between front and heads.
    """
    nodes = list(model.graph.node)
    weights = {tensor.name for tensor in model.graph.initializer}
    layers = [
        index
        for index, node in enumerate(nodes)
        if node.op_type in _LAYERS and node.input[1] in weights
    ]
    outputs = {output.name for output in model.graph.output}
    tiles = [entry.name for entry in model.graph.input if entry.name not in weights]
    first = next(
        (index for index in layers if not outputs & _reached(nodes, tiles, without=index)), None
    )
    if first is None:
        raise ModelFileError(
            "no layer with weights that the whole network hangs on was found; nothing to quantize"
        )
    inner = [index for index in layers if index >= first]
    heads = [
        index
        for index in inner
        if not any(
            _reached(nodes, nodes[index].output).intersection(nodes[other].input) for other in inner
        )
    ]
    after = _reached(nodes, [name for index in heads for name in nodes[index].output])
    between = [index for index in inner if index not in heads and index != first]
    if not between:
        raise ModelFileError(
            "the network has no layer with weights between its first and its heads; nothing to quantize"
        )
    needed = _needed(nodes, nodes[first].output)
    return Layers(
        front=tuple(node.name for node in nodes if needed.intersection(node.output)),
        convolutions=tuple(
            nodes[index].name for index in between if nodes[index].op_type == "Conv"
        ),
        products=tuple(nodes[index].name for index in between if nodes[index].op_type != "Conv"),
        heads=tuple(
            node.name
            for index, node in enumerate(nodes)
            if index in heads or after.intersection(node.input)
        ),
    )


def to_int8(model: onnx.ModelProto, nodes: Sequence[str], tiles: UInt8Array) -> bytes:
    """The model with these nodes in integers; `model`: `prepared`; `tiles`: uint8 [n, tile, tile, 3], which the ranges
    of their inputs and outputs are measured on."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        onnx.save_model(model, given)
        with contextlib.redirect_stdout(io.StringIO()):  # it tells every batch
            quantize_static(
                str(given),
                str(made),
                _Tiles(tiles),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_LAYERS),
                nodes_to_quantize=list(nodes),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.Percentile,
                # Despite its name, for every method: measure batch by batch, as all of them would not fit into memory.
                extra_options={"CalibPercentile": _PERCENTILE, "CalibStridedMinMax": 1},
            )
        return made.read_bytes()


def to_fp16(model: onnx.ModelProto, float32: Sequence[str]) -> bytes:
    """The model in half precision but for its inputs, outputs and the nodes `float32`, whose tensors stay in float32
    from one to the next; `model`: `prepared`. Raises UsageError where this onnxruntime has no converter."""
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise UsageError(
            f"fp16: this onnxruntime has no converter ({error}); leave it out: --variants int8"
        ) from error
    # The converter rounds between any two nodes, also between two that it is told to leave alone: it gets a model of
    # the others only, which then takes their place.
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes, weights = (
        list(copy.graph.node),
        {tensor.name: tensor for tensor in copy.graph.initializer},
    )
    around = [node for node in nodes if node.name in float32]
    inner = [node for node in nodes if node.name not in float32]
    own = {name for node in inner for name in (*node.input, *node.output)}
    for node in around:  # a weight that both use is there twice
        node.input[:] = [
            f"{name}_float32" if name in own and name in weights else name for name in node.input
        ]
    made = {name for node in inner for name in node.output}
    asked = {name for node in around for name in node.input} | {
        output.name for output in copy.graph.output
    }
    given = sorted(own - made - set(weights) - {""})
    half = convert_float_to_float16(
        onnx.utils.Extractor(copy).extract_model(given, sorted(made & asked)), keep_io_types=True
    ).graph
    kept = []
    for name in sorted(asked):
        if (tensor := weights.get(name.removesuffix("_float32"))) is not None:
            kept.append(onnx.TensorProto())
            kept[-1].CopyFrom(tensor)
            kept[-1].name = name
    before = _needed(nodes, given)
    graph = onnx.helper.make_graph(
        [
            *(node for node in around if before.intersection(node.output)),
            *half.node,
            *(node for node in around if not before.intersection(node.output)),
        ],
        model.graph.name,
        model.graph.input,
        model.graph.output,
        initializer=[*kept, *half.initializer],
    )
    result = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    return bytes(result.SerializeToString())


class _Tiles(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Hands over the tiles a few at a time."""

    def __init__(self, tiles: UInt8Array) -> None:
        self._batches = [tiles[start : start + _BATCH] for start in range(0, len(tiles), _BATCH)]
        self._range = iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Of the batches that come next."""
        self._range = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """The next batch under the name of the network's input, None after the last."""
        batch = next(self._range, None)
        return None if batch is None else {"tiles": batch}


def _check_float(model: onnx.ModelProto) -> None:
    kinds = {node.op_type for node in model.graph.node}
    integers = sorted(
        kind
        for kind in kinds
        if "quantize" in kind.lower() or kind.startswith("QLinear") or "Integer" in kind
    )
    low = [tensor.name for tensor in model.graph.initializer if tensor.data_type in _LOW_PRECISION]
    if integers or low:
        found = (
            f"nodes {', '.join(integers)}" if integers else f"{len(low)} weights such as {low[0]!r}"
        )
        raise ModelFileError(
            f"quantized already ({found}); name the float32 model that realdamage-export wrote"
        )


def _reached(
    nodes: Sequence[onnx.NodeProto], start: Iterable[str], *, without: int | None = None
) -> set[str]:
    """The tensors that hang on the values of any of `start`, when node number `without` is cut out."""
    reached = set(start)
    for index, node in enumerate(nodes):
        if index != without and node.op_type not in _SIZES and reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _needed(nodes: Sequence[onnx.NodeProto], targets: Iterable[str]) -> set[str]:
    """The tensors that any of `targets` is computed from, these included."""
    needed = set(targets)
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
    return needed
