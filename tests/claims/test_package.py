"""A package for the authorities: sums, thresholds, verified evidence, PDF and time stamp."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import subprocess
import threading
import zipfile
from ctypes.util import find_library
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import ImageFile

from realdamage.claims import EvidenceLog, judge_claim, package, write_evidence
from realdamage.claims.database import Case, Database, Decision
from realdamage.claims.package import Authority, CaseRow, make_package, read_thresholds, totals
from realdamage.claims.secret import Secret
from realdamage.commands.cli import main
from realdamage.errors import ConfigError, RealDamageError, UsageError

pytest.importorskip("rfc3161_client")
if find_spec("weasyprint") is None or find_library("pango-1.0") is None:
    pytest.skip("needs WeasyPrint and Pango", allow_module_level=True)

_TSA = """[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[tsa]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa_config]
serial = {folder}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
ordering = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


class LocalAuthority(BaseHTTPRequestHandler):
    """A time-stamp authority of `openssl ts` in `folder`; ca.pem there is of its issuer."""

    folder: ClassVar[Path]

    @classmethod
    def openssl(cls, *words):
        subprocess.run(["openssl", *words], cwd=cls.folder, check=True, capture_output=True)

    @classmethod
    def make(cls, folder):
        cls.folder = folder
        (folder / "tsa.cnf").write_text(_TSA.format(folder=folder))
        (folder / "serial").write_text("01\n")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout")
        cls.openssl("req", "-x509", *key, "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA")
        cls.openssl("req", "-new", *key, "tsa.key", "-out", "tsa.csr", "-subj", "/CN=Test TSA")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "tsa.pem")
        extensions = ("-extfile", "tsa.cnf", "-extensions", "tsa")
        cls.openssl("x509", "-req", "-in", "tsa.csr", *signed, *extensions)

    def do_POST(self):
        query = self.rfile.read(int(self.headers["Content-Length"]))
        (self.folder / "query").write_bytes(query)
        (self.folder / "answer").write_text("<html>not found</html>")
        if self.path == "/":
            signer = ("-signer", "tsa.pem", "-inkey", "tsa.key", "-section", "tsa_config")
            asked = ("-queryfile", "query", "-out", "answer")
            self.openssl("ts", "-reply", "-config", "tsa.cnf", *signer, *asked)
        self.send_response(200)
        self.end_headers()
        self.wfile.write((self.folder / "answer").read_bytes())

    def log_message(self, *_):
        pass


