"""Everything that can be called: photos, claims, reviews, operation, the review page."""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from sqlalchemy import delete
from starlette.concurrency import run_in_threadpool

from realdamage.claims import Claim, ClaimIndex, ClaimPolicy, judge_claim, new_claim_id
from realdamage.claims.database import Database, Job, Setting, now
from realdamage.claims.decide import Finding, found_elsewhere
from realdamage.claims.exchange import ExchangeKey, find_hashes
from realdamage.core.detector import Detector
from realdamage.core.spans import span
from realdamage.core.tiles import read_photo
from realdamage.core.verdict import Verdict
from realdamage.errors import PhotoError, RealDamageError, UsageError
from realdamage.phrases import page_json
from realdamage.provenance import TrustAnchors, read_provenance
from realdamage.service.auth import KeyRing
from realdamage.service.batches import read_batch
from realdamage.service.cases import Cases
from realdamage.service.jobs import Jobs
from realdamage.service.limits import DeadlineError, UploadBudget, WorkQueue, read_form
from realdamage.service.metrics import Metrics, log_event
from realdamage.service.models import ServedModel
from realdamage.service.reviews import (
    BIAS_NOTICE,
    History,
    JudgedPhotos,
    Review,
    ReviewRequest,
    ReviewStore,
    export_manifest,
)
from realdamage.service.schemas import (
    FORM_ERRORS,
    BatchAnswer,
    BatchForm,
    ClaimAnswer,
    ClaimForm,
    JobAnswer,
    ModelAnswer,
    PhotosAnswer,
    PhotosForm,
    Refusal,
    Upload,
    errors,
    wrong_claim,
)
from realdamage.service.settings import Settings, TenantSettings, read_tenants
from realdamage.service.statements import Statements
from realdamage.service.store import ClaimStore
from realdamage.service.webhooks import Webhooks, read_targets

# The evidence has its own styles and pictures, and no script may run in it.
_EVIDENCE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
)
_DAY = 86400
_PAGE = Path(__file__).with_name("page")
_PAGE_FILES = {file.name for file in _PAGE.iterdir() if file.suffix != ".j2"}


