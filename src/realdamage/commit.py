"""Which code a figure or a model comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_commit() -> str:
    """Commit of the repository that this code runs from, with "+changes" when files differ from it;
    "" outside a repository."""
    try:
        commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changes else "")


def _git(*words: str) -> str:
    folder = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
