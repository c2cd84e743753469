"""Claims that are judged after their requests were answered.

Their photos are in the store before the answer, so that a killed service finishes them when it runs
again. A claim is never kept twice: its id is taken from the answer on, and what a killed service
had kept already is not judged again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from realdamage.claims import database as tables
from realdamage.claims import new_claim_id
from realdamage.claims.database import Job
from realdamage.claims.paths import (
    AnyPath,
    StoreError,
    files_named,
    modified,
    remove_folder,
    replace_file,
    write_new,
)
from realdamage.errors import PhotoError, UsageError
from realdamage.service.limits import WorkQueue
from realdamage.service.metrics import log_event
from realdamage.service.schemas import ClaimForm, Refusal, Upload, wrong_claim
from realdamage.service.store import ClaimStore, has_room, running_job, under_way

Judge = Callable[[ClaimForm, dict[str, str], float, str], object]
"""Judges and keeps a claim: its form, its keyed references, the deadline, and the job's id."""
MOST_TRIES = 3
"""A job whose service was killed so often is given up: its photos may be the cause."""
_MOST_WAITING = 1000  # jobs
_POLL_S = 0.2  # for room in the queue
_LEFT_OVER_S = 3600  # from when a folder without a job is nobody's
_SWEEP_S = 600  # between looks for such folders
_RETRY_S = 30  # after an object store did not answer
_ABOUT = "claim.json"


