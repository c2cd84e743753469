"""How other people's tables say what ours say: which of their columns is which of ours, which of their words mean which
of ours, and what holds for every row. One shape for YAML files (`--columns FILE`) and for Hydra (`data.reader`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realdamage.data.checks import did_you_mean, near_match
from realdamage.data.tables import RawTable
from realdamage.data.vocabulary import ALLOWED_VALUES, KNOWN_COLUMNS, LABELS, REQUIRED_COLUMNS
from realdamage.errors import ConfigError, ManifestError

LAYOUTS = ("auto", "manifest", "imagefolder", "folders", "fraudbench", "table", "real")
# `part` is no column of every manifest, but sets that are made of parts have it.
_OURS = (*KNOWN_COLUMNS, "part")
_WHERE = "(realdamage manifest --columns FILE, data.reader in a configuration)"


@dataclass(frozen=True)
class Reader:
    """What to read and how to understand it.

    `layout`: one of `LAYOUTS`; "auto" looks at what lies there. `columns`: our column → theirs, "" for one of theirs
    that shall not count; their columns that are not named keep their names. `values`: our column → their word → ours;
    then every word needs a mapping, empty cells stay empty unless "" is mapped. `constants`: our column → the value of
    every row, whatever the table says. Raises ConfigError that names the key.
    """

    layout: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(
                f"layout {self.layout!r} is unknown; allowed: {', '.join(LAYOUTS)}.{did_you_mean(self.layout, LAYOUTS)}"
            )
        for key in ("columns", "values", "constants"):
            for column in getattr(self, key):
                if column not in _OURS:
                    raise ConfigError(
                        f"{key}.{column}: not a column of ours; allowed: {', '.join(_OURS)}."
                        f"{did_you_mean(column, _OURS)} In `{key}` our name comes first."
                    )
        for column in self.constants:
            if column in self.columns or column in self.values:
                raise ConfigError(
                    f"constants.{column}: also in columns or values. Keep one of them."
                )
        said = [(f"values.{column}.{theirs}", column, ours) for column in self.values
                for theirs, ours in self.values[column].items()]  # fmt: skip
        said += [(f"constants.{column}", column, ours) for column, ours in self.constants.items()]
        for key, column, ours in said:
            allowed = ALLOWED_VALUES.get(column)
            if allowed and ours not in allowed and (ours or column in REQUIRED_COLUMNS):
                raise ConfigError(
                    f"{key}: found {ours!r}; allowed: {', '.join(allowed)}.{did_you_mean(ours, allowed)}"
                )

    @property
    def maps_tables(self) -> bool:
        """Whether it renames columns or words."""
        return bool(self.columns or self.values)


def reader_from_mapping(mapping: Mapping[str, Any] | None, where: str = "data.reader") -> Reader:
    """A Reader from plain values, as YAML or Hydra give them: numbers and booleans become words ("0", "true"), null
    becomes "". Raises ConfigError that names the key after `where`."""
    known = [each.name for each in fields(Reader)]
    for key in mapping or {}:
        if key not in known:
            under = f" Put it under columns: {{{key}: …}}." if key in _OURS else ""
            raise ConfigError(
                f"{where}: unknown key {key!r}; allowed: {', '.join(known)}.{did_you_mean(str(key), known)}{under}"
            )
    given: dict[str, Any] = {
        key: value for key, value in (mapping or {}).items() if value is not None
    }
    for key in ("columns", "values", "constants"):
        given[key] = _plain(given.get(key, {}), f"{where}.{key}", depth=2 if key == "values" else 1)
    try:
        return Reader(
            **{**given, "layout": _plain(given.get("layout", "auto"), f"{where}.layout", depth=0)}
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def reader_from_yaml(path: str | Path) -> Reader:
    """A Reader from a YAML file with the keys layout, columns, values and constants. Every value is read as the word
    that stands there, so `0`, `yes` and `true` need no quotes. Raises ConfigError."""
    import yaml

    try:
        found = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Name a YAML file.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error}).") from error
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{path}: found {type(found).__name__}. Write the keys columns, values and constants."
        )
    return reader_from_mapping(found, str(path))


def apply_mapping(table: RawTable, reader: Reader) -> RawTable:
    """The table with our columns and words. Raises ManifestError: a column of theirs is not there, a word has no
    mapping, or a required column of ours is still missing; ConfigError: `values` of a column that is not there."""
    theirs, rows, path = table
    for ours, name in reader.columns.items():
        if name and name not in theirs.columns:
            raise ManifestError(
                f"{path}: no column {name!r}, which is to be our {ours!r}; found: {', '.join(theirs.columns)}."
                f"{did_you_mean(name, theirs.columns)} Correct columns.{ours} {_WHERE}."
            )
    taken = {*reader.columns.values(), *reader.columns, *reader.constants}
    named = {
        ours: theirs[name] if name else pd.Series("", theirs.index)
        for ours, name in reader.columns.items()
    }
    kept = {name: theirs[name] for name in theirs.columns if name not in taken}
    frame = pd.DataFrame({**named, **kept}, index=theirs.index, dtype=str).assign(
        **reader.constants
    )
    for ours, words in reader.values.items():
        if ours not in frame.columns:
            raise ConfigError(
                f"values.{ours}: {path} has no column of that name; found: {', '.join(theirs.columns)}. "
                f"Say which it is: columns: {{{ours}: THEIR_COLUMN}} {_WHERE}."
            )
        frame[ours] = _translated(RawTable(frame, rows, path), ours, words)
    missing = [column for column in REQUIRED_COLUMNS if column not in frame.columns]
    if missing:
        raise ManifestError(_missing_column(missing[0], table))
    if "label" not in reader.values:
        _refuse_other_labels(RawTable(frame, rows, path))
    return RawTable(frame, rows, path)


def _missing_column(missing: str, table: RawTable) -> str:
    """Misspelt in a file of our own name, it is renamed there; in other people's tables, it is mapped."""
    theirs = list(table.frame.columns)
    near = near_match(missing, theirs)
    told = f"{table.path}: no column {missing!r}; found: {', '.join(theirs) or 'nothing'}."
    if near and table.path.stem == "metadata":
        return f"{told} Column {near!r}: rename it to {missing!r}."
    constant = ", or constants: {label: real}" if missing == "label" else ""
    return f"{told} Say which it is: columns: {{{missing}: {near or 'THEIR_COLUMN'}}}{constant} {_WHERE}."


