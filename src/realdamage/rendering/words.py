"""Numbers, titles and sentences that the terminal, the pages and the model card have in common."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

    from realdamage.core.model_file import ModelMetadata
    from realdamage.core.quality import Gate

Fact = tuple[str, str]
Row = Mapping[str, Any]

_TABLE = json.loads(Path(__file__).with_name("titles.json").read_text(encoding="utf-8"))
TITLES: Mapping[str, str] = {key: row["title"] for key, row in _TABLE["figures"].items()}
"""Headline figures, in the order in which they are printed."""
SENTENCES: Mapping[str, str] = {key: row["sentence"] for key, row in _TABLE["figures"].items()}
"""What each of them means to somebody who is no statistician."""
COLUMNS: Mapping[str, str] = {key: row["title"] for key, row in _TABLE["columns"].items()}
"""Columns of a table of slices or perturbations."""
_NUMBERS = {key for rows in _TABLE.values() for key, row in rows.items() if "form" in row}
_COUNTED_ON = {"false_alarms": "n_damaged", "false_alarms_all_real": "n_real"}
NOTHING = "–"
"""Printed where a figure is missing; the reason is printed with it."""


def number(value: float | None, digits: int = 3) -> str:
    """Counts whole, figures with `digits` decimals."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in 0..1; small ones get two decimals."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{100 * value:.1f}%" if value >= 0.001 or value == 0 else f"{100 * value:.2f}%"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign; a true minus, so that columns line up."""
    return NOTHING if value is None else f"{value:+.{digits}f}".replace("-", "−")


def teller(key: str) -> Callable[[float | None], str]:
    """How the figure `key` is printed: as a number, or as a share in percent."""
    return number if key in _NUMBERS else percent


def interval(
    ends: Sequence[float | None] | None, tell: Callable[[float | None], str] = number
) -> str:
    """ "0.1 to 0.3"; "" without an interval (None, or ends that are None or NaN)."""
    low, high = ends or (None, None)
    return "" if low is None or math.isnan(low) else f"{tell(low)} to {tell(high)}"


def ends_of(row: Row, key: str) -> str:
    """The interval of a figure in a row of slices or perturbations, and how many photos it
    counts."""
    if row.get(key) is None:
        return ""
    ends = interval((row.get(f"{key}_low"), row.get(f"{key}_high")), teller(key))
    n = row.get(_COUNTED_ON.get(key, ""))
    return " ".join(filter(None, (f"({ends})" if ends else "", f"of {int(n):,}" if n else "")))


def cell(row: Row, key: str) -> str:
    """A figure in a row of slices or perturbations, with its interval."""
    return f"{teller(key)(row.get(key))} {ends_of(row, key)}".strip()


def measured(rows: Iterable[Row]) -> dict[str, str]:
    """The columns (`COLUMNS`) in which any of the rows has a figure."""
    found = {key for row in rows for key in COLUMNS if teller(key)(row.get(key)) != NOTHING}
    return {key: title for key, title in COLUMNS.items() if key in found}


def perturbation_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows of `robustness` in metrics.json with the perturbation's title and its pixel AP."""
    return [
        {
            **row,
            "perturbation": row.get("title") or str(row["perturbation"]).replace("_", " "),
            "pixel_ap": (row.get("localisation") or {}).get("pixel_ap"),
        }
        for row in rows
    ]


def count(n: int, noun: str) -> str:
    """ "1 photo", "2 photos"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


class _Formatter(string.Formatter):
    def get_field(self, name: str, args: Any, kwargs: Any) -> Any:
        try:
            return super().get_field(name, args, kwargs)
        except TypeError:  # an end of an interval that is None
            return None, name

    def format_field(self, value: Any, spec: str) -> str:
        missing = value is None or value != value
        return NOTHING if missing else str(super().format_field(value, spec))


def cells(rows: Iterable[Any], formats: Iterable[str]) -> Iterator[list[str]]:
    """The texts of a table, from one format string for each column: "{0.cost:.3f}"; – for None and
    NaN."""
    formatter, formats = _Formatter(), list(formats)
    for row in rows:
        yield [formatter.format(each, row) for each in formats]


def environment(**options: Any) -> Environment:
    """Jinja over this room's templates, with the functions above."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("realdamage.rendering"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    made.filters |= {"number": number, "percent": percent, "signed": signed}
    functions = (cell, ends_of, interval, measured, teller, count, gate_limits, short_commit)
    made.globals |= {function.__name__: function for function in functions}
    return made


@cache
def _plain() -> Environment:
    # A name from a user's file cannot start a line of its own.
    return environment(finalize=lambda value: " ".join(str(value).split()))


def lines(template: str, **values: Any) -> list[str]:
    """What a template says, line by line, without empty lines."""
    text = _plain().get_template(template).render(**values)
    return [line.strip() for line in text.splitlines() if line.strip()]


def facts(template: str, **values: Any) -> list[Fact]:
    """What a template says in lines like "term: sentence"; those without a sentence are left
    out."""
    found = [line.partition(":") for line in lines(template, **values)]
    return [(term, text.strip()) for term, _, text in found if text.strip()]


def gate_limits(gate: Gate) -> str:
    """The least quality of a photo that a model judges, "" without a limit."""
    limits = (
        ("shorter side {} pixels", gate.min_side),
        ("fine detail {:.4f}", gate.min_fine_detail),
        ("JPEG quality {:.0f}", gate.min_quality),
    )
    texts = [text.format(value) for text, value in limits if value is not None]
    return f"at least {', '.join(texts)}" if texts else ""


def demo_note(demo: bool) -> tuple[str, ...]:
    """What every page says at its top about a demonstration model; () for any other."""
    return tuple(lines("demo.txt.j2")) if demo else ()


def audit_facts(metadata: ModelMetadata) -> dict[str, Any]:
    """The audit of the training set as the model file has it: passed (None: not known), sentence,
    tests (name, AUROC, low, high; None where not measured), exceptions."""
    found = metadata.training.get("audit")
    audit = found if isinstance(found, Mapping) else {}
    verdict = audit.get("verdict")
    passed = {None: None, "not measured": None, "passed": True}.get(verdict, False)
    (sentence,) = lines("audit_sentence.txt.j2", found=found, passed=passed)
    tests = (audit.get("tests") or {}).items()
    exceptions = audit.get("exceptions") or ()
    return {
        "passed": passed,
        "sentence": sentence,
        "tests": [(name, *(None if v is None else float(v) for v in ends)) for name, ends in tests],
        "exceptions": [f"{each['part']}, {each['test']}: {each['reason']}" for each in exceptions],
    }


def short_commit(sha: str) -> str:
    """A commit as `realdamage.commit.git_commit` gives it, shortened."""
    return f"{sha[:12]}{' with uncommitted changes' if sha.endswith('+changes') else ''}"
