"""Markdown: text that no name of a user can break, and the table of folds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.left_out import ALL, AS_IT_IS, FIGURES, MEAN, WORST
from realdamage.evaluation.left_out import COLUMNS as FOLD_COLUMNS
from realdamage.rendering import words
from realdamage.rendering.words import NOTHING, Row, number

# Underscores between letters, as in house_nearest, mean nothing.
_SPECIAL = re.compile(r"([\\`*~\[\]<>|&]|(?<!\w)_|_(?!\w))")


class Markdown(str):
    """Text that is Markdown already, and so is not escaped."""

    __slots__ = ()


def escape(value: object) -> Markdown:
    """`value` on one line, with nothing that Markdown gives a meaning to."""
    if isinstance(value, Markdown):
        return value
    return Markdown(_SPECIAL.sub(r"\\\1", " ".join(str(value).split())))


def code(text: str) -> Markdown:
    """`text` within a line, letter by letter."""
    fence = "`" * (_longest_run(text) + 1)
    space = " " if "`" in text else ""
    # A table ends its cell at every |, even within code.
    return Markdown(f"{fence}{space}{' '.join(text.split())}{space}{fence}".replace("|", r"\|"))


def code_block(lines: Sequence[str]) -> Markdown:
    """Lines of code, letter by letter; "" without any."""
    text = "\n".join(lines)
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markdown(f"{fence}\n{text}\n{fence}" if lines else "")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def table(
    titles: Sequence[object], rows: Sequence[Sequence[object]], pad: bool = False
) -> Markdown:
    """A table; "" without rows. pad: its columns line up in a terminal too."""
    cells = [[escape(cell) for cell in row] for row in (titles, ["---"] * len(titles), *rows)]
    widths = [max(map(len, column)) if pad else 0 for column in zip(*cells, strict=True)]
    lines = [" | ".join(map(str.ljust, row, widths)) for row in cells]
    return Markdown("\n".join(f"| {line} |" for line in lines) if rows else "")


@cache
def environment() -> Environment:
    """Jinja whose every value is escaped for Markdown."""
    made = words.environment(finalize=escape)
    made.globals |= {"table": table, "code": code, "code_block": code_block}
    return made


def to_markdown(rows: pd.DataFrame, unfinished: Sequence[str] = ()) -> str:
    """The table of folds (`left_out_table`, with git_commit, command and date).

    Photos as they are: each fold, its values, mean and worst. Under perturbations: mean and worst
    over the folds.
    """
    records = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
    as_is = [row for row in records if row["perturbation"] == AS_IT_IS]
    changed = [row for row in records if row not in as_is and row["fold"] in (MEAN, WORST)]
    titles = (
        *("AUROC (95%)", "known sources (95%)", "TPR at 1% FPR (95%)"),
        *("edit above original (95%)", "best F1 (all)"),
    )
    notes: dict[str, list[str]] = {}
    for row in as_is:
        for note in filter(None, row["note"].split("; ") if row["fold"] != WORST else []):
            notes.setdefault(note, []).append(_fold(row).removeprefix("· "))
    counts = list(words.cells(as_is, ("{0[n_real]:.0f}", "{0[n_synthetic]:.0f}")))
    whole = [(_fold(row), *n, *_fold_figures(row)) for row, n in zip(as_is, counts, strict=True)]
    perturbed = [(row["perturbation"], row["fold"], *_fold_figures(row)) for row in changed]
    values: dict[str, Any] = {
        "folds": table(("left out", "real", "synthetic", *titles), whole, pad=True),
        "perturbed": table(("perturbation", "over folds", *titles), perturbed, pad=True),
        "worst": [row["note"] for row in as_is if row["fold"] == WORST and row["note"]],
    }
    template = environment().get_template("folds.md.j2")
    values |= {"notes": notes, "unfinished": unfinished, "origin": records[0]}
    return template.render(values).strip()


def _fold(row: Row) -> str:
    return str(row["fold"]) if row["left_out"] == ALL else f"· {row['left_out']}"


def _fold_figures(row: Row) -> list[str]:
    best = number(row["best_f1"], 2)
    best += "" if best == NOTHING else f" ({number(row['baseline_f1'], 2)})"
    return [*(words.cell(row, key) for key in FIGURES[:-1]), best]


def read_folds(path: Path) -> dict[str, Any]:
    """models: how many; mean, worst: rows over all folds; table: of all of them; honest: rows whose
    real photos are all of one source never trained on, and were judged; own: those of them that
    were also judged by thresholds of their own; commands: those that made them.

    Raises UsageError: no such file; RealDamageError: not a table of folds, or one without mean and
    worst.
    """
    numbers = FOLD_COLUMNS[4:-3]
    try:
        rows = pd.read_csv(path, keep_default_na=False, na_values={key: [""] for key in numbers})
        rows = rows.astype(dict.fromkeys(numbers, float))
        whole = rows[(rows["perturbation"] == AS_IT_IS) & (rows["left_out"] == ALL)]
        whole = whole.set_index("fold")
        mean, worst = (whole.loc[fold].to_dict() for fold in (MEAN, WORST))
        text = Markdown(to_markdown(rows))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Name folds.csv.") from error
    except (ValueError, KeyError) as error:
        raise RealDamageError(
            f"{path}: not a table of folds ({error}). Write it again with realdamage-folds when "
            "its folds are finished.",
            code="not_folds",
        ) from error
    one = (rows["perturbation"] == AS_IT_IS) & (rows["column"] == "source")
    honest = rows[one & (rows["left_out"] != ALL) & rows["honest_review"].notna()]
    found = {"models": len(whole) - 2, "mean": mean, "worst": worst, "table": text}
    own = honest[honest["own_honest_review"].notna()]
    found |= {"honest": honest.to_dict("records"), "own": own.to_dict("records")}
    return found | {"commands": list(dict.fromkeys(rows["command"]))}
