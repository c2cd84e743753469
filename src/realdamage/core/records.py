"""Frozen dataclasses that travel as JSON, read strictly: an unknown key is an error."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from realdamage.errors import ConfigError, ModelFileError, RealDamageError, near_match

T = TypeVar("T")


class Record:
    """Base of a dataclass that travels as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return dataclasses.asdict(typing.cast("Any", self))


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with this message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_between(
    record: Record, keys: tuple[str, ...], low: float, high: float, *, ends: bool = True
) -> None:
    """Raises ConfigError unless these fields lie between the limits; None always does.

    ends: whether a field may be equal to a limit.
    """
    for key in keys:
        value = getattr(record, key)
        fits = value is None or (low <= value <= high if ends else low < value < high)
        what = "in" if ends else "inside"
        require(fits, f"{type(record).__name__}: {key}={value} must be {what} {low}..{high}")


def record_from_dict(cls: type[T], values: Any, where: str) -> T:
    """Build the dataclass `cls` from plain JSON values; errors name the key `where`.

    Fields with a default may be absent, and an unknown key may be null: it asks for nothing.
    Raises ModelFileError on a missing, unknown or wrong value.
    """
    if not isinstance(values, Mapping):
        raise ModelFileError(f"{where}: expected an object, found {values!r}")
    hints = typing.get_type_hints(cls)
    values = {key: value for key, value in values.items() if key in hints or value is not None}
    for key in values:
        if key not in hints:
            raise ModelFileError(f"{where}: unknown key {key!r}; {_near(key, hints)}")
    for field in dataclasses.fields(typing.cast("Any", cls)):
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and field.name not in values:
            raise ModelFileError(f"{where}: the key {field.name!r} is missing")
    read = {name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return cls(**read)
    except RealDamageError as error:
        raise ModelFileError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ModelFileError(f"{where}: {value!r} is unknown; {_near(value, arguments)}")
    if origin in (typing.Union, types.UnionType):  # only `X | None` is used
        return None if value is None else _value(arguments[0], value, where)
    if dataclasses.is_dataclass(hint):
        return record_from_dict(typing.cast("type[Any]", hint), value, where)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _value(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        hints = arguments[:1] * len(value) if arguments[1:] == (Ellipsis,) else arguments
        if len(hints) == len(value):
            numbered = enumerate(zip(hints, value, strict=True))
            return tuple(_value(one, v, f"{where}[{index}]") for index, (one, v) in numbered)
    is_bool = isinstance(value, bool)
    if hint is float and isinstance(value, int | float) and not is_bool:
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not is_bool):
        return value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise ModelFileError(f"{where}: expected {expected}, found {value!r}")


def _near(given: Any, known: Iterable[str]) -> str:
    known = list(known)
    near = near_match(str(given), known, cutoff=0.6)
    return f"did you mean {near}?" if near else f"known are {', '.join(known)}"
