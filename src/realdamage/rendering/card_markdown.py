"""Markdown for cards: names come from users' files, so whatever is not Markdown by its type is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

# Where they stand between letters, as in house_nearest, underscores mean nothing.
_SPECIAL = re.compile(r"([\\`*~\[\]<>|&]|(?<!\w)_|_(?!\w))")


class Markdown(str):
    """Text that is Markdown already, put into a page as it is."""

    __slots__ = ()


def escape(value: object) -> Markdown:
    """`value` as text on one line that means nothing in Markdown; what is Markdown already stays as it is."""
    return (
        value
        if isinstance(value, Markdown)
        else Markdown(_SPECIAL.sub(r"\\\1", " ".join(str(value).split())))
    )


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


def bold(text: object) -> Markdown:
    """`text`, escaped, in bold."""
    return Markdown(f"**{escape(text)}**")


def table(titles: Sequence[object], rows: Sequence[Sequence[object]]) -> Markdown:
    """A table with its titles above; "" without rows. A title of "" is allowed."""
    if not rows:
        return Markdown("")
    cells = [titles, ["---"] * len(titles), *rows]
    return Markdown("\n".join(f"| {' | '.join(escape(cell) for cell in row)} |" for row in cells))


def bullets(sentences: Sequence[object]) -> Markdown:
    """A list with one sentence a line."""
    return Markdown("\n".join(f"- {escape(sentence)}" for sentence in sentences))


def settings(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as rows of a table: (a.b, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from settings(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value_text(value)


def value_text(value: object) -> str:
    """Numbers with four digits, lists with commas."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def render(template: str, **values: Any) -> str:
    """The page as Markdown, with at most one empty line in a row and a line break at its end."""
    text = _environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("realdamage.rendering", ""),
        autoescape=False,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
