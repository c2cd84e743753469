"""Reads our frozen dataclasses back from JSON, strictly: a model file must not be half understood."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from realdamage.errors import ModelFileError, RealDamageError

T = TypeVar("T")


def record_from_dict(cls: type[T], values: Any, where: str) -> T:
    """Build the dataclass `cls` from plain JSON values; `where` is the key that errors name, such as `pixel_spec`.

    Fields with a default may be absent. Raises ModelFileError on a missing or unknown key, a value of another type, or
    values that the dataclass itself refuses.
    """
    if not isinstance(values, Mapping):
        raise ModelFileError(f"{where}: expected an object, found {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(fields)):
        raise ModelFileError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(fields)}")
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in values]:
        raise ModelFileError(f"{where}: the key {missing[0]!r} is missing")
    read = {name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return cls(**read)
    except RealDamageError as error:
        raise ModelFileError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(
            next(option for option in arguments if option is not type(None)), value, where
        )
    if dataclasses.is_dataclass(hint):
        return record_from_dict(typing.cast("type[Any]", hint), value, where)
    if origin is dict and isinstance(value, Mapping):
        return {
            str(key): _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()
        }
    if origin is tuple and arguments[1:] == (Ellipsis,) and isinstance(value, list | tuple):
        return tuple(
            _value(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)
        )
    if origin is tuple and isinstance(value, list | tuple) and len(value) == len(arguments):
        return tuple(
            _value(arguments[index], item, f"{where}[{index}]") for index, item in enumerate(value)
        )
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if (
        isinstance(hint, type)
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    ):
        return value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise ModelFileError(f"{where}: expected {expected}, found {value!r}")
