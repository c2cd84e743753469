"""What people type about a claim: `realdamage provenance`, `claim`, `verify` and `claim-index`."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from realdamage.claims import ClaimPolicy
from realdamage.provenance import read_provenance


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, save_red_model):
    """A model, blue.jpg, painted.jpg (red quarter), cut.jpg (half a file), a labelled PNG, text."""
    monkeypatch.chdir(tmp_path)
    save_red_model(Path("red.onnx"))
    rng = np.random.default_rng(0)
    rgb = np.kron(rng.integers(0, 90, (12, 12, 1)), np.ones((32, 32, 1))) + np.array((40, 60, 120))
    Image.fromarray(rgb.astype(np.uint8)).save("blue.jpg", quality=95)
    rgb[:192, :192] = (200, 100, 40)
    Image.fromarray(rgb.astype(np.uint8)).save("painted.jpg", quality=95)
    Path("cut.jpg").write_bytes(Path("blue.jpg").read_bytes()[:2000])
    Path("text.jpg").write_text("a letter")
    label = PngImagePlugin.PngInfo()
    label.add_text("AIGC", json.dumps({"Label": "1", "ContentProducer": "maker"}))
    Image.new("RGB", (64, 64), "red").save("labelled.png", pnginfo=label)
    return tmp_path


@pytest.fixture
def claim(type_in):
    return lambda *words: type_in("claim", "--model", "red.onnx", *words)


def test_the_table_of_provenance(type_in):
    code, out, err = type_in("provenance", "labelled.png", "blue.jpg", "cut.jpg")
    assert (code, err) == (0, "")
    assert "maker" in out
    assert "file_cut_off" in out  # it is read as far as it goes
    assert out.splitlines()[-1].startswith("1 of 3 files declare AI.")


def test_provenance_as_json_is_what_the_function_returns(type_in):
    code, out, _ = type_in("provenance", "--format", "json", "labelled.png", "text.jpg")
    first, second = json.loads(out)["results"]
    assert code == 1
    assert first["provenance"] == read_provenance("labelled.png").to_dict()
    assert (second["name"], second["error"]["code"]) == ("text.jpg", "unreadable")
    assert type_in("provenance", "blue.jpg", "--output", "out/report.json")[:2] == (0, "")
    (result,) = json.loads(Path("out/report.json").read_text())["results"]
    assert result["provenance"]["declared"] == "none"


def test_a_list_of_trusted_authorities(type_in, signing):
    signed = signing.sign("digitalCapture", data=Path("blue.jpg").read_bytes())
    Path("signed.jpg").write_bytes(signed)
    Path("anchors.pem").write_text(signing.chain)
    digest = hashlib.sha256(signing.chain.encode()).hexdigest()
    command = ("provenance", "signed.jpg", "--trust-anchors", "anchors.pem")
    code, out, err = type_in(*command)
    assert code == 0
    assert "c2pa_untrusted" not in out
    assert digest in out
    assert "anchors.pem: 1 of 2 certificates" in err
    found = json.loads(type_in(*command, "--format", "json").out)["results"][0]["provenance"]
    assert found["trust_anchors_sha256"] == digest
    assert "c2pa_untrusted" in type_in("provenance", "signed.jpg").out
    Path("anchors.pem").write_text(signing.authority[:-40])
    assert type_in(*command)[:2] == (2, "")


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["blue.jpg", "absent\x1b[31m.jpg"], 1, "realdamage: absent[31m.jpg: "),
        (["text.jpg"], 3, "text.jpg"),
        (["absent.jpg"], 2, "absent.jpg"),
    ],
)
def test_mistakes_of_provenance(type_in, words, code, named):
    done = type_in("provenance", *words)
    assert done.code == code
    assert named in done.err
    assert "Traceback" not in done.err


def test_a_claim_its_evidence_and_the_check(type_in, claim):
    listing = ("--listing", "blue.jpg", "--text", "它裂了", "--claim-id", "C-1")
    kept = ("--out", "evidence", "--log", "all.jsonl")
    done = claim("--photo", "painted.jpg", *listing, *kept)
    assert done.code == 0, done.err
    assert done.out.startswith("claim C-1: ")
    assert "verdict_synthetic: painted.jpg: " in done.out
    assert "感谢您" in done.out
    evidence = json.loads(Path("evidence/evidence.json").read_text(encoding="utf-8"))
    assert evidence["text"] == "它裂了"
    head = json.loads(Path("all.jsonl").read_text())["hash"]
    assert head in done.out
    checked = type_in(
        "verify", "evidence", "--log", "all.jsonl", "--head", head, "--photo", "painted.jpg"
    )
    assert checked.code == 0, checked.out
    assert "ok        painted.jpg: " in checked.out
    foreign = type_in("verify", "evidence", "--photo", "blue.jpg", "cut.jpg")
    assert foreign.code == 1
    assert "ok        blue.jpg: " in foreign.out
    assert "MISMATCH  cut.jpg: " in foreign.out
    Path("evidence/evidence.html").write_text("another page")
    broken = type_in("verify", "evidence")
    assert broken.code == 1
    assert "MISMATCH  evidence/evidence.html: " in broken.out


def test_an_index_over_claims(type_in, claim):
    options = ("--photo", "blue.jpg", "--index", "claims.sqlite", "--claim-id")
    assert claim(*options, "C-1").out.startswith("claim C-1: approve\n")
    done = claim(*options, "C-2")
    assert done.code == 0
    assert "claim C-2: escalate" in done.out
    known = type_in("claim-index", "claims.sqlite", "--delete", "C-1")
    expected = "1 photo of claim C-1 forgotten\nclaims.sqlite: 1 photo remembered\n"
    assert known[:2] == (0, expected)
    unknown = type_in("claim-index", "claims.sqlite", "--delete", "nope", "--purge", "1")
    assert unknown.code == 1
    assert "'nope'" in unknown.err
    assert "1 day ago\nclaims.sqlite: 1 photo remembered\n" in unknown.out
    assert type_in("claim-index", "none.sqlite").code == 2
    assert not Path("none.sqlite").exists()


def test_a_claim_that_failed_without_an_id_is_not_remembered(type_in, claim):
    Path("taken").write_text("a file where the folder of evidence should be")
    done = claim("--photo", "blue.jpg", "--index", "claims.sqlite", "--out", "taken/evidence")
    assert done.code == 3
    assert "taken" in done.err
    assert type_in("claim-index", "claims.sqlite").out == "claims.sqlite: 0 photos remembered\n"


def test_a_claim_is_proved_to_somebody_who_knows_the_root(type_in, claim):
    for number in (1, 2, 3):
        place = ("--out", f"evidence-{number}", "--log", "all.jsonl")
        assert claim("--photo", "blue.jpg", "--claim-id", f"C-{number}", *place).code == 0
    printed = type_in("log-proof", "--log", "all.jsonl").out.split()
    assert printed[:3] == ["size", "3", "root"]
    root = printed[3]
    made = type_in("log-proof", "--log", "all.jsonl", "--claim", "C-2", "--out", "proof.json")
    assert made.code == 0
    shown = type_in("log-proof", "--check", "proof.json", "--root", root)
    assert shown.code == 0
    assert "evidence_written" in shown.out
    assert "C-2" in shown.out
    assert "C-1" not in shown.out
    Path("proof.json").write_text(Path("proof.json").read_text().replace("C-2", "C-1"))
    for wrong in (("proof.json", root), ("proof.json", "00" * 32), ("blue.jpg", root)):
        done = type_in("log-proof", "--check", wrong[0], "--root", wrong[1])
        assert done.code == 1
    assert type_in("log-proof", "--log", "all.jsonl", "--claim", "C-2").code == 2
    assert type_in("log-proof", "--check", "proof.json").code == 2
    assert type_in("log-proof", "--log", "none.jsonl").code == 2


def test_a_store_moves_to_postgresql_only(type_in):
    done = type_in("move-store", "--store", "store", "--database", "sqlite:///other.sqlite")
    assert done.code == 2
    assert not Path("other.sqlite").exists()


def test_one_unreadable_photo_fails_alone(claim):
    done = claim("--photo", "blue.jpg", "cut.jpg")
    assert done.code == 1
    assert "photo_unreadable: cut.jpg: " in done.out
    assert claim("--photo", "cut.jpg", "--out", "evidence").code == 3
    assert not Path("evidence").exists()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device")
def test_only_regular_files_are_photos_of_a_claim(claim):
    done = claim("--photo", "blue.jpg", "/dev/null")
    assert done[:2] == (3, "")
    assert "/dev/null" in done.err


def test_the_default_policy_can_be_written_edited_and_used(type_in, claim):
    assert type_in("claim", "--write-policy", "policy.yaml").code == 0
    assert ClaimPolicy.from_yaml("policy.yaml") == ClaimPolicy()
    assert type_in("claim", "--write-policy", "policy.yaml").code == 2
    text = Path("policy.yaml").read_text(encoding="utf-8")
    options = ("--photo", "painted.jpg", "--claim-id", "C", "--policy", "policy.yaml")
    assert "claim C: review" in claim(*options).out
    edited = text.replace("verdict_synthetic: review", "verdict_synthetic: approve")
    Path("policy.yaml").write_text(edited)
    assert "claim C: approve" in claim(*options).out
    Path("policy.yaml").write_text(text.replace("verdict_synthetic:", "verdict_sinthetic:"))
    wrong = claim(*options)
    assert wrong.code == 2
    assert "verdict_sinthetic" in wrong.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "--photo"),
        ("--photo blue.jpg --listing none.jpg", "none.jpg"),
        ("--photo blue.jpg --keep-originals", "--out"),
        ("--photo blue.jpg --out .", "empty"),
        ("--photo blue.jpg --index no/claims.sqlite", "no"),
        ("--photo blue.jpg --prior 2", "prior=2.0"),
    ],
)
def test_wrong_input_is_a_usage_error(claim, words, named):
    code, out, err = claim(*words.split())
    assert (code, out) == (2, "")
    assert named in err