@pytest.fixture
def authority(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    LocalAuthority.make(tmp_path_factory.mktemp("tsa"))
    with HTTPServer(("127.0.0.1", 0), LocalAuthority) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield Authority(f"http://127.0.0.1:{server.server_port}", LocalAuthority.folder / "ca.pem")
        server.shutdown()


@pytest.fixture(scope="module")
def evidence(claim_photo, detector, tmp_path_factory):
    """A folder with the evidence of C-1 and C-2, and log.jsonl over both; tests must not change
    it."""
    root = tmp_path_factory.mktemp("claims")
    for number in (1, 2):
        photos = [("a.jpg", claim_photo(number, red=number == 2))]
        claim = judge_claim(photos, detector=detector, claim_id=f"C-{number}")
        write_evidence(claim, photos, [], root / f"C-{number}", log=EvidenceLog(root / "log.jsonl"))
    return root


@pytest.fixture
def log(evidence):
    return evidence / "log.jsonl"


def row(folder, amount="1999.50", **more):
    about = {"currency": "CNY", "order": "O-1", "product": "杯子", **more}
    return CaseRow(folder.name, Decimal(amount), evidence=folder, **about)


def opened(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def table_in(files):
    return list(csv.DictReader(io.StringIO(files["claims.csv"].decode("utf-8-sig"))))


def test_a_package_holds_everything_and_its_stamp_verifies(
    evidence, log, authority, tmp_path, signing
):
    shutil.copytree(evidence / "C-2", tmp_path / "C-2")
    (tmp_path / "C-2" / "evidence.html").write_text("other")
    changed = row(tmp_path / "C-2", "1500", product="=1+1", paid=Decimal(900))
    rows = [row(evidence / "C-1", decision="refund"), changed, row(tmp_path / "gone")]
    out = tmp_path / "case.zip"
    given = {"buyer": "B-7", "limits": read_thresholds(), "log": log}
    made = make_package(rows, out, **given, stamp=authority)
    assert [line.split(":")[0] for line in made.problems] == ["C-2", "gone"]
    assert made.byte_count == out.stat().st_size
    assert made.stamped.startswith("20")
    files = opened(out)
    passed = [one["passed"] for one in json.loads(files["verification.json"])]
    assert passed == [True, False, False]
    assert files["head.txt"].decode() == EvidenceLog(log).head
    assert files["summary.pdf"].startswith(b"%PDF-")
    assert len(files["summary.pdf"]) > 10_000  # with the fonts of both languages
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # which WeasyPrint sets
    page = files["summary.html"].decode()
    shown = ("B-7", "杯子", "not verified against the official text", "未与法律正式文本核对")
    assert [text for text in shown if text not in page] == []
    table = table_in(files)
    assert [one["amount"] for one in table] == ["1999.50", "1500", "1999.50"]
    assert table[1]["product"] == "'=1+1"  # no spreadsheet runs it
    assert "evidence/001-C-1/evidence.json" in files
    assert len(files["SHA256SUMS"].splitlines()) == len(files) - 1
    for name in ("head.txt", "head.tsr", "tsa-ca.pem"):
        (tmp_path / name).write_bytes(files[name])
    checked = ("ts", "-verify", "-data", "head.txt", "-in", "head.tsr", "-CAfile", "tsa-ca.pem")
    subprocess.run(["openssl", *checked], cwd=tmp_path, check=True, capture_output=True)

    out.unlink()
    (tmp_path / "other.pem").write_text(signing.authority)
    for change in (
        {"ca": tmp_path / "other.pem"},
        {"url": f"{authority.url}/none"},
        {"url": "http://127.0.0.1:1"},
    ):
        stamp = dataclasses.replace(authority, **change)
        with pytest.raises(RealDamageError) as caught:
            make_package(rows, out, **given, stamp=stamp)
        assert caught.value.code == "timestamp"
    with pytest.raises(UsageError):
        Authority("file:///etc/passwd", authority.ca).stamp(b"head")
    with pytest.raises(UsageError) as caught:
        make_package([], out, **given)
    assert caught.value.code == "no_claims"
    assert not list(tmp_path.glob("*.zip*"))


def test_sums_against_the_thresholds(tmp_path):
    rows = [row(tmp_path), row(tmp_path, "1500", paid=Decimal(900))]
    dollars = row(tmp_path, "950", currency="USD")
    yuan, usd = sorted(totals([*rows, dollars], read_thresholds()), key=lambda one: one["currency"])
    assert (yuan["claimed"], yuan["paid"]) == (Decimal("3499.50"), Decimal(900))
    reached = {one["limit"].id: (one["claimed"], one["paid"]) for one in yuan["limits"]}
    assert reached["cn-fraud-large"] == (True, False)
    assert reached["cn-fraud-huge"] == (False, False)
    assert [one["claimed"] for one in usd["limits"]] == [False]
    (exact,) = totals([row(tmp_path, "3000")], read_thresholds())
    claimed = {one["limit"].id for one in exact["limits"] if one["claimed"]}
    assert claimed == {"cn-public-security", "cn-fraud-large"}
    (tmp_path / "thresholds.yaml").write_text("- id: a")
    with pytest.raises(ConfigError):
        read_thresholds(tmp_path / "thresholds.yaml")


def test_the_command_packs_the_claims_of_a_buyer(evidence, log, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "_pdf", lambda page: b"%PDF-")
    store, out = tmp_path / "store", tmp_path / "case.zip"
    shutil.copytree(evidence, store / "claims")
    key = Secret.read(store / "secret", make=True)
    database = Database(store / "claims.sqlite")
    with database.transaction() as session:
        for number, buyer in ((1, "B-7"), (2, "B-7"), (3, "B-8")):
            times = {"created": 1e9 + number, "updated": 1e9}
            sums = {"amount": 12345, "currency": "CNY", "buyer": key.buyer(buyer)}
            session.add(Case(claim_id=f"C-{number}", state="decided", **times, **sums))
        paid = {"action": "part", "reason": "r", "amount": 9900, "by": "a", "at": 1e9}
        session.add(Decision(claim_id="C-2", number=1, state_before="open", **paid))
        for entry in EvidenceLog(log).verify().entries:
            database.record(session, {"event": entry["event"], **entry["payload"]})
    database.close()
    words = ["case", "--buyer", "B-7", "--store", str(store), "--out", str(out)]
    assert main(words) == 0
    files = opened(out)
    keys = ("claim_id", "amount", "paid", "decision")
    assert [tuple(one[key] for key in keys) for one in table_in(files)] == [
        ("C-1", "123.45", "0", ""),
        ("C-2", "123.45", "99", "part"),
    ]
    assert all(one["passed"] for one in json.loads(files["verification.json"]))
    before = out.read_bytes()
    assert main(words) == 2, "it is there already"
    assert main([*words, "--overwrite", "--tsa", "https://tsa.example"]) == 2
    assert main([*words[:-3], str(tmp_path / "none"), "--out", str(tmp_path / "b.zip")]) == 2
    assert out.read_bytes() == before
    (store / "claims" / "C-1" / "evidence.html").write_text("other")
    assert main([*words, "--overwrite"]) == 1
