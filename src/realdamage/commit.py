"""Which code a figure or a model comes from; in a file of its own, so that asking costs no import of torch."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def git_commit() -> str:
    """Commit of the repository that this code runs from, with "+changes" when files differ from it; "" outside a
    repository."""
    folder = Path(__file__).resolve().parent
    try:
        options: Any = {
            "cwd": folder,
            "capture_output": True,
            "text": True,
            "check": True,
            "timeout": 10,
        }
        commit = str(subprocess.run(["git", "rev-parse", "HEAD"], **options).stdout).strip()
        changes = str(
            subprocess.run(["git", "status", "--porcelain", "-uno"], **options).stdout
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changes else "")
