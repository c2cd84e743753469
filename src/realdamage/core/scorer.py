"""Runs the network on tiles. The detector only knows the protocol, so a torch checkpoint is judged
by the same code."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import onnxruntime

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.core.progress import available_processors
from realdamage.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from realdamage.core.model_file import ModelMetadata

_TILES_A_RUN = 8
"""On the CPU. More at once are no faster, since the activations no longer fit the cache, and need
more memory."""


class TileScorer(Protocol):
    """A network that takes the tiles of our ONNX files."""

    def __call__(self, tiles: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """tiles: uint8 [n, tile, tile, 3] -> (logit float32 [n], evidence float32 [n, h, w], one
        per patch)."""
        ...


@runtime_checkable
class DescribedScorer(TileScorer, Protocol):
    """A network that brings its metadata and the digests of both."""

    metadata: ModelMetadata
    graph_sha256: str
    policy_sha256: str


class OnnxScorer:
    """An ONNX Runtime session; several threads may share it, and it can be pickled.

    data: the ONNX file, as in TileScorer, with outputs `logit` and `evidence`.
    threads: by default the CPUs this process may use, at most 4; on the CPU this many runs of a few
        tiles go in parallel, which gives the same numbers as threads within each operator.
    device: "cpu" or "cuda".

    Raises ModelFileError when it is not such a model; UsageError for a device that is unknown or
    that this onnxruntime cannot use.
    """

    def __init__(self, data: bytes, *, threads: int | None = None, device: str = "cpu") -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads={threads} must be at least 1")
        self.data, self._given = data, (data, threads, device)
        providers = _providers(device)
        options = onnxruntime.SessionOptions()
        self._threads = threads or min(available_processors(), 4)
        # One large run keeps a GPU busy; the threads then serve operators that it does not have.
        on_cpu = device == "cpu"
        self._runs = ThreadPoolExecutor(self._threads) if on_cpu else None
        options.intra_op_num_threads = 1 if on_cpu else self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no public base class
            raise ModelFileError(
                f"onnxruntime {onnxruntime.__version__} cannot load the graph ({error}); export it "
                "again"
            ) from error
        if providers[0] not in self._session.get_providers():  # onnxruntime falls back silently
            raise UsageError(
                f"device={device!r}: onnxruntime cannot start {providers[0]} here, so it would run "
                "on the CPU. Check the driver (nvidia-smi) and that the installed CUDA and cuDNN "
                f'are those onnxruntime {onnxruntime.__version__} needs, or use device="cpu"',
                code="no_cuda",
            )
        self._check_contract()

    def __getstate__(self) -> Any:
        return self._given

    def __setstate__(self, given: Any) -> None:
        data, threads, device = given
        self.__init__(data, threads=threads, device=device)  # type: ignore[misc]

    def __call__(self, tiles: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """See TileScorer. Raises ModelFileError when the graph does not take such tiles."""
        try:
            if self._runs is None:
                logit, evidence = self._run(tiles)
            else:
                parts = self._runs.map(self._run, _even_parts(tiles, self._threads))
                logit, evidence = (np.concatenate(values) for values in zip(*parts, strict=True))
        except Exception as error:
            raise ModelFileError(
                f"the model fails on tiles {list(tiles.shape)} ({error}); export it again"
            ) from error
        return np.asarray(logit, dtype=np.float32), np.asarray(evidence, dtype=np.float32)

    def _run(self, tiles: UInt8Array) -> tuple[Float32Array, Float32Array]:
        logit, evidence = self._session.run(["logit", "evidence"], {"tiles": tiles})
        return logit, evidence

    def _check_contract(self) -> None:
        inputs = {node.name: (node.type, len(node.shape)) for node in self._session.get_inputs()}
        outputs = {node.name: (node.type, len(node.shape)) for node in self._session.get_outputs()}
        expected = {"logit": ("tensor(float)", 1), "evidence": ("tensor(float)", 3)}
        if inputs != {"tiles": ("tensor(uint8)", 4)} or not expected.items() <= outputs.items():
            raise ModelFileError(
                "the graph breaks the contract: input tiles uint8 [n, tile, tile, 3], outputs "
                "logit float32 [n] and evidence float32 [n, h, w]; found (type, rank) "
                f"{inputs} -> {outputs}. Export it again"
            )


def _providers(device: str) -> list[str]:
    """The execution providers of a device, first choice first."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if device != "cuda":
        raise UsageError(f"device={device!r} is unknown; use 'cpu' or 'cuda'")
    available = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in available:
        raise UsageError(
            f"device='cuda': this onnxruntime has no CUDA; it has {', '.join(available)}. Replace "
            "it: pip uninstall onnxruntime, then pip install onnxruntime-gpu",
            code="no_cuda",
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _even_parts(tiles: UInt8Array, threads: int) -> list[UInt8Array]:
    """Parts of at most `_TILES_A_RUN` tiles, as even as possible; the same number for each thread
    if there are enough."""
    rounds = -(-len(tiles) // (threads * _TILES_A_RUN))
    return np.array_split(tiles, max(1, min(len(tiles), rounds * threads)))
