"""`realdamage audit` as it is typed: what it prints, writes and returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from realdamage.commands.cli import main
from realdamage.data.manifest import read_manifest, write_manifest


@pytest.fixture
def leaking(write_set: Callable[..., Path], tmp_path: Path) -> Path:
    """A set whose synthetic photos all come from one source."""
    root = write_set(tmp_path / "leaking", 8)
    table = read_manifest(root).table
    write_manifest(
        root, table.assign(source=table["source"].where(table["label"] == "real", "generated/x"))
    )
    return root


def test_an_honest_set_passes_with_the_verdict_in_the_last_line(
    tiny_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(tiny_manifest), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tiny_manifest}: 44 photos, 20 real and 24 synthetic (every photo decoded)"
    assert lines[-1] == "audit passed"
    tests = {
        line.split()[0]: line
        for line in lines
        if line.endswith(("passed", "not judged")) and "to" in line
    }
    assert set(tests) == {"container", "source", "damage", "condition", "bytes", "colour"}
    assert ["annotated", "4", "0"] in [line.split() for line in lines]


def test_a_set_too_small_to_measure_does_not_pass(
    write_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, page, report = (
        write_set(tmp_path / "small", 4),
        tmp_path / "audit.html",
        tmp_path / "audit.json",
    )
    assert main(["audit", str(root), "--quick", "--json", str(report), "--html", str(page)]) == 3
    out = capsys.readouterr().out
    assert "passed" not in out
    told = "audit: nothing could be measured (too few photos: 5 real and 6 synthetic photos of 4 groups; at least"
    assert out.splitlines()[-1].startswith(told)
    assert json.loads(report.read_text())["passed"] is False
    assert told in page.read_text()
    (root / "photos/00_original.png").unlink()
    assert main(["audit", str(root), "--quick"]) == 1  # a fault that was found counts all the same


def test_a_leaking_set_fails_and_says_by_what(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, report = tmp_path / "audit.html", tmp_path / "audit.json"
    assert (
        main(
            [
                "audit",
                str(leaking),
                "--quick",
                "--json",
                str(report),
                "--html",
                str(page),
                "--seed",
                "3",
            ]
        )
        == 1
    )
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "audit failed: source"
    assert "generated/x: 0 real, 12 synthetic" in out
    assert "FAILED" in out
    assert json.loads(report.read_text())["passed"] is False
    assert "audit failed: source" in page.read_text()


def test_missing_photos_are_listed_not_refused(
    leaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (leaking / "photos/00_original.png").unlink()
    assert main(["audit", str(leaking), "--quick"]) == 1
    out = capsys.readouterr().out
    assert "error (1): photos cannot be read" in out
    assert out.splitlines()[-1] == "audit failed: source; 1 unreadable"


def test_what_cannot_be_audited_is_an_error(
    tiny_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    table = read_manifest(tiny_manifest).table
    (tmp_path / "photos").symlink_to(tiny_manifest / "photos")
    write_manifest(tmp_path, table[table["label"] == "real"].assign(pair=""))
    assert main(["audit", str(tmp_path), "--quick"]) == 3
    assert "20 real, 0 synthetic" in capsys.readouterr().err
