"""The model behind Ray Serve, which adds and removes replicas by the number of requests:
`serve run realdamage.scale.serve:app`.

POST a photo's bytes; the answer is its verdict as JSON, or an error with status 422. There are no
keys and no limits but that of bytes: call it from your own network, or use `realdamage serve`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse

from realdamage.core.tiles import read_photo
from realdamage.errors import MissingExtraError, PhotoError
from realdamage.scale.photo import Judge

try:
    from ray import serve
except ModuleNotFoundError as error:
    raise MissingExtraError("realdamage.scale.serve", "ray", error.name) from error

MAX_BYTES = 20 * 1024 * 1024
_AT_ONCE = 4
"""Requests of a replica at the same time: photos are read while the network judges one."""


@serve.deployment(
    max_ongoing_requests=_AT_ONCE,
    ray_actor_options={"num_cpus": 1},
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 2},
)
class Replica:
    """It has one session."""

    def __init__(self, judge: Judge) -> None:
        self._detector = judge.detector()

    async def __call__(self, request: Request) -> JSONResponse:
        data = await request.body()
        if len(data) > MAX_BYTES:
            message = f"The photo has {len(data)} bytes, at most {MAX_BYTES}."
            return JSONResponse({"error": {"code": "too_large", "message": message}}, 413)
        try:
            return JSONResponse(await asyncio.to_thread(self._judge, data))
        except PhotoError as error:
            return JSONResponse({"error": error.to_dict()}, 422)

    def _judge(self, data: bytes) -> dict[str, object]:
        photo = read_photo(data, self._detector.pixel_spec)
        return self._detector.predict_photo(photo).to_dict(heatmap=False)


_MODEL = os.environ.get("REALDAMAGE_MODEL")
app = Replica.bind(Judge(Path(_MODEL) if _MODEL else None, threads=1))  # type: ignore[attr-defined]
"""With the model file in REALDAMAGE_MODEL, else the model in the package."""