def _translated(table: RawTable, column: str, words: Mapping[str, str]) -> pd.Series:
    found = table.frame[column]
    unknown = ~found.isin(words) & (found != "")
    if unknown.any():
        first = int(np.argmax(unknown.to_numpy()))
        word = str(found.iat[first])
        others = sorted(set(found[unknown]) - {word})
        more = (
            f" So have {', '.join(map(repr, others[:5]))}{' …' if len(others) > 5 else ''}."
            if others
            else ""
        )
        raise ManifestError(
            f"{table.path}, row {table.rows[first]}, column {column}: {word!r} has no mapping; values.{column} maps "
            f"{', '.join(map(repr, words))}.{did_you_mean(word, words)} Add values: {{{column}: {{{word!r}: …}}}} "
            f"{_WHERE}.{more}"
        )
    return found.map(lambda word: words.get(word, word))


def _refuse_other_labels(table: RawTable) -> None:
    """Their numbers or class names are not guessed at: which of 0 and 1 is synthetic differs from set to set."""
    label = table.frame["label"]
    wrong = ~label.isin(LABELS) & (label != "")
    if wrong.any():
        words = list(dict.fromkeys(label[wrong]))[:4]
        first = int(np.argmax(wrong.to_numpy()))
        example = ", ".join(f"{word!r}: real or synthetic" for word in words)
        raise ManifestError(
            f"{table.path}, row {table.rows[first]}, column label: found {words[0]!r}; allowed: {', '.join(LABELS)}."
            f"{did_you_mean(words[0], LABELS)} If these are the table's own words, say what they mean: "
            f"values: {{label: {{{example}}}}} {_WHERE}."
        )


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth == 0:
        if isinstance(value, (Mapping, list, tuple)):
            raise ConfigError(f"{where}: found {value!r}, not a single word.")
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: found {value!r}. Write it as `key: value`.")
    return {
        _plain(key, where, 0): _plain(inner, f"{where}.{key}", depth - 1)
        for key, inner in value.items()
    }
