"""Runs the two halves of a photo on Ray Data: reading in tasks, the network in a pool of actors."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from typing import Any

from realdamage.core.tiles import PixelSpec
from realdamage.errors import MissingExtraError, RealDamageError
from realdamage.scale.photo import Judge, Row, judge, read
from realdamage.scale.run import Photos

try:
    import ray
    import ray.data
except ModuleNotFoundError as error:
    raise MissingExtraError("engine=ray", "ray", error.name) from error

_PHOTOS_A_BLOCK = 16
"""Read by one task: a few seconds of work, and at most some 50 MB of pixels."""
_READING, _JUDGING = 0.25, 0.75
"""Processors of a task that reads and of an actor on the CPU: the network takes the most time."""


def run_on_ray(chosen: Judge, photos: Photos) -> Iterator[tuple[int, int, Row]]:
    """The rows, in any order, each once: what a lost worker held is computed again."""
    chosen.detector()  # what is wrong with the model is said here, not by a lost actor
    _connect()
    on_gpu = chosen.device == "cuda"
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    workers = max(1, int(resources.get("GPU" if on_gpu else "CPU", 1)))
    actor = {"num_gpus": 1} if on_gpu else {"num_cpus": _JUDGING}
    items = [{"part": part, "place": place, "name": name} for part, place, name in photos]
    data: Any = ray.data.from_items(items, override_num_blocks=-(-len(items) // _PHOTOS_A_BLOCK))
    reading = data.map(_read, fn_args=(chosen.contents[1].pixel_spec,), num_cpus=_READING)
    judging = reading.map(
        _Judging,
        fn_constructor_args=(chosen,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        **actor,
    )
    try:
        for row in judging.iter_rows():
            yield row["part"], row["place"], pickle.loads(row["row"])
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, RealDamageError):
            raise cause from error
        raise RealDamageError(
            f"Ray could not go on: {str(error)[:500]}. What is done stays; start it again",
            code="ray",
        ) from error


def _connect() -> None:
    """Use the cluster of this process or of RAY_ADDRESS; else start one on this machine."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours reports
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)


def _read(item: dict[str, Any], spec: PixelSpec) -> dict[str, Any]:
    return {**item, "photo": pickle.dumps(read(item["name"], spec), protocol=5)}


class _Judging:
    """An actor with one session."""

    def __init__(self, chosen: Judge) -> None:
        self._detector = chosen.detector()

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        row = judge(pickle.loads(item["photo"]), self._detector)
        return {"part": item["part"], "place": item["place"], "row": pickle.dumps(row)}
