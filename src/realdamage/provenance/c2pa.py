"""Reads content credentials (C2PA): a manifest, bound to the picture by a hash and signed by whoever made it.

What a manifest declares counts only when its signature and the hash of the picture hold. Whether the signer is who it
says is another matter: only a list of trusted authorities can tell, the user's; without one nobody is trusted, and the
finding says so. Nothing is fetched.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from realdamage.phrases import Phrase, phrase
from realdamage.provenance.c2pa import TrustAnchors
from realdamage.provenance.containers import Blocks, clean
from realdamage.provenance.precedence import (
    CAPTURES,
    Declared,
    Finding,
    declared_by_source_type,
    in_order,
    source_type_code,
)

_SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_reading": True}
}
# What a signer's certificate must be for: e-mail, documents, Microsoft's and C2PA's own purpose. The library alone
# takes e-mail only, and so nobody who signs under the published C2PA trust list.
_PURPOSES = (
    "1.3.6.1.5.5.7.3.4",
    "1.3.6.1.5.5.7.3.36",
    "1.3.6.1.4.1.311.76.59.1.9",
    "1.3.6.1.4.1.62558.2.1",
)
_MIMES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WebP": "image/webp",
    "TIFF": "image/tiff",
    "HEIC": "image/heic",
    "AVIF": "image/avif",
    "GIF": "image/gif",
}
_MAX_MANIFESTS = 50
_DECLARING: dict[Declared, str] = {
    "ai_generated": "c2pa_generated",
    "ai_edited": "c2pa_edited",
    "ai_possible": "c2pa_possible",
}
# Failures that concern who signed and when, not what was signed.
_ABOUT_THE_SIGNER = (
    "signingCredential.",
    "timeStamp.",
    "timeOfSigning.",
    "claimSignature.outsideValidity",
)
_UNDOES_TRUST = ("signingCredential.", "claimSignature.outsideValidity")
_HASH_MATCHES = (
    "assertion.dataHash.match",
    "assertion.bmffHash.match",
    "assertion.boxesHash.match",
)


def read_credentials(
    data: bytes, blocks: Blocks, anchors: TrustAnchors | None = None
) -> list[Finding]:
    """The finding on a file's manifests, or none; what cannot be read or trusted becomes a note. Never raises.

    anchors: authorities whose signers are trusted; nobody is without.
    """
    try:
        c2pa = importlib.import_module("c2pa")
    except (ImportError, OSError):  # without the package, or without its library for this machine
        blocks.note("c2pa_unavailable", phrase("c2pa_unavailable"))
        return []
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(_settings(anchors)))
        with (
            context,
            c2pa.Reader(_MIMES.get(blocks.container), io.BytesIO(data), context=context) as reader,
        ):
            store = json.loads(reader.json())
    except c2pa.C2paError as error:
        kind = type(error).__name__.removeprefix("_C2pa")
        if kind == "RemoteManifest":
            blocks.note("c2pa_remote", phrase("c2pa_remote"))
        elif kind != "ManifestNotFound":
            blocks.broken(phrase("c2pa_broken", detail=clean(error)))
        return []
    except Exception as error:  # a foreign library on a file that may be made to break it
        blocks.broken(phrase("c2pa_broken", detail=clean(error)))
        return []
    finding = judge_store(store, blocks, listed=anchors is not None)
    return [finding] if finding else []


def judge_store(store: Any, blocks: Blocks, *, listed: bool = False) -> Finding | None:
    """What a store of manifests, as JSON of the C2PA reader, declares; notes go to `blocks`.

    listed: whether it was read with a list of trusted authorities.
    """
    manifests = store.get("manifests") if isinstance(store, Mapping) else None
    active = manifests.get(store.get("active_manifest")) if isinstance(manifests, Mapping) else None
    if not isinstance(manifests, Mapping) or not isinstance(active, Mapping):
        blocks.broken(phrase("c2pa_not_active"))
        return None
    failures, successes = (_codes(store, kind) for kind in ("failure", "success"))
    broken = [code for code in failures if not code.startswith(_ABOUT_THE_SIGNER)]
    bound = "claimSignature.validated" in successes and any(
        code in successes for code in _HASH_MATCHES
    )
    intact = store.get("validation_state") in ("Valid", "Trusted") or (bound and not broken)
    trusted = "signingCredential.trusted" in successes and not any(
        code.startswith(_UNDOES_TRUST) for code in failures
    )
    declares, fields = _declared(active, manifests)
    signature = _mapping(active.get("signature_info"))
    signer = clean(signature.get("issuer") or signature.get("common_name") or "")
    fields = {
        "signer": signer,
        "claim_generator": clean(", ".join(_generators(active))),
        "validation": ("trusted" if trusted else "untrusted") if intact else "invalid",
        "failures": clean(", ".join(dict.fromkeys(failures))),
        **fields,
    }
    fields = {key: value for key, value in fields.items() if value}
    signed = phrase("c2pa_signed", signer=signer) if signer else phrase("c2pa_unsigned")
    note = phrase("c2pa_note_signed", signer=signer) if signer else phrase("c2pa_note_unsigned")
    if not intact:
        why = ", ".join(dict.fromkeys(broken))
        blocks.note(
            "c2pa_invalid",
            note,
            phrase("c2pa_invalid", failures=why) if why else phrase("c2pa_unbound"),
        )
        return Finding.of(
            "c2pa", "none", "C2PA manifest", fields, [signed, phrase("c2pa_does_not_hold")]
        )
    if not trusted:
        blocks.note(
            "c2pa_untrusted", note, _why_untrusted(failures, listed), phrase("c2pa_any_name")
        )
    vouched = phrase("c2pa_vouched" if trusted else "c2pa_not_vouched")
    what = _DECLARING.get(
        declares, "c2pa_capture" if fields.get("digital_source_type") in CAPTURES else "c2pa_none"
    )
    return Finding.of("c2pa", declares, "C2PA manifest", fields, [signed, vouched, phrase(what)])


def _settings(anchors: TrustAnchors | None) -> dict[str, Any]:
    if anchors is None:
        return _SETTINGS
    return {
        "verify": {**_SETTINGS["verify"], "verify_trust": True},
        "trust": {"trust_anchors": anchors.pem, "trust_config": "\n".join(_PURPOSES)},
    }


def _why_untrusted(failures: list[str], listed: bool) -> Phrase:
    if not listed:
        return phrase("c2pa_without_list")
    if "signingCredential.expired" in failures:
        return phrase("c2pa_expired")
    return phrase("c2pa_not_listed", failures=", ".join(dict.fromkeys(failures)))


def _declared(
    active: Mapping[str, Any], manifests: Mapping[str, Any]
) -> tuple[Declared, dict[str, str]]:
    """The strongest declaration among the actions of a manifest and of those it was made from.

    What the parent was generated by, this picture is too; an AI picture that is only a part of it makes it an edit.
    """
    steps: list[Finding] = []
    queue, seen = [(active, False)], 0
    while queue and seen < _MAX_MANIFESTS:
        manifest, is_part = queue.pop(0)
        seen += 1
        for action, code in _actions(manifest):
            declares = declared_by_source_type(code)
            if is_part and declares == "ai_generated":
                declares = "ai_edited"
            elif is_part and declares == "none":
                continue
            steps.append(
                Finding("c2pa", declares, "", {"action": action, "digital_source_type": code}, "")
            )
        for ingredient in _list(manifest.get("ingredients")):
            below = manifests.get(str(_mapping(ingredient).get("active_manifest")))
            if isinstance(below, Mapping):
                queue.append(
                    (below, is_part or _mapping(ingredient).get("relationship") != "parentOf")
                )
    ordered = in_order(steps)
    return (ordered[0].declares, ordered[0].fields) if ordered else ("none", {})


def _actions(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The actions of a manifest that state a source type, as (action, short code)."""
    for assertion in _list(manifest.get("assertions")):
        label = str(_mapping(assertion).get("label"))
        data = _mapping(_mapping(assertion).get("data"))
        if label.startswith("c2pa.actions"):
            for action in map(_mapping, _list(data.get("actions"))):
                code = action.get("digitalSourceType")
                if isinstance(code, str) and code:
                    yield clean(action.get("action")), clean(source_type_code(code))
        elif label.startswith(("c2pa.ai_generated", "c2pa.ai-generated")):
            yield clean(label), "trainedAlgorithmicMedia"


def _generators(manifest: Mapping[str, Any]) -> list[str]:
    names = [
        str(_mapping(info).get("name", "")) for info in _list(manifest.get("claim_generator_info"))
    ]
    return [name for name in names if name] or [str(manifest.get("claim_generator") or "")]


def _codes(store: Mapping[str, Any], kind: str) -> list[str]:
    results = _mapping(_mapping(store.get("validation_results")).get("activeManifest"))
    return [str(_mapping(status).get("code")) for status in _list(results.get(kind))]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
