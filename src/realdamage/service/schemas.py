"""The HTTP interface as pydantic models: they check requests and make /openapi.json."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_origin

from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from realdamage.claims.judge import MAX_TEXT
from realdamage.core.verdict import Verdict
from realdamage.errors import PhotoError, RealDamageError

CLAIM_ID = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Ids that are folder names on every system; the ids that the service makes up fit too."""

_MOST_FAULTS = 3  # named in one answer
_LONGEST_VALUE = 80  # characters of a caller's value that an answer repeats


class Refusal(HTTPException):
    """Why a request gets no answer; retry_after: in seconds."""

    def __init__(self, status: int, code: str, message: str, retry_after: int = 0) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if retry_after:
            headers["Retry-After"] = str(retry_after)
        super().__init__(status, message, headers)
        self.code = code

    def response(self, request_id: str, path: str) -> JSONResponse:
        """path: of the request; below /v2 the answer is the Open Inference Protocol's."""
        error: dict[str, Any] = {"code": self.code, "request_id": request_id}
        if path.startswith("/v2"):
            body = {**error, "error": self.detail}
        else:
            body = {"error": {**error, "message": self.detail}}
        return JSONResponse(body, self.status_code, self.headers)


def wrong_claim(error: RealDamageError) -> Refusal:
    """The refusal for a claim that cannot be judged as it was sent."""
    code = "unreadable_photo" if isinstance(error, PhotoError) else "invalid_field"
    return Refusal(422, code, str(error))


def not_valid(errors: Sequence[Mapping[str, Any]], fields: Mapping[str, FieldInfo]) -> Refusal:
    """What pydantic found wrong, in words. fields: of the request, for what each one means."""
    sentences = []
    for error in errors[:_MOST_FAULTS]:
        path = [str(part) for part in error["loc"] if part not in ("body", "query")]
        field = fields.get(path[0]) if path else None
        sentence = f"{'.'.join(path)[:_LONGEST_VALUE]}: {error['msg']}"
        if field is None and error["loc"][0] == "body":
            known = ", ".join(fields)
            sentence += f". Send a JSON object as application/json with the fields {known}"
        elif error["type"] != "missing":
            sentence += f", found {repr(error['input'])[:_LONGEST_VALUE]}"
        if field is not None and field.description:
            sentence += f" ({field.description})"
        sentences.append(f"{sentence}.")
    code = "invalid_review" if errors[0]["type"] == "invalid_review" else "invalid_field"
    return Refusal(422, code, " ".join(sentences))


# Requests


def _printable(text: str) -> str:
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t":
            raise PydanticCustomError("invalid_review", "has control characters; remove them")
    return text


Text = Annotated[str, AfterValidator(_printable)]


class Upload(NamedTuple):
    """A file of a request; name: as the caller wrote it, printable and at most 200 characters."""

    name: str
    data: bytes


File = Annotated[Upload, WithJsonSchema({"type": "string", "format": "binary"})]
Flag = Literal["true", "false"]


class UploadForm(BaseModel):
    """A multipart form. Its lists are files, in the order sent; everything else is text."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def file_fields(cls) -> set[str]:
        """Names of the fields that hold files."""
        fields = cls.model_fields.items()
        return {name for name, field in fields if get_origin(field.annotation) is list}

    @classmethod
    def openapi(cls) -> dict[str, Any]:
        """For `openapi_extra`: FastAPI does not see forms that the service reads itself."""
        content = {"multipart/form-data": {"schema": cls.model_json_schema()}}
        return {"requestBody": {"required": True, "content": content}}


class JudgedForm(UploadForm):
    photos: Annotated[list[File], Field(min_length=1)]
    """the photos' files, as they came from the phone"""
    heatmaps: Flag = "true"
    """include heat maps as PNG in base64"""


class PhotosForm(JudgedForm):
    prior: Annotated[float, Field(gt=0, lt=1)] | None = None
    """share of synthetic photos among yours, between 0 and 1"""


