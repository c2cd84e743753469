"""The exceptions that a user can cause. The commands print the message and exit with the class's
`exit_code`.

A message says what is wrong, where (file, row, key), what was found and how to fix it.
"""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realdamage.phrases import Phrase


class RealDamageError(Exception):
    """Base class. code: the kind of error, for programs and tests; by default the class's name
    ("config", "photo")."""

    exit_code = 3

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code or type(self).__name__.removesuffix("Error").lower()

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle, without `__init__`, whose arguments a subclass may choose."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, by Ctrl-C or SIGTERM. exit_code: 128 and the signal's number."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(RealDamageError):
    """An argument, an option or a combination of them is wrong."""

    exit_code = 2


class PhotoError(RealDamageError):
    """A photo cannot be read: not an image, truncated, too large, too small.

    phrases: the message without the photo's name, see `Reason`; empty for errors that only the
        command line sees.
    """

    def __init__(self, message: str, phrases: Sequence[Phrase] = (), *, code: str = "") -> None:
        super().__init__(message, code=code)
        self.phrases = tuple(phrases)

    def to_dict(self) -> dict[str, str]:
        """The JSON object that replaces the photo's verdict."""
        return {"code": "unreadable_photo", "message": str(self)}


class ModelFileError(RealDamageError):
    """This version cannot use an ONNX file or a checkpoint."""


class ManifestError(RealDamageError):
    """A manifest (metadata.csv and the files it names) breaks its contract."""


class MissingModelError(ModelFileError, UsageError):
    """The model file does not exist."""


class MissingManifestError(ManifestError, UsageError):
    """The data set, or a split of it, does not exist."""


class ConfigError(UsageError):
    """A configuration value is unknown, out of range, or does not fit the others."""


class SynthesisError(RealDamageError):
    """A photo cannot be made: weights, a source photo or disk space are missing."""


class MissingExtraError(RealDamageError):
    """A command needs packages that are not installed."""

    def __init__(self, command: str, extra: str, missing: str | None = None) -> None:
        found = f" ({missing} is not installed)" if missing else ""
        super().__init__(
            f'{command} needs the extra "{extra}"{found}. '
            f'Install it: pip install "realdamage[{extra}]"',
            code="missing_extra",
        )


def near_match(word: str, choices: Iterable[str], cutoff: float = 0.7) -> str | None:
    """The choice that `word` probably misspells; capitals and spaces do not count."""
    by_plain = {choice.strip().lower(): choice for choice in choices}
    match = difflib.get_close_matches(word.strip().lower(), by_plain, n=1, cutoff=cutoff)
    return by_plain[match[0]] if match else None


def did_you_mean(found: str, choices: Iterable[str]) -> str:
    """The near match of a misspelt word as the end of a message; "" when there is none."""
    near = near_match(found, choices)
    return f" Did you mean {near!r}?" if near else ""