class Service:
    """What all routes share. Raises UsageError when keys, trust anchors, claim policy, webhooks or
    store cannot be used."""

    def __init__(self, settings: Settings) -> None:
        anchors = settings.trust_anchors
        self.keys = KeyRing(settings)
        self.trust_anchors = TrustAnchors.read(anchors) if anchors else None
        if self.trust_anchors is not None:
            found = self.trust_anchors
            counts = {"authorities": found.authorities, "ignored": found.passed_over}
            log_event("trust anchors", **counts, sha256=found.sha256)
        self.metrics = Metrics()
        self.queue = WorkQueue(settings.workers, settings.max_queue)
        self.uploads = UploadBudget(settings.max_upload_bytes)
        self._models: list[ServedModel] = []  # at most one; a list, because tenants share it
        self._loading, self._opening = threading.Lock(), threading.Lock()
        self._tenants: dict[str, Service] = {}
        self._given = read_tenants(settings.tenants) if settings.tenants else {}
        self._take(settings, _open_store(settings))
        self.metrics.queue.set_function(lambda: self.queue.photos)
        self.metrics.uploads.set_function(lambda: self.uploads.taken)
        folder = self.store.folder if self.store is not None else None
        if isinstance(folder, Path):
            self.metrics.watch_store(lambda: shutil.disk_usage(folder).free)
        stored = self.store.tenants() if self.store is not None else []
        for tenant in sorted({*stored, *self._given, *(key.tenant for key in self.keys.keys)}):
            self.of(tenant)

    def _take(self, settings: Settings, store: ClaimStore | None) -> None:
        """Make what belongs to one tenant alone."""
        self.settings, self.store = settings, store
        policy = settings.claim_policy
        self.policy = ClaimPolicy.from_yaml(policy) if policy else ClaimPolicy()
        self.database = Database(None) if store is None else store.database
        self.reviews = ReviewStore(self.database)
        targets = read_targets(settings.webhooks) if settings.webhooks else []
        self.webhooks = Webhooks(targets, self.database, self.metrics)
        self.judged = JudgedPhotos()
        if store is not None:
            rules = self.policy.cases
            self.cases = Cases(store, rules, self.webhooks, is_local=settings.is_local)
            self.statements = Statements(
                store, self.cases, self.policy, settings, self.trust_anchors
            )
            self.jobs = Jobs(
                store,
                self.queue,
                partial(_judge_claim, self),
                self.cases.references,
                seconds=settings.job_deadline,
                slots=max(1, settings.workers // 2),
            )

    def of(self, tenant: str) -> Service:
        """This service as the keys of a tenant see it; "": the operator's own, whose keys name no
        tenant. Raises as `Service` does."""
        if not tenant:
            return self
        with self._opening:
            if tenant not in self._tenants:
                given = self._given.get(tenant, TenantSettings())
                settings = given.over(self.settings)
                store = self.store and self.store.for_tenant(tenant, settings.retention_days)
                made = copy.copy(self)
                made._take(settings, store)
                self._tenants[tenant] = made
            return self._tenants[tenant]

    def of_link(self, token: str) -> Service:
        """The service of the tenant that a statement's link names; unknown ones are not made."""
        tenant, _, _ = token.rpartition("~")
        return self._tenants.get(tenant, self)

    def each(self) -> list[Service]:
        """This service as each tenant sees it, the operator's own first."""
        with self._opening:
            return [self, *self._tenants.values()]

    def count_photos(self, photos: int) -> None:
        """Count photos of a request towards the tenant's quota of the day. Raises Refusal 429."""
        if (most := self.settings.photos_per_day) is None:
            return
        day, time_of_day = divmod(now(), _DAY)
        name = f"photos_{int(day)}"
        with self.database.transaction() as session:
            found = session.get(Setting, name) or Setting(name=name, value=0.0)
            if found.value + photos > most:
                message = f"{int(found.value)} of {most} photos a day are used. Try tomorrow."
                wait = math.ceil(_DAY - time_of_day)
                raise Refusal(429, "quota", message, retry_after=wait)
            found.value += photos
            session.add(found)
            session.execute(delete(Setting).where(Setting.name < name, Setting.name > "photos_"))

    @property
    def model(self) -> ServedModel | None:
        """The model that answers now, for all tenants."""
        return self._models[-1] if self._models else None

    def load(self) -> None:
        """Load the model, unless it is loaded. Raises ModelFileError."""
        if self.model is None:
            self.load_model()

    def load_model(self) -> ServedModel:
        """Let the model file answer new requests. Raises ModelFileError; the old one then stays."""
        metrics = self.metrics
        with self._loading:
            try:
                model = ServedModel.load(self.settings)
            except Exception:
                metrics.reloads.labels("kept_old" if self.model else "failed").inc()
                raise
            self._models[:] = [model]
            metrics.reloads.labels("loaded").inc()
            metrics.show_model(model.metadata.model_version, model.graph_sha256)
        return model

    def loaded_model(self) -> ServedModel:
        """The model that answers now. Raises RealDamageError before the first is loaded."""
        if self.model is None:
            raise RealDamageError("no model is loaded yet", code="not_loaded")
        return self.model

    def close(self) -> None:
        """Stop the threads and close the files."""
        for one in self.each():
            one.webhooks.stop()
            if one.store is not None:
                one.jobs.stop()
        self.queue.close()
        for one in reversed(self.each()):  # the operator's store closes what they share
            if one.store is not None:
                one.store.close()
            one.database.close()

    def settle(self) -> None:
        """What time alone changes: decisions become final, deadlines come near."""
        if self.store is not None:
            self.store.workers.check()
            self.cases.settle()

    def note(self, verdict: Verdict) -> None:
        """A photo was judged: count it, and let it be reviewed."""
        self.metrics.photos.labels(verdict.outcome).inc()
        self.judged.add(verdict.photo_sha256)

    def was_judged(self, sha256: str) -> bool:
        """Whether this process judged the photo, or a stored claim has it."""
        return sha256 in self.judged or (
            self.store is not None and self.store.index.has_photo(sha256)
        )


def _open_store(settings: Settings) -> ClaimStore | None:
    if settings.store is None:
        return None
    key = settings.exchange_key
    return ClaimStore(
        settings.store,
        settings.retention_days,
        database=settings.database,
        secret=settings.secret,
        exchange=ExchangeKey.read(key) if key else None,
        keep_originals=settings.keep_originals,
    )


async def _service(request: Request) -> Service:
    """The service as the caller's tenant sees it; no route gets another one."""
    service: Service = request.app.state.service
    if token := request.path_params.get("token"):
        return service.of_link(token)
    return service.of(request.state.tenant)  # which the keys opened when they were read


async def count_photos(request: Request, service: Service, photos: int) -> None:
    """Count the photos of a request that is accepted. Raises Refusal 429 above the quota."""
    request.state.photos = photos
    await run_in_threadpool(service.count_photos, photos)


Shared = Annotated[Service, Depends(_service)]
router = APIRouter(responses=errors())


# Photos and claims


@router.post(
    "/v1/photos",
    tags=["photos"],
    response_model=PhotosAnswer,
    openapi_extra=PhotosForm.openapi(),
    responses=errors(*FORM_ERRORS),
)
async def judge_photos(request: Request, service: Shared) -> JSONResponse:
    """Judge photos, each by itself. The status is that of the request: a photo that cannot be
    read has an `error` instead of a `verdict`, and the status is 200 even when none can be read."""
    form = await read_form(request, PhotosForm, service.settings)
    await count_photos(request, service, len(form.photos))
    model, deadline = service.loaded_model(), request.state.deadline
    try:
        detector = model.detector(deadline, form.prior)
    except UsageError as error:
        raise Refusal(422, "invalid_field", f"prior: {error}.") from error
    heatmaps = form.heatmaps == "true"
    jobs = [partial(_judge_photo, service, detector, photo, heatmaps) for photo in form.photos]
    return JSONResponse(
        {
            "results": await service.queue.run(jobs, deadline),
            "model_version": model.metadata.model_version,
            "graph_sha256": model.graph_sha256,
            "request_id": request.state.request_id,
        }
    )


def _judge_photo(
    service: Service, detector: Detector, upload: Upload, heatmaps: bool
) -> dict[str, Any]:
    verdict = judge_upload(service, detector, upload)
    if isinstance(verdict, PhotoError):
        return {"name": upload.name, "error": verdict.to_dict()}
    declared = read_provenance(
        upload.data,
        name=upload.name,
        trust_anchors=service.trust_anchors,
        max_pixels=service.settings.max_pixels,
    )
    return {
        "name": upload.name,
        "verdict": json.loads(verdict.to_json(heatmap=heatmaps)),
        "provenance": declared.to_dict(),
    }


def judge_upload(service: Service, detector: Detector, upload: Upload) -> Verdict | PhotoError:
    """The verdict on a photo, counted, or why it cannot be read."""
    limit = service.settings.max_pixels
    try:
        photo = read_photo(upload.data, detector.pixel_spec, name=upload.name, max_pixels=limit)
        verdict = detector.predict_photo(photo)
    except PhotoError as error:
        service.metrics.photos.labels("unreadable").inc()
        return error
    service.note(verdict)
    return verdict


@router.post(
    "/v1/claims",
    tags=["claims"],
    response_model=ClaimAnswer,
    openapi_extra=ClaimForm.openapi(),
    responses={**errors(*FORM_ERRORS, 409), 202: {"model": JobAnswer}},
)
async def judge_one_claim(request: Request, service: Shared) -> Response:
    """Judge a claim: one recommendation with its reasons, from verdicts, what the files declare,
    the listing photos and earlier claims. A photo that cannot be read fails alone; 422 when none
    can. With keep=true, send a claim_id of your own: a request that is sent again after a lost
    answer is then a 409, not a second claim with the same photos."""
    form = await read_form(request, ClaimForm, service.settings)
    if form.keep == "true" and service.store is None:
        raise Refusal(422, "no_store", "This service stores nothing; start it with --store DIR.")
    limits = service.policy.photos
    for found, most in ((form.photos, limits.at_most), (form.listings, limits.listings_at_most)):
        if len(found) > most:
            message = f"{len(found)} photos, but the claim policy takes at most {most}."
            raise Refusal(413, "too_many_photos", message)
    await count_photos(request, service, len(form.photos) + len(form.listings))
    if form.later == "true":
        return await _judge_later(service, form)
    deadline = request.state.deadline
    references = service.cases.references(form) if service.store is not None else {}
    job = partial(_judge_claim, service, form, references, deadline)
    try:
        (body,) = await service.queue.run([job], deadline, photos=request.state.photos)
    except (PhotoError, UsageError) as error:
        raise wrong_claim(error) from error
    return Response(body, media_type="application/json")


async def _judge_later(service: Service, form: ClaimForm) -> Response:
    """Answer 202 once the photos are on the disk, and judge with a longer deadline."""
    store_of(service)
    if form.keep != "true":
        raise Refusal(422, "invalid_field", "later: needs keep=true, or the answer would be lost.")
    (job,) = await service.jobs.accept([form])
    answer = _job_answer(job)
    return JSONResponse(answer.model_dump(), 202, {"Location": answer.url})


def _job_answer(job: Job) -> JobAnswer:
    error = json.loads(job.error) if job.error else None
    about: Any = {"id": job.id, "claim_id": job.claim_id, "status": job.status, "error": error}
    return JobAnswer(**about, url=f"/v1/jobs/{job.id}")


@router.post(
    "/v1/batches",
    tags=["claims"],
    status_code=202,
    openapi_extra=BatchForm.openapi(),
    responses=errors(*FORM_ERRORS, 404),
)
async def judge_batch(request: Request, service: Shared) -> BatchAnswer:
    """Judge many claims later: each becomes a case, or none when the batch cannot be read.

    Photos in one folder are one claim, called after the folder. Photos in no folder are one claim
    for each beginning of a name up to its last "_". A folder inside that is called "listing", or a
    name whose rest begins with "listing", holds the shop's photos."""
    store_of(service)
    form = await read_form(request, BatchForm, service.settings)
    settings, limits = service.settings, service.policy.photos
    batch = await run_in_threadpool(read_batch, form, settings, limits)
    await count_photos(request, service, batch.photos)
    jobs = await service.jobs.accept(batch.forms, is_batch=True)
    return BatchAnswer(claims=[_job_answer(job) for job in jobs], ignored=list(batch.ignored))


@router.get("/v1/jobs/{job_id}", tags=["claims"], responses=errors(404))
def read_job(job_id: str, service: Shared, _: Store) -> JobAnswer:
    """A claim sent with later=true: once done, read it at /v1/claims/{claim_id}."""
    return _job_answer(service.jobs.find(job_id))


def _judge_claim(
    service: Service,
    form: ClaimForm,
    references: dict[str, str],
    deadline: float,
    job_id: str = "",
) -> bytes:
    """The claim as JSON, kept where the form asks for it. references: see `Cases.references`."""
    claim_id, store, model = form.claim_id or new_claim_id(), service.store, service.loaded_model()

    def judged(index: ClaimIndex | None) -> Claim:
        more: list[Finding] = []
        if store is not None and (shared := references["buyer_shared"]):
            matches = find_hashes(store.database, [shared])
            more = found_elsewhere(matches, service.policy)
        return judge_claim(
            form.photos,
            detector=model.detector(deadline),
            listings=form.listings,
            text=form.text,
            claim_id=claim_id,
            policy=service.policy,
            index=index,
            max_pixels=service.settings.max_pixels,
            trust_anchors=service.trust_anchors,
            more=more,
        )

    keep = form.keep == "true"
    if keep and store is not None:
        with store.new(claim_id, job_id):
            claim = judged(store.index)
            if time.monotonic() > deadline:
                raise DeadlineError
            about = service.cases.about(form, claim, references)
            with span("store"):
                store.keep(claim, form.photos, form.listings, about, on_kept=service.cases.kept)
    else:
        claim = judged(store.read_only_index if store is not None else None)
    service.metrics.claims.labels(claim.recommendation).inc()
    for photo in claim.photos:
        if photo.verdict is None:
            service.metrics.photos.labels("unreadable").inc()
        else:
            service.note(photo.verdict)
    values = claim.to_dict(heatmaps=form.heatmaps == "true")
    if keep:
        values["evidence_url"] = f"/v1/claims/{claim_id}/evidence.html"
    return json.dumps(values, allow_nan=False).encode()


def store_of(service: Shared) -> ClaimStore:
    """The store. Raises Refusal 404 without one."""
    if service.store is None:
        message = "This service stores no claims; start it with --store DIR and send keep=true."
        raise Refusal(404, "not_found", message)
    return service.store


Store = Annotated[ClaimStore, Depends(store_of)]


@router.get("/v1/claims/{claim_id}", tags=["claims"], responses=errors(404))
def read_claim(claim_id: str, store: Store) -> Response:
    """The evidence of a stored claim, as JSON."""
    return Response(store.read(claim_id, "evidence.json"), media_type="application/json")


@router.get(
    "/v1/claims/{claim_id}/evidence.html",
    tags=["claims"],
    response_class=Response,
    responses={**errors(404), 200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def read_evidence(claim_id: str, store: Store) -> HTMLResponse:
    """The evidence of a stored claim, as one page to read and print."""
    content = store.read(claim_id, "evidence.html")
    return HTMLResponse(content, headers={"Content-Security-Policy": _EVIDENCE_POLICY})


@router.delete("/v1/claims/{claim_id}", tags=["claims"], responses=errors(404, 409))
def delete_claim(request: Request, claim_id: str, service: Shared) -> dict[str, str]:
    """Remove a claim's evidence, the hashes of its photos, and its reviews, kept or not."""
    if service.store is not None or not service.reviews.delete(claim_id):
        store_of(service).delete(claim_id, by=request.state.caller)
    return {"deleted": claim_id}


# Reviews


@router.post("/v1/reviews", tags=["reviews"], status_code=201, responses=errors(409, 422))
def add_review(decided: ReviewRequest, request: Request, service: Shared) -> Review:
    """Store a person's decision on a photo that this service has judged."""
    digest = decided.photo_sha256
    if not service.was_judged(digest) and not service.reviews.history(photos=[digest], limit=1):
        message = f"Photo {digest[:12]}… was not judged here recently. Have it judged again."
        raise Refusal(409, "photo_not_judged", message)
    return service.reviews.add(Review(**decided.model_dump(), key_name=request.state.caller))


@router.get("/v1/reviews", tags=["reviews"], responses=errors(422))
def review_history(
    service: Shared,
    photo_sha256: Annotated[list[str] | None, Query(max_length=100)] = None,
    claim_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> History:
    """Decisions, the newest first."""
    found = service.reviews.history(photos=photo_sha256 or (), claim_id=claim_id, limit=limit)
    return History(
        reviews=found,
        counts=service.reviews.counts(),
        on_disk=service.store is not None,
        notice=BIAS_NOTICE,
    )


@router.get("/v1/reviews/export", tags=["reviews"], response_class=Response)
def export_reviews(service: Shared) -> Response:
    """Decided photos as a manifest to train on: put it next to the photos as metadata.csv. The last
    decision on a photo counts; unsure ones are left out."""
    table = export_manifest(service.reviews.current())
    headers = {"Content-Disposition": 'attachment; filename="metadata.csv"'}
    return Response(table, media_type="text/csv; charset=utf-8", headers=headers)


# Operation


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", tags=["operation"])
async def health() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", tags=["operation"])
async def ready(service: Shared) -> dict[str, str]:
    """New requests would be answered, and claims stored where there is a store; else 503."""
    model = service.model
    if model is None:
        raise Refusal(503, "loading", "The model is still being loaded.", retry_after=1)
    if service.queue.is_stuck:
        message = "Every worker is busy with a photo long after its deadline. Restart the service."
        raise Refusal(503, "workers_stuck", message, retry_after=30)
    if model.scorer.failed and not await run_in_threadpool(model.works):
        message = "The model fails; the service's log says why."
        raise Refusal(503, "model_fails", message, retry_after=30)
    if service.store is not None:
        await run_in_threadpool(service.store.check)
    return {"status": "ready"}


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(request: Request, service: Shared) -> Response:
    """For the operator: figures in Prometheus' text format, without content or name of photos."""
    if request.state.tenant:
        raise Refusal(403, "operator_only", "This is for the operator of the service.")
    media_type = "text/plain; version=0.0.4; charset=utf-8"
    return Response(service.metrics.text(), media_type=media_type)


@router.get("/v1/model", tags=["operation"], response_model=ModelAnswer)
async def model(service: Shared) -> dict[str, Any]:
    """The model that answers, with its calibration, thresholds and their guarantee."""
    return service.loaded_model().to_dict()


def reload_model(service: Service) -> None:
    """Load the model file again. With a broken file the old model stays, and the log says so."""
    try:
        loaded = service.load_model()
    except RealDamageError as error:
        log_event("model not reloaded", logging.ERROR, reason=str(error))
    else:
        version = loaded.metadata.model_version
        log_event("model loaded", model_version=version, graph_sha256=loaded.graph_sha256)


def reload_keys(service: Service) -> None:
    """Read the keys again. What cannot be read, or holds no key, is logged and changes nothing."""
    try:
        ring = KeyRing(service.settings)
        for key in ring.keys:
            service.of(key.tenant)
    except RealDamageError as error:
        log_event("keys not reloaded", logging.ERROR, reason=str(error))
    else:
        service.keys = ring
        log_event("keys loaded", keys=len(ring.keys))


# The page


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
async def index() -> FileResponse:
    return FileResponse(_PAGE / "index.html")


@router.get("/s/{token}", include_in_schema=False)
async def statement_page(token: str) -> FileResponse:
    return FileResponse(_PAGE / "statement.html")


@router.get("/page/phrases/{language}.json", include_in_schema=False)
async def phrases(language: str) -> Response:
    """The service's sentences, which the page fills in."""
    if language not in ("en", "zh"):
        raise Refusal(404, "not_found", f"There are no phrases in {language[:20]!r}.")
    return Response(page_json(language), media_type="application/json")


@router.get("/page/{name}", include_in_schema=False)
async def page(name: str) -> FileResponse:
    """A file of the folder; a name with a path in it is none of them."""
    if name not in _PAGE_FILES:
        raise Refusal(404, "not_found", f"The page has no file {name[:80]!r}.")
    return FileResponse(_PAGE / name)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    environment = jinja2.Environment(autoescape=True)
    template = environment.from_string((_PAGE / "docs.html.j2").read_text(encoding="utf-8"))
    return HTMLResponse(template.render(api=request.app.openapi()))
