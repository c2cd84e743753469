"""Which code a figure or a model comes from."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def git_commit() -> str:
    """Commit of the repository that this code runs from, with "+changes" when files differ from it;
    "" outside a repository."""
    try:
        commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changes else "")


def code_sha256(patterns: Iterable[str], libraries: Iterable[str]) -> str:
    """Digest (hex) of some of this package's files and of the versions of libraries: what other
    code has made may differ.

    patterns: globs below the package, such as "core/*.py".
    """
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in libraries).encode())
    root = Path(__file__).resolve().parent
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _git(*words: str) -> str:
    folder = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
