"""Scores tiles on a Triton server: photos are decoded and cut here, the network runs there."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import numpy as np

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.core.model_file import METADATA_KEY, read_entry
from realdamage.errors import MissingExtraError, ModelFileError, RealDamageError

MODEL = "realdamage"
"""What `realdamage-export target=triton` calls the model."""


class TritonScorer:
    """A TileScorer over gRPC, with the metadata of the model there. Threads may share it; it can be
    pickled.

    url: host:port of the server's gRPC. model: its name in the repository.
    timeout: seconds for a call.

    Raises RealDamageError when the server cannot be reached, ModelFileError when its model has no
    metadata, MissingExtraError without tritonclient.
    """

    def __init__(self, url: str, model: str = MODEL, *, timeout: float = 30.0) -> None:
        self._given = (url, model, timeout)
        self._url, self._model, self._timeout = self._given
        self._threads = threading.local()
        config = self._call("get_model_config", model).config
        if METADATA_KEY not in config.parameters:
            raise ModelFileError(
                f"{url}: the model {model!r} has no realdamage metadata in its config.pbtxt; write "
                "the repository with: realdamage-export target=triton checkpoint=model.onnx",
                code="no_metadata",
            )
        entry = config.parameters[METADATA_KEY].string_value
        self.metadata, self.graph_sha256, self.policy_sha256 = read_entry(entry)
        self._most_tiles = max(1, config.max_batch_size)

    def __getstate__(self) -> Any:
        return self._given

    def __setstate__(self, given: Any) -> None:
        url, model, timeout = given
        self.__init__(url, model, timeout=timeout)  # type: ignore[misc]

    def __call__(self, tiles: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """See TileScorer. Raises RealDamageError when the server does not answer."""
        parts = [
            self._run(tiles[start : start + self._most_tiles])
            for start in range(0, len(tiles), self._most_tiles)
        ]
        logit, evidence = (np.concatenate(values) for values in zip(*parts, strict=True))
        return logit, evidence

    def _run(self, tiles: UInt8Array) -> tuple[Float32Array, Float32Array]:
        sent = _grpc().InferInput("tiles", list(tiles.shape), "UINT8")
        sent.set_data_from_numpy(np.ascontiguousarray(tiles))
        answer = self._call("infer", self._model, [sent])
        logit, evidence = answer.as_numpy("logit"), answer.as_numpy("evidence")
        if logit is None or evidence is None:
            raise ModelFileError(f"{self._url}: {self._model!r} returns no logit and evidence")
        return logit.reshape(-1), evidence  # Triton's logit is [n, 1]

    def _call(self, method: str, *arguments: Any) -> Any:
        """A call of this thread's client: a client is for one thread only."""
        client = getattr(self._threads, "client", None)
        if client is None:
            client = self._threads.client = _grpc().InferenceServerClient(self._url)
        try:
            return getattr(client, method)(*arguments, client_timeout=self._timeout)
        except importlib.import_module("tritonclient.utils").InferenceServerException as error:
            raise RealDamageError(
                f"{self._url}: Triton does not answer for the model {self._model!r}: "
                f"{error.message()}. Check the address (the gRPC port, 8001 by default) and that "
                "the model is loaded",
                code="triton",
            ) from error


def _grpc() -> Any:
    try:
        return importlib.import_module("tritonclient.grpc")
    except ModuleNotFoundError as error:
        raise MissingExtraError("TritonScorer", "triton", error.name) from error
