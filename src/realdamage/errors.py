"""The one exception family of the package: every error that a user can cause, worded for the reader.

A message says what was wrong, where (file, row, key), what was found and what to do. The commands print it without a
stack trace and exit with the class's `exit_code`.
"""

from __future__ import annotations

from collections.abc import Sequence

from realdamage.phrases.sentences import Phrase


class RealDamageError(Exception):
    """Base of all errors that are meant for the user; `exit_code` is what a command returns.

    code: what went wrong, for programs and tests; without one, the class says it ("config", "photo").
    """

    exit_code = 3

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code or type(self).__name__.removesuffix("Error").lower()


class UsageError(RealDamageError):
    """The call itself is off: an argument, an option or a combination of them."""

    exit_code = 2


class PhotoError(RealDamageError):
    """A photo cannot be read: not an image, truncated, too large, too small.

    phrases: what the message says after the photo's name, as in `Reason`; empty where only a command line can see it.
    """

    def __init__(self, message: str, phrases: Sequence[Phrase] = (), *, code: str = "") -> None:
        super().__init__(message, code=code)
        self.phrases = tuple(phrases)

    def to_dict(self) -> dict[str, str]:
        """What stands in JSON in the place of the photo's verdict: a code for programs and the message."""
        return {"code": "unreadable_photo", "message": str(self)}


class ModelFileError(RealDamageError):
    """An ONNX file or a checkpoint is not one that this version can use."""


class ManifestError(RealDamageError):
    """A manifest (metadata.csv and the files it names) breaks its contract."""


class MissingModelError(ModelFileError, UsageError):
    """The call names a model file that is not there."""


class MissingManifestError(ManifestError, UsageError):
    """The call names a set of photos, or a split of one, that is not there."""


class ConfigError(UsageError):
    """A configuration names something that does not exist or does not fit together."""


class SynthesisError(RealDamageError):
    """A photo could not be made: an engine lacks its weights, a source photo, or room on the disk."""


class MissingExtraError(RealDamageError):
    """A command needs packages that this installation was made without."""

    def __init__(self, command: str, extra: str, missing: str | None = None) -> None:
        found = f" ({missing} is not installed)" if missing else ""
        super().__init__(
            f'{command} needs the extra "{extra}"{found}. Install it: pip install "realdamage[{extra}]"',
            code="missing_extra",
        )
