"""Puts the claims of one buyer into a package for the authorities: a table with sums against legal
thresholds, all evidence verified, a summary as PDF in Chinese and English, a time stamp of the log.

It says what photos and files show. Whether anyone meant to deceive, only a court can find.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import secrets
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from sqlalchemy import select

from realdamage.claims.database import FILE_NAME, Case, Database, Decision
from realdamage.claims.evidence import environment
from realdamage.claims.log import EvidenceLog
from realdamage.claims.paths import AnyPath, files_below
from realdamage.claims.secret import Secret
from realdamage.claims.verify import VerifyReport, verify_evidence
from realdamage.errors import ConfigError, MissingExtraError, RealDamageError, UsageError
from realdamage.files import csv_line
from realdamage.phrases import in_language, printable, read_phrases

LANGUAGES = ("zh", "en")
_COLUMNS = (
    *("claim_id", "order", "product", "merchant", "amount", "paid", "currency", "opened"),
    *("state", "decision"),
)
_MAX_CLAIMS = 1000
_MAX_ANSWER = 1 << 20  # bytes of a time-stamp authority
_TIMEOUT = 30  # seconds


@dataclass(frozen=True)
class CaseRow:
    """A claim of the buyer. amount: what was claimed, paid: what was paid out, in the currency's
    main unit. opened: ISO 8601. evidence: the folder that `write_evidence` made."""

    claim_id: str
    amount: Decimal
    currency: str
    evidence: AnyPath
    order: str = ""
    product: str = ""
    merchant: str = ""
    paid: Decimal = Decimal(0)
    opened: str = ""
    state: str = ""
    decision: str = ""


@dataclass(frozen=True)
class Threshold:
    """A legal threshold. name, source, aggregates, checked: by language, "en" and "zh"."""

    id: str
    currency: str
    at_least: Decimal
    name: Mapping[str, str]
    source: Mapping[str, str]
    aggregates: Mapping[str, str]
    checked: Mapping[str, str]


@dataclass(frozen=True)
class Authority:
    """A time-stamp authority (RFC 3161). url: https or http. ca: PEM of the certificates that its
    stamps are checked by."""

    url: str
    ca: Path

    def stamp(self, data: bytes) -> tuple[bytes, dt.datetime]:
        """(its answer in DER, the time in it), checked. Raises RealDamageError with the code
        "timestamp" when there is no valid answer, UsageError for a wrong address or file."""
        try:
            from cryptography import x509
            from rfc3161_client import (
                TimestampRequestBuilder,
                VerificationError,
                VerifierBuilder,
                decode_timestamp_response,
            )
        except ModuleNotFoundError as error:
            raise MissingExtraError("a time stamp", "cases", error.name) from None
        if not self.url.startswith(("https://", "http://")):
            raise UsageError(f"--tsa {self.url}: expected an address with https:// or http://")
        try:
            roots = x509.load_pem_x509_certificates(self.ca.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.ca}: no certificates in PEM: {error}") from error
        request = TimestampRequestBuilder().data(data).build()
        answer = self._ask(request.as_bytes())
        try:
            response = decode_timestamp_response(answer)
            verifier = VerifierBuilder(roots=roots, nonce=request.nonce).build()
            verifier.verify_message(response, data)
        except (VerificationError, ValueError) as error:
            raise RealDamageError(
                f"{self.url}: its time stamp does not verify with {self.ca}: {error}. Check the "
                "authority's certificates.",
                code="timestamp",
            ) from error
        return answer, response.tst_info.gen_time

    def _ask(self, query: bytes) -> bytes:
        request = urllib.request.Request(
            self.url, data=query, headers={"Content-Type": "application/timestamp-query"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                return bytes(answer.read(_MAX_ANSWER))
        except (urllib.error.URLError, OSError) as error:
            raise RealDamageError(
                f"{self.url}: no time stamp: {error}. Try again later, or another authority.",
                code="timestamp",
            ) from error


@dataclass(frozen=True)
class Package:
    """What was written. problems: evidence that does not verify. stamped: time of the stamp, ""."""

    problems: tuple[str, ...]
    stamped: str
    byte_count: int


def rows_of_buyer(store: AnyPath, buyer: str, log: Path, *, url: str = "") -> list[CaseRow]:
    """The claims of a buyer in the store of `realdamage serve`, the oldest first.

    log: a new file for the store's log over all claims. url: of its database, where it is not in
    the store. Raises UsageError without such a store.
    """
    if isinstance(store, Path) and not url and not (store / FILE_NAME).is_file():
        raise UsageError(f"{store}: no store of claims; `realdamage serve --store` makes one")
    database = Database.of_store(store, url)
    reference = Secret.read(store / "secret").buyer(buyer)
    rows = []
    try:
        log.write_bytes(database.log_text())
        with database.reading() as session:
            of_buyer = select(Case).where(Case.buyer == reference, Case.buyer != "")
            for case in session.scalars(of_buyer.order_by(Case.created)):
                made = select(Decision).where(
                    Decision.claim_id == case.claim_id, Decision.undone.is_(False)
                )
                last = session.scalars(made.order_by(Decision.number.desc())).first()
                paying = last is not None and last.action in ("refund", "part")
                opened = dt.datetime.fromtimestamp(case.created, dt.UTC)
                rows.append(
                    CaseRow(
                        claim_id=case.claim_id,
                        amount=Decimal(case.amount) / 100,
                        paid=Decimal(last.amount if last is not None and paying else 0) / 100,
                        currency=case.currency,
                        evidence=store / "claims" / case.claim_id,
                        order=case.order_id,
                        product=case.product,
                        merchant=case.merchant,
                        opened=opened.isoformat(timespec="seconds"),
                        state=case.state,
                        decision=last.action if last is not None else "",
                    )
                )
    finally:
        database.close()
    return rows


def read_thresholds(path: Path | None = None) -> list[Threshold]:
    """The legal thresholds of a YAML file, by default the package's. Raises ConfigError."""
    import yaml

    path = path or Path(__file__).with_name("thresholds.yaml")
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    keys = ("name", "source", "aggregates", "checked")
    try:
        return [
            Threshold(
                str(row["id"]),
                str(row["currency"]).upper(),
                Decimal(str(row["at_least"])),
                *({language: str(row[key][language]) for language in LANGUAGES} for key in keys),
            )
            for row in rows
        ]
    except (TypeError, KeyError, InvalidOperation) as error:
        raise ConfigError(
            f"{path}: {type(error).__name__} {error}: each threshold needs id, currency, at_least, "
            "and name, source, aggregates, checked with en and zh"
        ) from error


