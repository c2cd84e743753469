"""`realdamage neutralise` writes a set anew, says what became of it, and names what it left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from realdamage.commands.cli import main
from realdamage.data.manifest import read_manifest


@pytest.fixture
def photos(tmp_path: Path, write_set: Callable[..., Path]) -> Path:
    return write_set(tmp_path / "in", 4)


def test_a_set_is_written_anew_and_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["neutralise", str(photos), str(out), "--quality", "75-95", "--workers", "1"]) == 0
    printed = capsys.readouterr()
    first, sizes, left_out, following = printed.out.splitlines()
    assert first.startswith(f"{out}: 11 photos (5 real, 6 synthetic) in ")
    assert sum(int(size.rpartition(" ")[2]) for size in sizes.split(", ")) == 11
    assert left_out == "left out 0"
    assert following == f"next: realdamage audit {out}"
    assert printed.err == ""
    table = read_manifest(out).table
    assert len(table) == 11
    assert (table["file_name"].str.endswith(".jpg")).all()


def test_sizes_can_be_given_and_what_is_too_small_is_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (60, 60)).save(photos / "photos" / "01_damaged.png")
    assert (
        main(
            [
                "neutralise",
                str(photos),
                str(tmp_path / "out"),
                "--sizes",
                "80x64",
                "--quality",
                "90",
            ]
        )
        == 0
    )
    printed = capsys.readouterr()
    assert "sizes    80x64: 8" in printed.out
    assert f"left out 3, listed in {tmp_path / 'out' / 'dropped.csv'}" in printed.out
    assert (
        "left out: photos/01_damaged.png: too small: 60x60 pixels, 88x72 are needed" in printed.err
    )


def test_sets_without_a_jpeg_are_told_which_qualities_were_used(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["neutralise", str(photos), str(tmp_path / "out"), "--sizes", "keep"]) == 0
    notes = capsys.readouterr().err
    assert "qualities 85-97 are used" in notes
    assert "keeps its own size" in notes


def test_an_unreadable_photo_stops_or_is_skipped(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "photos" / "01_damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    command = ["neutralise", str(photos), str(tmp_path / "out"), "--history", "--seed", "3"]
    assert main(command) == 3
    assert "01_damaged.png: the file is damaged" in capsys.readouterr().err
    assert main([*command, "--on-error", "skip"]) == 0
    assert "left out 3" in capsys.readouterr().out


def test_the_same_folder_is_refused_with_other_settings_unless_overwritten(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["neutralise", str(photos), str(tmp_path / "out")]
    assert main(command) == 0
    assert main([*command, "--max-side", "64"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--max-side", "64", "--overwrite"]) == 0
    assert "sizes    56x56: 11" in capsys.readouterr().out
    assert main(["neutralise", str(photos), str(photos / "out")]) == 2
    assert "lies in the set that is read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--quality", "good", "write a range as 75-95"),
        ("--quality", "95-75", "quality 95-75: must rise"),
        ("--sizes", "80", "write keep, reals, or sizes as"),
        ("--sizes", "8x8", "size 8x8: each side"),
        ("--on-error", "ignore", "invalid choice"),
    ],
)
def test_wrong_options_are_usage_errors(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    message: str,
) -> None:
    try:
        code: int | str | None = main(
            ["neutralise", str(photos), str(tmp_path / "out"), option, value]
        )
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
