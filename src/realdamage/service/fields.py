"""Reads the text fields of a form into values, or says which one is wrong and what would be right; of a JSON body and
of a query, which FastAPI reads, the latter only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.routing import APIRoute
from pydantic.fields import FieldInfo

from realdamage.service.refusals import Refusal

_TOLD = 3  # wrong fields in one answer, at most
_LONGEST = 80  # characters of a caller's own in an answer


def flag(fields: Mapping[str, str], name: str, default: bool) -> bool:
    """true or false. Raises Refusal 422 on anything else."""
    text = fields.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise Refusal(422, "invalid_field", f"{name}={text[:40]!r}: write true or false")
    return text == "true"


def prior_of(fields: Mapping[str, str]) -> float | None:
    """The share of synthetic photos among the caller's, above 0 and below 1; None when not given."""
    text = fields.get("prior")
    if text is None:
        return None
    try:
        prior = float(text)
    except ValueError:
        prior = math.nan
    if not 0 < prior < 1:
        raise Refusal(
            422,
            "invalid_field",
            f"prior={text[:40]!r} must be a number above 0 and below 1: the share of synthetic photos",
        )
    return prior


def invalid(errors: Sequence[Mapping[str, Any]], route: object) -> Refusal:
    """What pydantic found wrong in a request, in words: what was found, what it should be, and which fields there are.

    errors: of RequestValidationError. route: the one that was called, whose fields are told.
    """
    body, query = _known(route)
    sentences = []
    for error in errors[:_TOLD]:
        place, *path = error["loc"]
        known = body if place == "body" else query
        if error["type"] == "json_invalid" or not path:
            sentences.append(_of_body(error))
        else:
            sentences.append(
                _of_field(".".join(map(str, path))[:_LONGEST], known.get(str(path[0])), error)
            )
    unknown = any(
        error["type"] in ("missing", "extra_forbidden", "json_invalid") or len(error["loc"]) < 2
        for error in errors
    )
    if unknown and body:
        needed = ", ".join(name for name, field in body.items() if field.is_required())
        others = ", ".join(name for name, field in body.items() if not field.is_required())
        sentences.append(f"Fields: {needed} (needed); {others}")
    return Refusal(422, "invalid_field", ". ".join(sentences))


def _known(route: object) -> tuple[Mapping[str, FieldInfo], Mapping[str, FieldInfo]]:
    """The fields of the body and of the query, by name."""
    if not isinstance(route, APIRoute):
        return {}, {}
    model = route.body_field.field_info.annotation if route.body_field else None
    return getattr(model, "model_fields", {}), {
        one.alias: one.field_info for one in route.dependant.query_params
    }


def _of_body(error: Mapping[str, Any]) -> str:
    why = (error.get("ctx") or {}).get("error")
    found = (
        f"no JSON ({why})" if why else "empty" if error["type"] == "missing" else "no JSON object"
    )
    return f"the body is {found}; send an object with the header Content-Type: application/json"


def _of_field(name: str, field: FieldInfo | None, error: Mapping[str, Any]) -> str:
    what = field.description if field is not None and field.description else ""
    context, given = error.get("ctx") or {}, error["input"]
    if error["type"] == "missing":
        return f"{name}: missing; send {what or 'it'}"
    if error["type"] == "extra_forbidden":
        return f"{name}: no such field; leave it out or correct its name"
    if "max_length" in context:
        unit, most = "characters" if isinstance(given, str) else "values", context["max_length"]
        return f"{name}: has {len(given)} {unit}, at most {most} are taken; shorten it"
    found = repr(given)
    found = found if len(found) <= _LONGEST else f"{found[:_LONGEST]}…"
    if "expected" in context:
        return f"{name}: found {found}; send {context['expected']}"
    if "pattern" in context and what:
        return f"{name}: found {found}; send {what}"
    should = str(error["msg"]).partition(", ")[0].replace("Input should", "it should")
    return f"{name}: found {found}; {should}" + (f" ({what})" if what else "")
