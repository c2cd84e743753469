"""What every notebook begins with: where the repository is, and a sentence on what to run when a file is not there."""

from __future__ import annotations

from pathlib import Path

from realdamage.errors import RealDamageError


class NotThereError(RealDamageError):
    """A notebook shows the message alone: a reader wants to know what to run, not where it was noticed."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def repository(start: str | Path | None = None) -> Path:
    """The folder that paths of a notebook are relative to: the nearest one at or above `start` (None: where the
    notebook runs) that has a pyproject.toml, else `start` itself."""
    here = Path(start or Path.cwd()).resolve()
    return next(
        (folder for folder in (here, *here.parents) if (folder / "pyproject.toml").is_file()), here
    )


def existing(path: str | Path, name: str, made_by: str = "make quickstart") -> Path:
    """The file or folder at `path`, taken from the repository when relative. name: the parameter it was given as.
    Raises NotThereError with what to run: `made_by`, "" when nothing makes it."""
    found = repository() / path
    if not found.exists():
        make = (
            f"Run `{made_by}` in the repository's folder, or name your own"
            if made_by
            else "Name another"
        )
        raise NotThereError(
            f"{name} = {str(path)!r}: nothing is there. {make} in the cell of parameters, then run all cells again."
        )
    return found