def make_package(
    rows: Sequence[CaseRow],
    out: Path,
    *,
    buyer: str,
    limits: Sequence[Threshold],
    log: Path,
    stamp: Authority | None = None,
) -> Package:
    """Write the package to `out`, complete or not at all. buyer: your reference, shown in it.

    log: over all claims, a file; its head is time-stamped by `stamp`.
    Evidence that does not verify is put in, and named. Raises UsageError for no claims or too many,
    RealDamageError when it cannot be written or stamped, MissingExtraError without weasyprint.
    """
    if not 0 < len(rows) <= _MAX_CLAIMS:
        raise UsageError(
            f"{len(rows)} claims of this buyer; a package takes 1 to {_MAX_CLAIMS}",
            code="no_claims",
        )
    checked = [(row, _verified(row, log)) for row in rows]
    problems = [f"{row.claim_id}: {line}" for row, report in checked for line in report.problems]
    head = EvidenceLog(log).verify().head.encode()
    answer, time = stamp.stamp(head) if stamp else (b"", None)
    stamped = time.isoformat() if time else ""
    page = _page(checked, buyer, limits, stamped)
    readme = Path(__file__).with_name("package_readme.txt").read_text(encoding="utf-8")
    files: dict[str, bytes] = {
        "README.txt": readme.replace("{stamped}", stamped or "none / 无").encode(),
        "claims.csv": _table(rows).encode("utf-8-sig"),
        "summary.html": page.encode(),
        "summary.pdf": _pdf(page),
        "verification.json": _as_json(checked).encode(),
        "head.txt": head,
        "log.jsonl": log.read_bytes(),
    }
    if stamp:
        files |= {"head.tsr": answer, "tsa-ca.pem": stamp.ca.read_bytes()}
    size = _write(out, files, rows)
    return Package(tuple(problems), stamped, size)


def _verified(row: CaseRow, log: Path) -> VerifyReport:
    try:
        return verify_evidence(row.evidence, log=log)
    except RealDamageError as error:
        return VerifyReport((), (str(error),), (), (), "", 0)


