"""The interface in OpenAPI's words, with examples: bodies are read as streams, so FastAPI cannot see their shape."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_DIGEST: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


ERROR = _object({"error": _object({"code": _TEXT, "message": _TEXT, "request_id": _TEXT})})
STATUS = _object({"status": _TEXT})
MODEL = _object(
    {
        "model_version": _TEXT,
        "graph_sha256": _DIGEST,
        "backbone": _TEXT,
        "demo": {"type": "boolean"},
        "allow_demo": {"type": "boolean"},
        "labels": _list(_TEXT),
        "pixel_spec": {"type": "object"},
        "calibration": _maybe({"type": "object"}),
        "policy": _maybe({"type": "object"}),
    }
)
_PHRASES = _list(
    _object({"template": _TEXT, "values": {"type": "object", "additionalProperties": _TEXT}})
)
REASONS = _list(_object({"code": _TEXT, "sentence": _TEXT}, phrases=_PHRASES))
VERDICT = _object(
    {
        "outcome": {"type": "string", "enum": ["real", "review", "synthetic"]},
        "score": _NUMBER,
        "probability": _maybe({"type": "number", "minimum": 0, "maximum": 1}),
        "heatmap": _maybe(
            {"type": "string", "description": "8-bit grey PNG in base64, one pixel a patch"}
        ),
        "cell": _NUMBER,
        "regions": _list(
            _object(
                {"box": {"type": "array", "items": {"type": "integer"}}, "probability": _NUMBER}
            )
        ),
        "reasons": REASONS,
        "photo_sha256": _DIGEST,
        "graph_sha256": _TEXT,
        "model_version": _TEXT,
        "width": _COUNT,
        "height": _COUNT,
    }
)
PHOTO_RESULT = _object(
    {"name": _TEXT},
    verdict=VERDICT,
    provenance={
        "type": "object",
        "description": "what the file says of itself; absence proves nothing",
    },
    error=_object({"code": _TEXT, "message": _TEXT}),
)
PHOTOS = _object(
    {
        "results": _list(PHOTO_RESULT),
        "model_version": _TEXT,
        "graph_sha256": _TEXT,
        "request_id": _TEXT,
    }
)
CLAIM = _object(
    {
        "claim_id": _TEXT,
        "recommendation": _TEXT,
        "reasons": REASONS,
        "photos": _list({"type": "object"}),
    }
)

DELETED = _object({"deleted": _TEXT})

_EXAMPLES: dict[str, Any] = {
    "photos": {
        "results": [
            {
                "name": "mug.jpg",
                "verdict": {
                    "outcome": "review",
                    "score": 0.42,
                    "probability": 0.55,
                    "heatmap": None,
                    "cell": 16.0,
                    "regions": [{"box": [64, 96, 160, 192], "probability": 0.81}],
                    "reasons": [
                        {
                            "code": "between_thresholds",
                            "sentence": "The score lies between …",
                            "phrases": [{"template": "between_thresholds", "values": {}}],
                        }
                    ],
                    "photo_sha256": "0" * 64,
                    "graph_sha256": "1" * 64,
                    "model_version": "reference-1",
                    "width": 640,
                    "height": 480,
                },
            },
            {
                "name": "broken.jpg",
                "error": {"code": "unreadable_photo", "message": "broken.jpg: the file is …"},
            },
        ],
        "model_version": "reference-1",
        "graph_sha256": "1" * 64,
        "request_id": "5f0c9d2ab1c3e4f6",
    },
    "error": {
        "error": {
            "code": "too_large",
            "message": "photo 1 of the request has more than 20971520 bytes; send it at a smaller size",
            "request_id": "5f0c9d2ab1c3e4f6",
        }
    },
}
_MEANINGS = {
    400: "The body cannot be read",
    401: "No key, or a wrong one",
    403: "Not for this key, or not from there",
    404: "No such thing",
    405: "Another method",
    408: "The body came too slowly",
    409: "Stored already, or being judged",
    413: "More bytes, photos or parts than allowed",
    415: "Not multipart/form-data",
    422: "A field is missing, unknown or out of range",
    429: "The queue is full; see Retry-After",
    431: "Too large headers",
    503: "Not ready, or stopping",
    504: "The deadline has passed",
}


def answers(schema: Schema, *refusals: int, example: Any = None) -> dict[int | str, dict[str, Any]]:
    """Of a route: 200 with this schema, and refusals by status."""
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    found: dict[int | str, dict[str, Any]] = {
        200: {"description": "Done", "content": {"application/json": content}}
    }
    for status in sorted({*refusals, 403, 413, 431, 503}):
        error = {"schema": ERROR, "example": _EXAMPLES["error"]}
        found[status] = {"description": _MEANINGS[status], "content": {"application/json": error}}
    return found


def _form(required: dict[str, Schema], **optional: Schema) -> dict[str, Any]:
    schema = {**_object(required, **optional), "additionalProperties": False}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


_FILES: Schema = {**_list({"type": "string", "format": "binary"}), "minItems": 1}
_FLAG: Schema = {"type": "string", "enum": ["true", "false"]}
_UPLOAD_REFUSALS = (400, 401, 408, 413, 415, 422, 429, 504)

PHOTOS_BODY = _form(
    {"photos": {**_FILES, "description": "the photos' files, as they came from the phone"}},
    heatmaps={**_FLAG, "default": "true", "description": "with the heat map as PNG in base64"},
    prior={
        "type": "string",
        "description": "share of synthetic photos among yours, above 0 and below 1",
        "example": "0.05",
    },
)
PHOTOS_ANSWERS = answers(PHOTOS, *_UPLOAD_REFUSALS, example=_EXAMPLES["photos"])
CLAIMS_BODY = _form(
    {"photos": {**_FILES, "description": "the photos of the claim"}},
    listings={**_FILES, "minItems": 0, "description": "the seller's photos of the intact product"},
    text={**_TEXT, "description": "what the buyer wrote"},
    claim_id={
        **_TEXT,
        "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        "description": "yours; otherwise one is made",
    },
    keep={
        **_FLAG,
        "default": "false",
        "description": "store the decision and its evidence; needs --store",
    },
    heatmaps={**_FLAG, "default": "true", "description": "with heat maps as PNG in base64"},
)
CLAIMS_ANSWERS = answers(CLAIM, *_UPLOAD_REFUSALS, 409)
EVIDENCE_ANSWERS: dict[int | str, dict[str, Any]] = {
    **answers(_TEXT, 401, 404),
    200: {"description": "Done", "content": {"text/html": {"schema": _TEXT}}},
}
METRICS_ANSWERS: dict[int | str, dict[str, Any]] = {
    **answers(_TEXT, 401),
    200: {"description": "Done", "content": {"text/plain": {"schema": _TEXT}}},
}
