"""Runs the two halves of a photo on Ray Data: reading in tasks, the network in a pool of actors."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from realdamage.core.detector import Detector
from realdamage.core.tiles import PixelSpec
from realdamage.errors import UsageError
from realdamage.scale.cluster import attempt, connect, dataset, pool, rows
from realdamage.scale.photo import Judge, Row, judge_photo, read
from realdamage.scale.run import Todo

_PHOTOS_A_BLOCK = 16
"""Read by one task: a few seconds of work, and at most some 150 MB of pixels."""
_READING = 0.25
"""Processors of a task that reads. An actor takes the rest of a processor, as the network takes the
most time."""


def run_on_ray(chosen: Judge, todo: Todo) -> Iterator[tuple[int, int, Row]]:
    """The rows, in any order, each once. With the device "cuda" each GPU gets an actor.

    Raises UsageError when the cluster has no GPU (code no_gpu), or an actor no CUDA (no_cuda).
    """
    # What is wrong with the model is said here. CUDA is needed on the machines of the actors only.
    replace(chosen, device="cpu").detector()
    threads = chosen.threads or 1  # parallel work is that of the actors
    chosen = replace(chosen, threads=threads)
    resources = connect()
    actor: dict[str, float] = {"num_cpus": threads - _READING}
    actors = int(resources.get("CPU", 1)) // threads
    if chosen.device == "cuda":
        actor["num_gpus"] = 1
        actors = int(resources.get("GPU", 0))
        if not actors:
            raise UsageError(
                "device='cuda': no machine of this Ray cluster has a GPU. Add one, or use "
                "device='cpu'",
                code="no_gpu",
            )
    parts, places, names = zip(*todo, strict=True)
    # As bytes: the name of a file need not be text.
    columns = {"part": parts, "place": places, "name": [os.fsencode(name) for name in names]}
    data = dataset(columns, _PHOTOS_A_BLOCK)
    spec = chosen.contents[1].pixel_spec
    reading = data.map(_read, fn_args=(spec, str(Path.cwd())), num_cpus=_READING)
    judging = reading.map(_Judging, fn_constructor_args=(chosen,), compute=pool(actors), **actor)
    for row in rows(judging):
        yield row["part"], row["place"], row["found"]


def _read(row: dict[str, Any], spec: PixelSpec, folder: str) -> dict[str, Any]:
    photo = read(os.fsdecode(row["name"]), spec, folder)
    return {"part": row["part"], "place": row["place"], "photo": pickle.dumps(photo, protocol=5)}


class _Judging:
    """An actor with one session."""

    def __init__(self, chosen: Judge) -> None:
        self._chosen = chosen

    @cached_property
    def _detector(self) -> Detector:
        """Not made in __init__, from where no error arrives with its code."""
        return self._chosen.detector()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        found = attempt(lambda: judge_photo(pickle.loads(row["photo"]), self._detector))
        return {"part": row["part"], "place": row["place"], "found": found}
