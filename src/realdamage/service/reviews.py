"""The routes under /v1/reviews: a person's decision on a photo goes in, and comes back as history or as a manifest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from realdamage.core.policy import Outcome
from realdamage.errors import UsageError
from realdamage.files import FORMULA
from realdamage.service.describe import ERROR
from realdamage.service.refusals import Refusal
from realdamage.service.review_export import BIAS_NOTICE, FileNames, export_manifest
from realdamage.service.review_store import LENGTHS, Damage, Decision, Review, ReviewStore, with_nan


class ReviewRequest(BaseModel):
    """A decision as the page sends it; what the model said travels along, because the server keeps no verdicts."""

    model_config = ConfigDict(extra="forbid")

    photo_sha256: str = Field(
        description="the SHA-256 of the photo's bytes, as in its verdict: 64 lower-case hexadecimal digits",
        pattern="^[0-9a-f]{64}$",
    )
    decision: Decision = Field(description="what the person decided: real, synthetic or unsure")
    damage: Damage = Field("", description="what the photo shows, real or not; empty: not told")
    file_name: str = Field("", max_length=LENGTHS["file_name"])
    claim_id: str = Field("", max_length=LENGTHS["claim_id"])
    note: str = Field("", max_length=LENGTHS["note"])
    reviewer: str = Field("", max_length=LENGTHS["reviewer"])
    outcome: Outcome | None = Field(
        None, description="the verdict's outcome when the decision was made"
    )
    score: float | None = Field(None, description="the verdict's score", allow_inf_nan=False)
    model_version: str = Field("", max_length=LENGTHS["model_version"])

    def to_review(self, key_name: str) -> Review:
        """The typed value. Raises UsageError on what the schema cannot tell, such as control characters."""
        if self.reviewer.startswith(FORMULA):
            raise UsageError(
                f"reviewer: found {self.reviewer!r}; a name cannot start with {self.reviewer[0]!r}"
            )
        return Review(**with_nan(self.model_dump()), key_name=key_name)


def router(store: ReviewStore, was_judged: Callable[[str], bool]) -> APIRouter:
    """The routes under /v1/reviews, over this store. was_judged: whether the service has judged the photo with this
    SHA-256; a decision on any other is refused, unless the store has an earlier one on it."""
    routes = APIRouter(prefix="/v1/reviews", tags=["reviews"])

    not_judged = {
        "description": "The photo was not judged here",
        "content": {"application/json": {"schema": ERROR}},
    }

    @routes.post(
        "",
        status_code=201,
        summary="Store a person's decision on a photo",
        responses={409: not_judged},
    )
    def add(decided: ReviewRequest, request: Request) -> dict[str, Any]:
        """The photo must have been judged by this service. The decision is stored with the name of the key that sent
        it."""
        try:
            review = decided.to_review(key_name=getattr(request.state, "caller", ""))
        except UsageError as error:
            raise Refusal(422, "invalid_review", str(error)) from error
        digest = review.photo_sha256
        if not was_judged(digest) and not store.history(photos=[digest], limit=1):
            raise Refusal(
                409,
                "photo_not_judged",
                f"photo_sha256: the photo {digest[:12]}… was not judged here, or too long ago; have it judged again, "
                "then decide",
            )
        return store.add(review).to_dict()

    @routes.get(
        "", summary="Decisions, the newest first; on_disk tells whether they outlive the service"
    )
    def history(
        photo_sha256: Annotated[list[str] | None, Query(max_length=100)] = None,
        claim_id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        found = store.history(photos=photo_sha256 or (), claim_id=claim_id, limit=limit)
        return {
            "reviews": [review.to_dict() for review in found],
            "counts": store.counts(),
            "on_disk": store.path is not None,
            "notice": BIAS_NOTICE,
        }

    @routes.get(
        "/export", response_class=Response, summary="Decided photos as a manifest (CSV) to train on"
    )
    def export(
        names: Annotated[
            FileNames, Query(description="the photos' own names, or their digests")
        ] = "given",
    ) -> Response:
        """Put the photos beside it and name it metadata.csv. Only the last decision on a photo counts; those that
        nobody was sure about are left out. Such labels are a biased sample: only photos that somebody looked at."""
        headers = {
            "Content-Disposition": 'attachment; filename="metadata.csv"',
            "X-Realdamage-Notice": BIAS_NOTICE,
            "X-Realdamage-Left-Out": str(store.counts()["unsure"]),
        }
        return Response(
            export_manifest(store.current(), names),
            media_type="text/csv; charset=utf-8",
            headers=headers,
        )

    return routes
