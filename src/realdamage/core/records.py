"""Frozen dataclasses that travel as JSON in a model file, read strictly: an unknown key is an
error."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from realdamage.errors import ConfigError, ModelFileError, RealDamageError

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


def record_from_dict(cls: type[T], values: Any, where: str) -> T:
    """Build the dataclass `cls` from plain JSON values; errors name the key `where`.

    Fields with a default may be absent. Raises ModelFileError on a missing, unknown or wrong value.
    """
    if not isinstance(values, Mapping):
        raise ModelFileError(f"{where}: expected an object, found {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(typing.cast("Any", cls))}
    for key in values:
        if key not in fields:
            raise ModelFileError(f"{where}: unknown key {key!r}; {_near(key, fields)}")
    for name, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if name not in values and not optional:
            raise ModelFileError(f"{where}: the key {name!r} is missing")
    read = {name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return cls(**read)
    except RealDamageError as error:
        raise ModelFileError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or (origin is typing.Literal and value in arguments):
        return value
    if origin is typing.Literal:
        raise ModelFileError(f"{where}: {value!r} is unknown; {_near(value, arguments)}")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(one for one in arguments if one is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return record_from_dict(typing.cast("type[Any]", hint), value, where)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _value(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        hints = arguments[:1] * len(value) if arguments[1:] == (Ellipsis,) else arguments
        if len(hints) == len(value):
            pairs = zip(hints, value, strict=True)
            return tuple(
                _value(one, v, f"{where}[{index}]") for index, (one, v) in enumerate(pairs)
            )
    is_bool = isinstance(value, bool)
    if hint is float and isinstance(value, int | float) and not is_bool:
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not is_bool):
        return value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise ModelFileError(f"{where}: expected {expected}, found {value!r}")


def _near(given: Any, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(given), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
