"""Content credentials (C2PA): a manifest, bound to the picture by a hash and signed by its maker.

A declaration counts only when signature and hash hold. Who the signer is, only the user's list of
trusted authorities can say; without one, no signer is trusted. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from realdamage.errors import MissingExtraError, UsageError
from realdamage.phrases import Phrase, phrase
from realdamage.provenance.containers import Blocks, clean
from realdamage.provenance.precedence import (
    CAPTURES,
    DECLARING,
    Declared,
    Finding,
    in_order,
    source_type_code,
)

MAX_BYTES = 1 << 20
"""Of a trust list. C2PA's own has 27 KB, and the library reads the list again for each photo."""
_EXPECTED = (
    "expected certificates of authorities in PEM, as C2PA publishes its trust list; to convert "
    "DER: openssl x509 -inform der -in FILE -out anchors.pem"
)
_VERIFY = {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_reading": True}
# What a signer's certificate may be for: e-mail, documents, Microsoft's and C2PA's own purpose. By
# default the library accepts e-mail only.
_PURPOSES = "1.3.6.1.5.5.7.3.4 1.3.6.1.5.5.7.3.36 1.3.6.1.4.1.311.76.59.1.9 1.3.6.1.4.1.62558.2.1"
_MIMES = {name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "WebP", "TIFF", "HEIC", "AVIF")}
_MIMES |= {"GIF": "image/gif", "MP4": "video/mp4", "MOV": "video/quicktime"}
_MAX_MANIFESTS = 50
_DECLARED_PHRASES: dict[Declared, str] = {
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
_HASH_MATCHES = {f"assertion.{kind}Hash.match" for kind in ("data", "bmff", "boxes")}


@dataclass(frozen=True)
class TrustAnchors:
    """A list of authorities. They confirm the names of signers, and say nothing about the photo.

    pem: the authorities' certificates and nothing else. sha256: hex digest of the file.
    authorities: their number. passed_over: number of other certificates, which are ignored.
    """

    pem: str
    sha256: str
    authorities: int
    passed_over: int = 0

    @classmethod
    def read(cls, path: str | Path) -> TrustAnchors:
        """Read a PEM bundle; text between the certificates is ignored.

        Raises UsageError for a wrong file, MissingExtraError without c2pa-python.
        """
        data = _read_list(Path(path))
        text = data.decode("ascii", "ignore")  # a comment may be in any encoding
        # OpenSSL reads each certificate: the C2PA library skips broken ones without a message.
        store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            store.load_verify_locations(cadata=text or "empty")  # "" is not an error to OpenSSL
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(
                f"{path}: no certificate in it, or a damaged one ({error}); {_EXPECTED}",
                code="broken_certificate",
            ) from error
        authorities = sorted(store.get_ca_certs(binary_form=True))
        others = store.cert_store_stats()["x509"] - len(authorities)
        if not authorities:
            raise UsageError(
                f"{path}: none of its {others} certificates is an authority's; {_EXPECTED}",
                code="no_authority",
            )
        pem = "".join(ssl.DER_cert_to_PEM_cert(der) for der in authorities)
        try:
            importlib.import_module("c2pa")
        except (ImportError, OSError):
            raise MissingExtraError("a list of trust anchors", "claims", "c2pa-python") from None
        return cls(pem, hashlib.sha256(data).hexdigest(), len(authorities), others)


def _read_list(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot read the trust anchors: {why}; {_EXPECTED}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{path}: a list of authorities has at most {MAX_BYTES} bytes; {_EXPECTED}",
            code="too_large",
        )
    return data


def read_credentials(
    data: bytes | IO[bytes], blocks: Blocks, anchors: TrustAnchors | None = None
) -> list[Finding]:
    """The finding about a file's manifests, or none; other problems become notes. Never raises."""
    try:
        c2pa = importlib.import_module("c2pa")
    except (ImportError, OSError):  # the package, or its library for this machine
        blocks.note("c2pa_unavailable", phrase("c2pa_unavailable"))
        return []
    settings: dict[str, Any] = {"verify": dict(_VERIFY)}
    if anchors is not None:
        settings["verify"]["verify_trust"] = True
        purposes = _PURPOSES.replace(" ", "\n")
        settings["trust"] = {"trust_anchors": anchors.pem, "trust_config": purposes}
    mime = _MIMES.get(blocks.container)
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with (
            c2pa.Context(c2pa.Settings.from_dict(settings)) as context,
            c2pa.Reader(mime, stream, context=context) as reader,
        ):
            store = json.loads(reader.json())
    except Exception as error:  # a foreign library on a file that may be made to break it
        kind = type(error).__name__.removeprefix("_C2pa")
        if kind == "RemoteManifest":
            blocks.note("c2pa_remote", phrase("c2pa_remote"))
        elif kind != "ManifestNotFound":
            blocks.broken(phrase("c2pa_broken", detail=clean(error)))
        return []
    finding = judge_store(store, blocks, listed=anchors is not None)
    return [finding] if finding else []


def judge_store(store: Any, blocks: Blocks, *, listed: bool = False) -> Finding | None:
    """What a store of manifests, as JSON of the C2PA reader, declares; notes go to `blocks`.

    listed: whether it was read with a list of trusted authorities.
    """
    manifests = _mapping(_mapping(store).get("manifests"))
    active = _mapping(manifests.get(str(_mapping(store).get("active_manifest"))))
    if not active:
        blocks.broken(phrase("c2pa_not_active"))
        return None
    failures, successes = (_codes(store, kind) for kind in ("failure", "success"))
    broken = [code for code in failures if not code.startswith(_ABOUT_THE_SIGNER)]
    bound = "claimSignature.validated" in successes and bool(_HASH_MATCHES & set(successes))
    intact = store.get("validation_state") in ("Valid", "Trusted") or (bound and not broken)
    distrusted = any(code.startswith(_UNDOES_TRUST) for code in failures)
    trusted = "signingCredential.trusted" in successes and not distrusted
    declares, declaration = _declared(active, manifests)
    signature = _mapping(active.get("signature_info"))
    signer = clean(signature.get("issuer") or signature.get("common_name") or "")
    fields = {
        "signer": signer,
        "claim_generator": clean(_generator(active)),
        "validation": ("trusted" if trusted else "untrusted") if intact else "invalid",
        "failures": clean(_joined(failures)),
        **declaration,
    }
    fields = {key: value for key, value in fields.items() if value}
    signed, note = phrase("c2pa_unsigned"), phrase("c2pa_note_unsigned")
    if signer:
        signed = phrase("c2pa_signed", signer=signer)
        note = phrase("c2pa_note_signed", signer=signer)
    if not intact:
        why = phrase("c2pa_unbound")
        if broken:
            why = phrase("c2pa_invalid", failures=_joined(broken))
        blocks.note("c2pa_invalid", note, why)
        said = [signed, phrase("c2pa_does_not_hold")]
        return Finding.of("c2pa", "none", "C2PA manifest", fields, said)
    if not trusted:
        why = _why_untrusted(failures, listed)
        blocks.note("c2pa_untrusted", note, why, phrase("c2pa_any_name"))
    captured = fields.get("digital_source_type") in CAPTURES
    what = _DECLARED_PHRASES.get(declares, "c2pa_capture" if captured else "c2pa_none")
    said = [signed, phrase("c2pa_vouched" if trusted else "c2pa_not_vouched"), phrase(what)]
    return Finding.of("c2pa", declares, "C2PA manifest", fields, said)


def _why_untrusted(failures: list[str], listed: bool) -> Phrase:
    if not listed:
        return phrase("c2pa_without_list")
    if "signingCredential.expired" in failures:
        return phrase("c2pa_expired")
    return phrase("c2pa_not_listed", failures=_joined(failures))


def _declared(
    active: Mapping[str, Any], manifests: Mapping[str, Any]
) -> tuple[Declared, dict[str, str]]:
    """The strongest declaration among the actions of a manifest and of those it was made from.

    A picture with a generated parent is generated too; one with an AI picture as a part is edited.
    """
    steps: list[Finding] = []
    queue, seen = [(active, False)], 0
    while queue and seen < _MAX_MANIFESTS:
        manifest, is_part = queue.pop(0)
        seen += 1
        for action, code in _actions(manifest):
            declares = DECLARING.get(code, "none")
            if is_part and declares == "none":
                continue
            if is_part and declares == "ai_generated":
                declares = "ai_edited"
            fields = {"action": action, "digital_source_type": code}
            steps.append(Finding("c2pa", declares, "", fields, ""))
        for ingredient in map(_mapping, _list(manifest.get("ingredients"))):
            below = manifests.get(str(ingredient.get("active_manifest")))
            if isinstance(below, Mapping):
                part_of = is_part or ingredient.get("relationship") != "parentOf"
                queue.append((below, part_of))
    ordered = in_order(steps)
    return (ordered[0].declares, ordered[0].fields) if ordered else ("none", {})


def _actions(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The actions of a manifest that state a source type, as (action, short code)."""
    for assertion in map(_mapping, _list(manifest.get("assertions"))):
        label = str(assertion.get("label"))
        if label.startswith("c2pa.actions"):
            for action in map(_mapping, _list(_mapping(assertion.get("data")).get("actions"))):
                code = action.get("digitalSourceType")
                if isinstance(code, str) and code:
                    yield clean(action.get("action")), clean(source_type_code(code))
        elif label.startswith(("c2pa.ai_generated", "c2pa.ai-generated")):
            yield clean(label), "trainedAlgorithmicMedia"


def _generator(manifest: Mapping[str, Any]) -> str:
    infos = map(_mapping, _list(manifest.get("claim_generator_info")))
    names = [str(info["name"]) for info in infos if info.get("name")]
    return ", ".join(names) or str(manifest.get("claim_generator") or "")


def _codes(store: Mapping[str, Any], kind: str) -> list[str]:
    results = _mapping(_mapping(store.get("validation_results")).get("activeManifest"))
    return [str(_mapping(status).get("code")) for status in _list(results.get(kind))]


def _joined(codes: list[str]) -> str:
    return ", ".join(dict.fromkeys(codes))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
