"""Trains, exports and scores every fold of a plan, and goes on where it was when it is started again.

Trainings run in processes of their own, folds side by side; what they print goes into the fold's log. A fold that fails
does not stop the others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from realdamage.core.model_file import read_model_file
from realdamage.core.progress import Track, no_progress
from realdamage.data.manifest import Manifest
from realdamage.errors import RealDamageError
from realdamage.evaluation.fold_plan import FoldPlan, quoted
from realdamage.evaluation.left_out import LOCALISATION, MODEL, TEST
from realdamage.evaluation.left_out_figures import localisation_rows, photos_of_fold
from realdamage.evaluation.perturbations import Perturbation
from realdamage.evaluation.predictions import write_predictions
from realdamage.evaluation.robustness import ModelFile, score_suite
from realdamage.evaluation.sampling import draw_photos
from realdamage.files import write_atomically

Say = Callable[[str], None]
Launch = Callable[[str, Sequence[str], int, Path, Say], int]

# In a stage's folder when its training has ended; in test/ what was scored, and how.
_FINISHED, _SCORED = "finished", "scored.json"
_TOLD = ("epoch ", "error: ")


class Processes:
    """Runs a command of ours in a process of its own: `processes(command, arguments, threads, log, say)` appends what
    it prints to the file `log`, says its lines of progress, and returns its exit code."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._stopped = False
        self._lock = threading.Lock()

    def __call__(
        self, command: str, arguments: Sequence[str], threads: int, log: Path, say: Say
    ) -> int:
        with self._lock:
            if self._stopped:
                return 130
            process = subprocess.Popen(
                [sys.executable, "-m", f"realdamage.{command}", *arguments],
                env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            self._running.append(process)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ realdamage-{command} {' '.join(arguments)}\n")
            file.flush()
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                if line.startswith(_TOLD):
                    say(line.rstrip())
        return process.wait()

    def stop(self) -> None:
        """Ends what runs, and starts nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


@dataclass(frozen=True)
class Scoring:
    """How the test photos of every fold are scored; `limit`: so many at most, whole groups."""

    perturbations: tuple[Perturbation, ...] = ()
    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class FoldRuns:
    """`threads`: of each of the `jobs` trainings side by side."""

    plan: FoldPlan
    manifest: Manifest
    scoring: Scoring
    threads: int
    jobs: int = 1
    launch: Launch = field(default_factory=Processes)
    progress: Track = no_progress

    def start_over(self) -> None:
        """Removes what was trained, exported and scored, of these folds and stages only."""
        for fold in self.plan.folds:
            for folder in (
                *(self.plan.folder(fold, stage) for stage in self.plan.stages),
                self._fold(fold) / TEST,
            ):
                shutil.rmtree(folder, ignore_errors=True)
            for name in (MODEL, "log.txt"):
                (self._fold(fold) / name).unlink(missing_ok=True)

    def run(self) -> dict[str, str]:
        """Finishes all folds; returns why those failed that did, by name. Training comes first for all of them, so that
        scoring has all processors. Raises ConfigError: a folder holds a run with other settings."""
        self.plan.check_settings()
        failed: dict[str, str] = {}
        pool = ThreadPoolExecutor(self.jobs)
        try:
            trained = {pool.submit(self._train, fold): fold for fold in self.plan.folds}
            for future in as_completed(trained):
                _try(trained[future], future.result, failed)
        finally:
            if isinstance(self.launch, Processes):
                self.launch.stop()
            pool.shutdown(wait=True, cancel_futures=True)
        for fold in self.plan.folds:
            if fold not in failed:
                _try(fold, partial(self._score, fold), failed)
        return failed

    def _fold(self, fold: str) -> Path:
        return self.plan.root / fold

    def _train(self, fold: str) -> None:
        """All stages, and the export of the last."""
        for stage in self.plan.stages:
            folder = self.plan.folder(fold, stage)
            if not ((folder / _FINISHED).is_file() and (folder / "best.ckpt").is_file()):
                self._launch(
                    fold, stage, "train", [*self.plan.overrides(fold, stage), "resume=last"]
                )
                write_atomically(folder / _FINISHED, b"")
        model, best = (
            self._fold(fold) / MODEL,
            self.plan.folder(fold, self.plan.stages[-1]) / "best.ckpt",
        )
        if not model.is_file() or model.stat().st_mtime_ns < best.stat().st_mtime_ns:
            arguments = [
                f"checkpoint={quoted(str(best))}",
                f"output={quoted(str(model))}",
                "overwrite=true",
            ]
            run = [
                f"paths.out={quoted(self.plan.out)}",
                f"name={quoted(f'{self.plan.name}/{fold}/export')}",
            ]
            self._launch(fold, "export", "export", [*arguments, *run])

    def _launch(self, fold: str, title: str, command: str, arguments: list[str]) -> None:
        log = self._fold(fold) / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        _say_of(f"{fold}, {title}", f"started (log: {log})")
        told = partial(_say_of, f"{fold}, {title}")
        code = self.launch(
            command, [*arguments, f"threads={self.threads}"], self.threads, log, told
        )
        if code:
            raise RealDamageError(
                f"{title} ended with exit code {code}; {log} says why. Mend it and start again"
            )
        told("done")

    def _score(self, fold: str) -> None:
        model, folder = self._fold(fold) / MODEL, self._fold(fold) / TEST
        column, values, scoring = self.plan.column, self.plan.folds[fold], self.scoring
        photos = photos_of_fold(self.manifest, column, values)
        if scoring.limit is not None:
            photos = draw_photos(photos, scoring.limit, scoring.seed)
        _, _, graph = read_model_file(model)
        suite = repr(scoring.perturbations)
        scored_with = {
            "model": graph,
            "photos": photos.digest(),
            "robustness": suite,
            "seed": scoring.seed,
        }
        mark = folder / _SCORED
        if mark.is_file() and (folder / "predictions.csv").is_file():
            changed = [
                key
                for key, value in json.loads(mark.read_text()).items()
                if value != scored_with.get(key)
            ]
            if not changed:
                return
            _say_of(fold, f"scored with another {' and another '.join(changed)} before")
        _say_of(fold, f"scoring {len(photos)} photos")
        scored = score_suite(
            ModelFile(model),
            photos,
            scoring.perturbations,
            folder=folder,
            model=graph,
            seed=scoring.seed,
            overwrite=True,  # drops only what was scored with other settings
            progress=self.progress,
        )
        write_predictions(folder / "predictions.csv", scored.predictions)
        rows = localisation_rows(scored, self.manifest, column, values, seed=scoring.seed)
        write_atomically(folder / LOCALISATION, json.dumps(rows, indent=1).encode())
        write_atomically(mark, json.dumps(scored_with, indent=1).encode())
        scored.discard()


def _try(fold: str, step: Callable[[], None], failed: dict[str, str]) -> None:
    try:
        step()
    except RealDamageError as error:
        failed[fold] = str(error)
        _say_of(fold, f"failed: {error}")


def _say_of(what: str, line: str) -> None:
    print(f"{what}: {line}", flush=True)
