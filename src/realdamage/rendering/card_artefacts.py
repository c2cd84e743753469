"""What other commands left behind and a card shows too: figures of folds with something left out, and times of a
benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.left_out import ALL, AS_IT_IS, COLUMNS, MEAN, WORST
from realdamage.rendering.card_figures import with_interval
from realdamage.rendering.card_markdown import Markdown, escape, settings, table
from realdamage.rendering.left_out_text import to_markdown
from realdamage.rendering.pages import figure, percent

_COLUMNS = (*COLUMNS, "git_commit", "command", "date")
_ESCAPED = ["fold", "left_out", "perturbation", "note", "git_commit", "date"]
_WORDS = {*_ESCAPED, "command", "model_version", "graph_sha256"}
_AGAIN = "Write it again with realdamage-folds, when its folds are finished."


@dataclass(frozen=True)
class Folds:
    """Figures on what a model was not trained on. sentence: mean and worst; table: of all folds; commands: that led to
    them."""

    sentence: str
    table: Markdown
    commands: tuple[str, ...]


def read_folds(path: Path) -> Folds:
    """Raises UsageError: no such file; RealDamageError: no table of folds, or one without mean and worst."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); name folds.csv of realdamage-folds"
        ) from error
    except ValueError as error:
        raise RealDamageError(f"{path}: not a readable table ({error}). {_AGAIN}") from error
    missing = [column for column in _COLUMNS if column not in rows.columns]
    if missing:
        raise RealDamageError(
            f"{path}: no table of folds; missing columns: {', '.join(missing)}. {_AGAIN}"
        )
    for column in (name for name in _COLUMNS if name not in _WORDS):
        try:
            rows[column] = pd.to_numeric(rows[column]).astype(float)
        except ValueError as error:
            raise RealDamageError(
                f"{path}, column {column}: {error}; figures must be numbers. {_AGAIN}"
            ) from error
    commands = tuple(dict.fromkeys(rows["command"]))
    # The table escapes | itself, and has its command in backticks.
    rows["command"] = rows["command"].str.replace("`", "'")
    rows[_ESCAPED] = rows[_ESCAPED].map(lambda text: escape(text).replace(r"\|", "|"))
    clean_rows = rows[(rows["perturbation"] == AS_IT_IS) & (rows["left_out"] == ALL)].set_index(
        "fold"
    )
    if MEAN not in clean_rows.index or WORST not in clean_rows.index:
        raise RealDamageError(
            f"{path}: no rows of fold {MEAN} and {WORST} (left_out {ALL}, perturbation {AS_IT_IS}). {_AGAIN}"
        )
    mean, worst = (clean_rows.loc[[fold]].iloc[0].to_dict() for fold in (MEAN, WORST))
    count = len(clean_rows) - 2
    told = []
    for key, title, tell in (
        ("auroc", "AUROC", figure),
        ("tpr_at_fpr_1", "TPR at 1% FPR on really damaged photos", percent),
    ):
        if pd.notna(mean[key]):
            # Files from before mean and worst had intervals are told without.
            average, lowest = (
                with_interval(float(row[key]), row[f"{key}_low"], row[f"{key}_high"], tell)
                for row in (mean, worst)
            )
            told.append(f"{title} {average} on average, {lowest} in the worst")
    sentence = (
        f"{count:,} models, each trained without what it was then tested on: {'; '.join(told)}."
    )
    return Folds(sentence, Markdown(to_markdown(rows, "left out")), commands)


def benchmark_table(path: Path) -> Markdown:
    """Median times of pytest-benchmark's JSON, and what else it noted. Raises UsageError, RealDamageError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            (
                each["name"],
                f"{1000 * each['stats']['median']:,.1f}",
                _extra(each.get("extra_info") or {}),
            )
            for each in values["benchmarks"]
        ]
        cpu = (values.get("machine_info") or {}).get("cpu") or {}
        machine = ", ".join(str(cpu[key]) for key in ("brand_raw", "count") if cpu.get(key))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RealDamageError(
            f"{path}: not the JSON of pytest-benchmark ({type(error).__name__}: {error}). Write it with: make bench "
            f'PYTEST_ARGS="--benchmark-json {path}"'
        ) from error
    origin = escape(
        f"Processor and cores: {machine or 'not told'}; {str(values.get('datetime') or '')[:10]}."
    )
    return Markdown(f"{table(('measured', 'median, ms', 'also'), rows)}\n\n{origin}")


def _extra(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings(values))
