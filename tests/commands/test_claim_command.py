"""What people type: `realdamage claim`, `verify` and `claim-index`, their output and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from realdamage.claims import ClaimPolicy
from realdamage.commands.cli import main


class Finished(NamedTuple):
    code: int
    out: str
    err: str


Type = Callable[..., Finished]


@pytest.fixture
def type_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    save_red_model: Callable[[Path], Path],
) -> Type:
    """Types a command in a folder with red.onnx, blue.jpg, painted.jpg (red quarter) and cut.jpg (half a file)."""
    monkeypatch.chdir(tmp_path)
    save_red_model(Path("red.onnx"))
    rng = np.random.default_rng(0)
    rgb = np.kron(rng.integers(0, 90, (12, 12, 1)), np.ones((32, 32, 1))) + np.array((40, 60, 120))
    Image.fromarray(rgb.astype(np.uint8)).save("blue.jpg", quality=95)
    rgb[:192, :192] = (200, 100, 40)
    Image.fromarray(rgb.astype(np.uint8)).save("painted.jpg", quality=95)
    Path("cut.jpg").write_bytes(Path("blue.jpg").read_bytes()[:2000])

    def run(*arguments: str) -> Finished:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Finished(code, *capsys.readouterr())

    return run


def test_a_claim_its_evidence_and_the_check(type_in: Type) -> None:
    Path("text.txt").write_text("它裂了", encoding="utf-8")
    options = (
        "--listing",
        "blue.jpg",
        "--text-file",
        "text.txt",
        "--claim-id",
        "C-1",
        "--model",
        "red.onnx",
    )
    done = type_in(
        "claim", "--photo", "painted.jpg", *options, "--out", "evidence", "--log", "all.jsonl"
    )
    assert done.code == 0, done.err
    assert done.out.startswith("claim C-1: ")
    assert "verdict_synthetic: painted.jpg: " in done.out
    assert "no_promise: " in done.out
    assert "感谢您" in done.out
    assert (
        json.loads(Path("evidence/evidence.json").read_text(encoding="utf-8"))["text"] == "它裂了"
    )
    head = json.loads(Path("all.jsonl").read_text())["hash"]
    assert head in done.out
    checked = type_in(
        "verify", "evidence", "--log", "all.jsonl", "--head", head, "--photo", "painted.jpg"
    )
    assert checked.code == 0, checked.out
    assert "painted.jpg: is the claim's painted.jpg, byte for byte" in checked.out
    assert "Not shown:" in checked.out
    foreign = type_in("verify", "evidence", "--photo", "blue.jpg", "cut.jpg")
    assert foreign.code == 1
    assert "blue.jpg: is the listing's blue.jpg, byte for byte" in foreign.out
    assert "cut.jpg: is not a photo of the claim, nor a listing photo" in foreign.out
    assert (
        "what is marked MISMATCH has to be explained first" in foreign.out
    )  # the evidence may be whole
    Path("evidence/evidence.html").write_text("another page")
    broken = type_in("verify", "evidence")
    assert broken.code == 1
    assert "MISMATCH  evidence/evidence.html: was changed" in broken.out


def test_an_index_over_claims(type_in: Type) -> None:
    options = ("--model", "red.onnx", "--index", "claims.sqlite")
    assert type_in("claim", "--photo", "blue.jpg", "--claim-id", "C-1", *options).out.startswith(
        "claim C-1: approve\n"
    )
    done = type_in("claim", "--photo", "blue.jpg", "--claim-id", "C-2", *options)
    assert done.code == 0
    assert "claim C-2: escalate" in done.out
    assert "the same file as photo 1 of claim C-1" in done.out
    known = type_in("claim-index", "claims.sqlite", "--delete", "C-1")
    assert (known.code, known.out) == (
        0,
        "1 photo of claim C-1 forgotten\nclaims.sqlite: 1 photo remembered\n",
    )
    unknown = type_in("claim-index", "claims.sqlite", "--delete", "nope", "--purge", "1")
    assert (unknown.code, unknown.err) == (
        1,
        "realdamage: claims.sqlite: no claim 'nope' is remembered\n",
    )
    assert unknown.out == (
        "0 photos forgotten, seen more than 1 day ago\nclaims.sqlite: 1 photo remembered\n"
    )

    assert type_in("claim-index", "none.sqlite").code == 2
    assert not Path("none.sqlite").exists()


def test_a_claim_that_failed_without_an_id_is_not_remembered(type_in: Type) -> None:
    Path("taken").write_text("a file where the folder of evidence should be made")
    done = type_in(
        *(
            "claim",
            "--photo",
            "blue.jpg",
            "--model",
            "red.onnx",
            "--index",
            "claims.sqlite",
            "--out",
            "taken/evidence",
        )
    )
    assert done.code == 3
    assert "cannot be written" in done.err
    assert type_in("claim-index", "claims.sqlite").out == "claims.sqlite: 0 photos remembered\n"


def test_one_unreadable_photo_fails_alone_and_is_told(type_in: Type) -> None:
    done = type_in("claim", "--photo", "blue.jpg", "cut.jpg", "--model", "red.onnx")
    assert done.code == 1
    assert (
        "photo_unreadable: cut.jpg: could not be read: the file is damaged or cut off" in done.out
    )
    none = type_in("claim", "--photo", "cut.jpg", "--model", "red.onnx", "--out", "evidence")
    assert none.code == 3
    assert "none of the claim's 1 photos could be read" in none.err
    assert not Path("evidence").exists()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device")
def test_only_regular_files_are_photos_of_a_claim(type_in: Type) -> None:
    done = type_in("claim", "--model", "red.onnx", "--photo", "blue.jpg", "/dev/null")
    assert (done.code, done.out) == (3, "")
    assert "/dev/null: is a pipe or a device" in done.err


def test_the_default_policy_can_be_written_edited_and_used(type_in: Type) -> None:
    assert type_in("claim", "--write-policy", "policy.yaml").code == 0
    assert ClaimPolicy.from_yaml("policy.yaml") == ClaimPolicy.default()
    assert type_in("claim", "--write-policy", "policy.yaml").code == 2
    text = Path("policy.yaml").read_text(encoding="utf-8")
    options = (
        "--photo",
        "painted.jpg",
        "--model",
        "red.onnx",
        "--claim-id",
        "C",
        "--policy",
        "policy.yaml",
    )
    assert "claim C: review" in type_in("claim", *options).out
    Path("policy.yaml").write_text(
        text.replace("verdict_synthetic: review", "verdict_synthetic: approve")
    )
    assert "claim C: approve" in type_in("claim", *options).out
    Path("policy.yaml").write_text(text.replace("verdict_synthetic:", "verdict_sinthetic:"))
    wrong = type_in("claim", *options)
    assert wrong.code == 2
    assert (
        "policy.yaml: unknown key rules.verdict_sinthetic; did you mean rules.verdict_synthetic?"
        in wrong.err
    )


def test_the_schema_is_printed(type_in: Type) -> None:
    done = type_in("claim", "--schema")
    assert done.code == 0
    assert json.loads(done.out)["properties"]["schema_version"] == {"const": 1}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "a claim needs photos"),
        (("--photo", "none.jpg"), "none.jpg: no such photo or folder"),
        (("--photo", "blue.jpg", "--listing", "none.jpg"), "none.jpg: no such photo or folder"),
        (("--photo", "blue.jpg", "--text-file", "none.txt"), "none.txt: the text cannot be read"),
        (("--photo", "blue.jpg", "--text-file", "blue.jpg"), "blue.jpg: the text is not in UTF-8"),
        (
            ("--photo", "blue.jpg", "--policy", "none.yaml"),
            "none.yaml: the claim policy cannot be read",
        ),
        (("--photo", "blue.jpg", "--keep-originals"), "name its folder with --out"),
        (("--photo", "blue.jpg", "--out", "."), "is not empty"),
        (("--photo", "blue.jpg", "--out", "blue.jpg"), "blue.jpg: is a file"),
        (("--photo", "blue.jpg", "--index", "no/claims.sqlite"), "no folder no"),
        (("--photo", "blue.jpg", "--prior", "2"), "prior=2.0"),
        (("--photo", "blue.jpg", "--claim-id", ""), "claim_id ''"),
    ],
)
def test_wrong_input_ends_with_a_sentence(
    type_in: Type, arguments: tuple[str, ...], says: str
) -> None:
    done = type_in("claim", "--model", "red.onnx", *arguments)
    assert done.code == 2
    assert says in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("none",), "none: no evidence in this folder"),
        ((".", "--head", "12"), "no evidence in this folder"),
    ],
)
def test_nothing_to_verify(type_in: Type, arguments: tuple[str, ...], says: str) -> None:
    done = type_in("verify", *arguments)
    assert done.code == 2
    assert says in done.err