def _write(out: Path, files: Mapping[str, bytes], rows: Sequence[CaseRow]) -> int:
    """Write the zip with all files, the folders of evidence and the digests. Returns its bytes."""
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    sums: list[str] = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as package:
            for name, data in [*files.items(), *_evidence(rows)]:
                package.writestr(name, data)
                sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
            package.writestr("SHA256SUMS", "".join(sums))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        temporary.replace(out)
    except OSError as error:
        raise RealDamageError(
            f"{out}: cannot be written: {error.strerror or error}. Check free space and "
            "permissions.",
            code="cannot_write",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _evidence(rows: Sequence[CaseRow]) -> Iterator[tuple[str, bytes]]:
    """(name in the package, bytes) of each claim's evidence."""
    for number, row in enumerate(rows, start=1):
        kept = "".join(one if one.isalnum() or one in "-_." else "_" for one in row.claim_id)
        for inside in files_below(row.evidence):
            name = f"evidence/{number:03d}-{kept.strip('.')[:80]}/{inside}"
            yield name, (row.evidence / inside).read_bytes()


def _table(rows: Sequence[CaseRow]) -> str:
    lines = [csv_line(_COLUMNS)]
    for row in rows:
        lines.append(csv_line(str(getattr(row, name)) for name in _COLUMNS))
    return "\r\n".join(lines) + "\r\n"


def _as_json(checked: Sequence[tuple[CaseRow, VerifyReport]]) -> str:
    values = [
        {
            "claim_id": row.claim_id,
            "passed": report.passed,
            "head": report.head,
            "checked": list(report.checked),
            "problems": list(report.problems),
            "notes": list(report.notes),
        }
        for row, report in checked
    ]
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def totals(rows: Sequence[CaseRow], limits: Sequence[Threshold]) -> list[dict[str, Any]]:
    """For each currency: what was claimed and paid out in all, and each threshold with whether
    either sum reaches it."""
    found = []
    for currency in sorted({row.currency for row in rows}):
        own = [row for row in rows if row.currency == currency]
        claimed, paid = (sum(getattr(row, key) for row in own) for key in ("amount", "paid"))
        reached = [
            {"limit": one, "claimed": claimed >= one.at_least, "paid": 0 < paid >= one.at_least}
            for one in limits
            if one.currency == currency
        ]
        found.append(
            {"currency": currency, "claims": len(own), "claimed": claimed, "paid": paid}
            | {"limits": reached}
        )
    return found


def _page(
    checked: Sequence[tuple[CaseRow, VerifyReport]],
    buyer: str,
    limits: Sequence[Threshold],
    stamped: str,
) -> str:
    template = environment().get_template("package.html.j2")
    return template.render(
        claims=[
            {"row": row, "report": report, "evidence": _read_evidence(row)}
            for row, report in checked
        ],
        buyer=printable(buyer),
        totals=totals([row for row, _ in checked], limits),
        made=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        stamped=stamped,
        languages=LANGUAGES,
    )


def _read_evidence(row: CaseRow) -> dict[str, Any]:
    """Recommendation and reasons, by language, of a claim's evidence.json; empty when broken."""
    try:
        values = json.loads((row.evidence / "evidence.json").read_bytes())
        return {
            "recommendation": str(values["recommendation"]),
            "reasons": {
                language: [_said(reason, language) for reason in values["reasons"]]
                for language in LANGUAGES
            },
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"recommendation": "", "reasons": {"zh": [], "en": []}}


def _said(reason: Mapping[str, Any], language: str) -> str:
    """The sentence of a reason in a language; in English where a part is not known."""
    try:
        words = in_language(read_phrases(reason.get("phrases")), language)
    except (KeyError, IndexError, ValueError):
        words = ""
    return words or str(reason["sentence"])


def _pdf(page: str) -> bytes:
    """The page as PDF; it may load nothing. Fonts with Chinese characters come from the system."""
    from PIL import ImageFile

    setting = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        from weasyprint import HTML
    except (ModuleNotFoundError, OSError) as error:  # the package, or Pango
        name = getattr(error, "name", None) or str(error)
        raise MissingExtraError("a case package", "cases", name) from None
    finally:
        # WeasyPrint makes Pillow accept files that were cut off, in this whole process.
        ImageFile.LOAD_TRUNCATED_IMAGES = setting

    def refuse(url: str, *_: Any, **__: Any) -> Any:
        raise ValueError(f"the summary loads nothing, but asked for {url}")

    return bytes(HTML(string=page, url_fetcher=refuse).write_pdf())