class ClaimForm(JudgedForm):
    listings: list[File] = []
    """the shop's photos of the intact product"""
    text: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    """what the buyer wrote"""
    claim_id: Annotated[str, Field(pattern=f"^{CLAIM_ID}$")] | None = None
    """your id, 1 to 64 letters, digits, dots, dashes or underscores; default: a new one"""
    keep: Flag = "false"
    """store the decision and its evidence; needs a service with --store"""
    later: Flag = "false"
    """answer 202 with a job at once; needs keep=true"""
    order_id: Annotated[Text, Field(max_length=100)] = ""
    """the order, as your shop numbers it"""
    product: Annotated[Text, Field(max_length=200)] = ""
    """what was sold"""
    merchant: Annotated[Text, Field(max_length=100)] = ""
    """who sold it"""
    amount: Annotated[str, Field(pattern=r"^(\d{1,10}(\.\d{1,2})?)?$")] = ""
    """what the buyer asks for, as a decimal number"""
    currency: Annotated[str, Field(pattern="^([A-Z]{3})?$")] = ""
    """of the amount, such as CNY"""
    buyer: Annotated[str, Field(max_length=200)] = ""
    """your reference of the buyer; only its keyed hash is stored"""
    device: Annotated[str, Field(max_length=500)] = ""
    """a hint at the buyer's device, such as a cookie; only its keyed hash is stored"""


class BatchForm(UploadForm):
    archive: list[File] = []
    """one zip"""
    photos: list[File] = []
    """instead of a zip: photos, each with its folder in its name"""
    merchant: Annotated[Text, Field(max_length=100)] = ""
    """who sold the products of all claims"""
    currency: Annotated[str, Field(pattern="^([A-Z]{3})?$")] = ""
    """of all claims, such as CNY"""


class StatementForm(UploadForm):
    text: Annotated[Text, Field(max_length=MAX_TEXT)] = ""
    """what the buyer or the merchant says"""
    photos: list[File] = []
    """photos of the item or the packaging"""
    frames: list[File] = []
    """frames of the live camera, in the order taken"""
    taken: Annotated[str, Field(pattern=r"^(\d{1,16}(,\d{1,16}){0,63})?$")] = ""
    """when each frame was taken: milliseconds since 1970, separated by commas"""
    nonce: Annotated[str, Field(max_length=16)] = ""
    """the number that the page showed while the frames were taken"""
    videos: list[File] = []
    """videos, where the service reads them"""

    def taken_ms(self) -> list[int]:
        """When each frame was taken."""
        return [int(one) for one in self.taken.split(",") if one]


# Answers


class Answer(BaseModel):
    """An answer in JSON."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


VerdictJson = Annotated[dict[str, Any], WithJsonSchema(Verdict.json_schema())]


class PhotoResult(Answer):
    """A verdict and what the file declares (nothing declared proves nothing), or an error."""

    name: str
    verdict: VerdictJson | None = None
    provenance: dict[str, Any] | None = None
    error: dict[str, str] | None = None


class PhotosAnswer(Answer):
    results: list[PhotoResult]
    """one a photo, in the order sent"""
    model_version: str
    graph_sha256: str
    request_id: str


class ClaimAnswer(Answer):
    """One recommendation for a claim, with its reasons. evidence.schema.json describes the rest."""

    claim_id: str
    recommendation: str
    reasons: list[dict[str, Any]]
    photos: list[dict[str, Any]]


class JobAnswer(Answer):
    """A claim that is judged after its request was answered."""

    id: str
    claim_id: str
    status: Literal["running", "done", "failed"]
    error: dict[str, str] | None
    url: str
    """where to ask again"""


class BatchAnswer(Answer):
    claims: list[JobAnswer]
    """a job for each claim, in the order of their names"""
    ignored: list[str]
    """files that are no photos: the first of them"""


class ModelAnswer(Answer):
    model_version: str
    graph_sha256: str
    backbone: str
    demo: bool
    allow_demo: bool
    labels: list[str]
    pixel_spec: dict[str, Any]
    calibration: dict[str, Any] | None
    policy: dict[str, Any] | None


class Error(Answer):
    code: str
    """for programs"""
    message: str
    """for people"""
    request_id: str


class ErrorAnswer(Answer):
    error: Error


FORM_ERRORS = (400, 408, 415, 422, 429, 504)
_MEANINGS = {
    400: "The body cannot be read",
    401: "No key, or an unknown one",
    403: "Not with this key, or not from there",
    404: "Not found",
    408: "The body arrived too slowly",
    409: "Already stored, being judged, never judged here, or changed by somebody else",
    410: "The link was used or has expired",
    413: "More bytes, photos or parts than allowed",
    415: "Not multipart/form-data, or compressed",
    422: "A field is missing, unknown or out of range",
    429: "The queue is full; see Retry-After",
    431: "The headers are too large",
    503: "Not ready, stopping, or a full disk",
    504: "The deadline has passed",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: these statuses, and those that every route may answer."""
    return {
        status: {"model": ErrorAnswer, "description": _MEANINGS[status]}
        for status in sorted({*statuses, 401, 403, 413, 431, 503})
    }
