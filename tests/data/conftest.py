"""Small folders with a manifest; the files are empty, because reading a manifest opens none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

WriteFolder = Callable[..., Path]


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """`write_folder(csv_text, files=(…))` writes metadata.csv and empty files."""

    def write(text: str | bytes, files: tuple[str, ...] = ("a.jpg", "b.jpg", "c.jpg")) -> Path:
        folder = tmp_path / "photos"
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        folder.mkdir(exist_ok=True)
        (folder / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return write
