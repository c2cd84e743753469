"""Why a request gets no answer, as one kind of error with one JSON form: a status, a code for programs, a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.exceptions import HTTPException


class Refusal(HTTPException):
    """A request that cannot be answered; `headers` go out with it."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code = code

    def to_json(self, request_id: str) -> bytes:
        """The body of the answer."""
        return json.dumps(
            {"error": {"code": self.code, "message": self.detail, "request_id": request_id}}
        ).encode()


def too_late(seconds: float) -> Refusal:
    """The deadline has passed; what had not begun was dropped."""
    return Refusal(
        504,
        "deadline",
        f"not done within the deadline of {seconds:g} s; what had not begun was dropped. "
        "Send fewer or smaller photos at a time, or raise --deadline",
    )


def too_slow(seconds: float) -> Refusal:
    """The body did not arrive in time."""
    return Refusal(
        408,
        "slow_upload",
        f"the request had not arrived whole after {seconds:g} s; send fewer photos at a time",
    )


def too_large(limit: int) -> Refusal:
    """The body has too many bytes."""
    return Refusal(
        413,
        "too_large",
        f"the request has more than {limit} bytes, which is the limit; send less at a time",
    )