class Jobs:
    """The claims that wait in the store, and the tasks that judge them. slots: at the same time.

    seconds: for judging one. references: keyed hashes of a form's buyer and device; the references
    themselves are never written.
    """

    def __init__(
        self,
        store: ClaimStore,
        queue: WorkQueue,
        judge: Judge,
        references: Callable[[ClaimForm], dict[str, str]],
        *,
        seconds: float,
        slots: int,
    ) -> None:
        self._store, self._queue, self._judge = store, queue, judge
        self._references, self._seconds = references, seconds
        self._folder = store.folder / "jobs"
        self._slots, self._accepting = asyncio.Semaphore(slots), asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping, self._next_sweep = False, 0.0

    async def accept(self, forms: Iterable[ClaimForm], *, is_batch: bool = False) -> list[Job]:
        """Write the photos of each claim into the store, and begin to judge them in order.

        Nothing is accepted when one cannot be written. In a batch, a claim whose id is in use is a
        failed job. Raises Refusal 409 when the id of a single claim is in use, 429, 503.
        """
        async with self._accepting:  # a batch takes memory while it is unpacked
            jobs = await run_in_threadpool(self._accept, forms, is_batch)
        for job in jobs:
            if job.status == "running":
                self._start(job.id)
        return jobs

    async def resume(self) -> None:
        """Begin again with what processes that no longer live have left unfinished."""
        for job_id in await run_in_threadpool(self._take_over):
            self._start(job_id)

    def find(self, job_id: str) -> Job:
        """Raises Refusal 404."""
        with self._store.database.reading() as session:
            job = session.get(Job, job_id)
        if job is None:
            raise Refusal(404, "not_found", f"No job {job_id[:40]!r}.")
        return job

    def stop(self) -> None:
        """Begin no more jobs. Those that are not done go on when the service runs again."""
        self._is_stopping = True

    def _accept(self, forms: Iterable[ClaimForm], is_batch: bool) -> list[Job]:
        self._store.check_room()
        written: list[Job] = []
        is_accepted = False
        try:
            for form in forms:
                written.append(self._write(form))
            with self._store.database.transaction() as session:
                count = select(func.count()).select_from(Job).where(Job.status == "running")
                waiting = session.scalar(count) or 0
                if waiting + len(written) > _MOST_WAITING:
                    message = f"{waiting} claims wait to be judged, at most {_MOST_WAITING} may."
                    raise Refusal(429, "busy", message, retry_after=60)
                for job in written:
                    self._add(session, job, is_batch)
            is_accepted = True
        except OSError as error:
            log_event("jobs not accepted", logging.ERROR, reason=str(error))
            message = "The claim store cannot be written. Free disk space, or try again later."
            raise Refusal(503, "store_fails", message, retry_after=60) from error
        finally:
            for job in written:
                if not is_accepted or job.status != "running":
                    self._remove(job.id)
        return written

    def _add(self, session: Session, job: Job, is_batch: bool) -> None:
        try:
            self._store.check_unused(session, job.claim_id)
            if waits := running_job(session, job.claim_id):
                raise under_way(job.claim_id, waits)
        except Refusal as refusal:
            if not is_batch:
                raise
            job.status, job.error, job.finished = "failed", _said(refusal), tables.now()
        session.add(job)
        session.flush()

    def _write(self, form: ClaimForm) -> Job:
        """Write the files of a claim. The row of the returned job is what makes them count."""
        job_id, claim_id = secrets.token_hex(12), form.claim_id or new_claim_id()
        files = {"photos": form.photos, "listings": form.listings}
        about: dict[str, Any] = form.model_dump(exclude={*files, "buyer", "device"})
        about |= {kind: [one.name for one in uploads] for kind, uploads in files.items()}
        about |= {"claim_id": claim_id, "references": self._references(form)}
        folder = self._folder / job_id
        if isinstance(folder, Path):
            folder.mkdir(mode=0o700, parents=True)
        try:
            for kind, uploads in files.items():
                for number, one in enumerate(uploads):
                    write_new(folder / f"{kind}-{number}", one.data)
            write_new(folder / _ABOUT, json.dumps(about).encode())
        except BaseException:
            self._remove(job_id)
            raise
        columns = {"worker": self._store.workers.own, "created": tables.now(), "finished": 0.0}
        return Job(id=job_id, claim_id=claim_id, status="running", error="", **columns)

    def _read(self, folder: AnyPath) -> tuple[ClaimForm, dict[str, str]]:
        about = json.loads((folder / _ABOUT).read_bytes())
        references = about.pop("references")
        for kind in ("photos", "listings"):
            about[kind] = [
                Upload(name, (folder / f"{kind}-{number}").read_bytes())
                for number, name in enumerate(about[kind])
            ]
        return ClaimForm.model_validate(about), references

    def _start(self, job_id: str) -> None:
        task = asyncio.create_task(self._run(job_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job_id: str) -> None:
        """Judge a claim; as long as its store does not answer, again and again."""
        while True:
            async with self._slots:
                if self._is_stopping:
                    return
                try:
                    error = await self._judged(job_id)
                    if error is not None:
                        await run_in_threadpool(self._finish, job_id, error)
                    return
                except StoreError as failure:
                    log_event("job waits", logging.ERROR, job=job_id, reason=str(failure))
            await asyncio.sleep(_RETRY_S)

    async def _judged(self, job_id: str) -> str | None:
        """Judge and keep a claim; returns why that failed, as JSON, or "". None: the service
        stopped meanwhile, and the next start goes on. Raises StoreError."""
        try:
            sent = await run_in_threadpool(files_named, self._folder / job_id, "*-*")
            photos = len(sent)
            await self._wait_for_room(photos)
            deadline = time.monotonic() + self._seconds
            work = partial(self._judge_one, job_id, deadline)
            await self._queue.run([work], deadline, photos=photos)
        except Refusal as refusal:
            return _said(refusal)
        except (PhotoError, UsageError) as wrong:
            return _said(wrong_claim(wrong))
        except StoreError:
            raise
        except Exception as failure:
            if self._is_stopping:
                return None
            log_event("job failed", logging.ERROR, job=job_id, reason=str(failure))
            message = "The service failed; its log says why."
            return json.dumps({"code": "unavailable", "message": message})
        return ""

    async def _wait_for_room(self, photos: int) -> None:
        while True:
            try:
                return self._queue.check_room(photos)
            except Refusal:
                await asyncio.sleep(_POLL_S)

    def _judge_one(self, job_id: str, deadline: float) -> None:
        folder = self._folder / job_id
        noted = folder / "tries"
        tries = 1 + (len(noted.read_bytes()) if noted.is_file() else 0)
        replace_file(noted, b"." * tries)
        if tries > MOST_TRIES:
            message = f"The service stopped {MOST_TRIES} times while it judged this claim."
            raise Refusal(503, "interrupted", message)
        form, references = self._read(folder)
        if tries > 1 and self._store.is_kept(form.claim_id or ""):
            return  # it was killed after the claim was kept, before the job said so
        self._judge(form, references, deadline, job_id)

    def _finish(self, job_id: str, error: str) -> None:
        values = {"status": "failed" if error else "done", "error": error}
        with self._store.database.transaction() as session:
            query = update(Job).where(Job.id == job_id)
            session.execute(query.values(**values, finished=tables.now()))
        self._remove(job_id)

    def _remove(self, job_id: str) -> None:
        """Remove the files of a job; what cannot be removed now is `_remove_left_over`'s."""
        with contextlib.suppress(OSError):
            remove_folder(self._folder / job_id)

    def _take_over(self) -> list[str]:
        if not has_room(self._store.folder):
            return []
        if time.monotonic() > self._next_sweep:
            self._next_sweep = time.monotonic() + _SWEEP_S
            self._remove_left_over()
        running = select(Job).where(Job.status == "running").order_by(Job.created)
        own = self._store.workers.own
        with self._store.database.reading() as session:
            workers = {job.worker for job in session.scalars(running)}
        dead = [one for one in workers if one != own and not self._store.workers.lives(one)]
        if not dead:
            return []
        taken: list[str] = []
        lost: list[str] = []
        with self._store.database.transaction() as session:
            for job in session.scalars(running.where(Job.worker.in_(dead))):
                job.worker = own
                (taken if (self._folder / job.id / _ABOUT).is_file() else lost).append(job.id)
        for job_id in lost:
            message = "The photos of this claim are no longer there. Send the claim again."
            self._finish(job_id, json.dumps({"code": "interrupted", "message": message}))
        return taken

    def _remove_left_over(self) -> None:
        """Folders of jobs that were never accepted, or are done."""
        old = time.time() - _LEFT_OVER_S
        for folder in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                with self._store.database.reading() as session:
                    job = session.get(Job, folder.name)
                is_used = job is not None and job.status == "running"
                if not is_used and modified(folder) < old:
                    remove_folder(folder)


def _said(refusal: Refusal) -> str:
    return json.dumps({"code": refusal.code, "message": str(refusal.detail)})
