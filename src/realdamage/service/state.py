"""All that the routes share, in one value: settings, keys, figures, the model, the work at hand and what is bounded."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from fastapi import Request

from realdamage.provenance import TrustAnchors
from realdamage.service.keys import KeyRing
from realdamage.service.metrics import Metrics
from realdamage.service.models import ModelSlot
from realdamage.service.review_store import JudgedPhotos, ReviewStore
from realdamage.service.settings import Settings
from realdamage.service.shadow import Shadow
from realdamage.service.storage import ClaimStore
from realdamage.service.uploads import Form, Limits, UploadBudget, read_form
from realdamage.service.workload import Workload


@dataclass(eq=False)
class Service:
    """draining: True from the moment the service is told to stop; it then finishes what it has and takes nothing new.
    active: requests at hand."""

    settings: Settings
    keys: KeyRing
    metrics: Metrics
    models: ModelSlot
    workload: Workload
    uploads: UploadBudget
    reviews: ReviewStore
    judged: JudgedPhotos = field(default_factory=JudgedPhotos)
    store: ClaimStore | None = None
    shadow: Shadow | None = None
    trust_anchors: TrustAnchors | None = None
    draining: bool = False
    active: int = 0

    def deadline(self, request: Request) -> float:
        """When the request must have been answered, in time.monotonic."""
        started: float = request.scope["state"]["started"]
        return started + self.settings.deadline

    @contextlib.asynccontextmanager
    async def form(
        self, request: Request, files: frozenset[str], fields: frozenset[str]
    ) -> AsyncIterator[Form]:
        """The multipart body of a request; its bytes count against the budget until the block ends. Raises Refusal."""
        limits = Limits(self.settings.max_photos, self.settings.max_photo_bytes)
        with self._lease() as lease:
            content_type = request.headers.get("content-type", "")
            form = await read_form(
                content_type,
                request.stream(),
                files=files,
                fields=fields,
                limits=limits,
                take=lease,
            )
            yield form

    @contextlib.contextmanager
    def _lease(self) -> Iterator[_Lease]:
        lease = _Lease(self.uploads)
        try:
            yield lease
        finally:
            self.uploads.give_back(lease.taken)


class _Lease:
    """What one request has taken of the budget."""

    def __init__(self, budget: UploadBudget) -> None:
        self._budget, self.taken = budget, 0

    def __call__(self, count: int) -> None:
        self._budget.take(count)
        self.taken += count
