"""The Ray cluster: how it is found, the rows of its data sets, and work that it does in actors."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from realdamage.errors import MissingExtraError, RealDamageError

try:
    import ray
    import ray.data
except ModuleNotFoundError as error:
    raise MissingExtraError("running on Ray", "ray", error.name) from error

_MOST_BLOCKS = 10_000
"""Of a data set. This process keeps account of every block, so millions would slow it down."""


def connect() -> Mapping[str, float]:
    """Use the cluster of this process or of RAY_ADDRESS, else start one on this machine. Returns
    its resources, such as {"CPU": 8.0}. Raises RealDamageError when there is no cluster."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Of a cluster that starts here. Else all other work on this machine would go first.
        os.environ.setdefault("RAY_worker_niceness", "0")
        address = os.environ.get("RAY_ADDRESS")
        new: dict[str, Any] = {} if address else {"include_dashboard": False}
        try:
            ray.init(log_to_driver=False, logging_level=logging.WARNING, **new)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError and plain Exception
            where = f"reach the Ray cluster {address}" if address else "start Ray on this machine"
            raise RealDamageError(f"cannot {where}: {error}", code="no_cluster") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours reports
    # Else a pool that waits for its first photos loses actors, and gets them back late.
    context.autoscaling_config.actor_pool_util_downscaling_threshold = 0.0
    resources: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def dataset(columns: Mapping[str, Sequence[Any]], block: int = 1) -> Any:
    """A Ray data set of these columns, cut into blocks of at least so many rows."""
    table = pa.table({name: list(values) for name, values in columns.items()})
    blocks = min(-(-len(table) // block), _MOST_BLOCKS)
    return ray.data.from_arrow(table, override_num_blocks=blocks)


def attempt(make: Callable[[], Any]) -> bytes:
    """What `make` returns, pickled, or the RealDamageError that it raises: Ray would wrap it."""
    try:
        return pickle.dumps(make())
    except RealDamageError as error:
        return pickle.dumps(error)


def rows(data: Any) -> Iterator[dict[str, Any]]:
    """The rows of a Ray data set, in any order, each once: what a lost worker held is computed
    again. `found` is what `attempt` has pickled. Raises the RealDamageError of a worker, or one
    with the code "ray"."""
    try:
        for row in data.iter_rows():
            found = pickle.loads(row["found"])
            if isinstance(found, RealDamageError):
                raise found
            yield {**row, "found": found}
    except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
        raise RealDamageError(
            f"Ray could not go on: {str(error)[:500]}. What is done stays; start it again",
            code="ray",
        ) from error


def in_actors(
    start: Callable[..., None],
    arguments: tuple[Any, ...],
    make: Callable[[int], int],
    todo: Sequence[int],
    most: int | None = None,
    *,
    gpu: bool = False,
) -> Iterator[int]:
    """Yields `make(index)` for each index of `todo`, in any order, from actors on a Ray cluster.

    start: `start(*arguments)` runs first in each actor, in the working directory of this process.
    most: actors; None: one for each processor, or each GPU.
    gpu: each actor gets a GPU, if the cluster has any; else there is one actor.
    Raises RealDamageError: as `make` does, or Ray could not go on (code ray).
    """
    if not todo:
        return
    resources = connect()
    gpus = int(resources.get("GPU", 0)) if gpu else 0
    room = (gpus or 1) if gpu else int(resources.get("CPU", 1))
    made = dataset({"index": todo}).map(
        _Making,
        fn_constructor_args=(Path.cwd(), start, arguments, make),
        compute=pool(min(most or room, room, len(todo))),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    for row in rows(made):
        yield row["found"]


def pool(actors: int) -> Any:
    """A pool of actors that all start at once; it goes on with fewer when machines are lost."""
    most = max(1, actors)
    return ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most)


class _Making:
    """An actor that makes one thing after the other."""

    def __init__(
        self,
        folder: Path,
        start: Callable[..., None],
        arguments: tuple[Any, ...],
        make: Callable[[int], int],
    ) -> None:
        self._folder, self._start, self._arguments, self._make = folder, start, arguments, make
        self._started = False

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"found": attempt(lambda: self._make_one(row["index"]))}

    def _make_one(self, index: int) -> int:
        if not self._started:  # not in __init__, from where no error arrives with its code
            try:
                os.chdir(self._folder)
            except OSError as error:
                raise RealDamageError(
                    f"a machine of the Ray cluster cannot use {self._folder}: {error.strerror}. "
                    "All must have the same folders",
                    code="folder_not_shared",
                ) from error
            self._start(*self._arguments)
            self._started = True
        return self._make(index)
