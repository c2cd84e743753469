"""Tables of trials: shares with their intervals, and a CSV in which each row says what made it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from realdamage.commit import git_commit


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The parser of a trial, with --seed and --csv. doc: what `--help` begins with."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=plain)
    parser.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    parser.add_argument("--csv", type=Path, help="file for the table")
    return parser


def share(hits: int, count: int, name: str = "share", method: str = "exact") -> dict[str, float]:
    """The share and its 95% interval, in columns that begin with `name`. method: "exact" (Clopper
    & Pearson) or "wilson"."""
    interval = binomtest(hits, count).proportion_ci(method=method)
    values = {"": hits / count, "_low": interval.low, "_high": interval.high}
    return {f"{name}{end}": round(float(value), 4) for end, value in values.items()}


def write(rows: Sequence[dict[str, Any]], path: Path | None, command: str) -> None:
    """Print the rows, and write them to a CSV with command, commit and date."""
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if path:
        origin = {"command": command, "git_commit": git_commit()}
        table = table.assign(**origin, date=f"{datetime.now(UTC):%Y-%m-%d}")
        table.to_csv(path, index=False, lineterminator="\n")
