"""An audit as one self-contained HTML page: what one would show a colleague before training on a set."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from realdamage.core.decoding import decode
from realdamage.core.onnx_file import write_atomically
from realdamage.data.audit import AuditReport, Problem, ShortcutTest
from realdamage.data.manifest import Manifest
from realdamage.data.shortcuts import LIMIT
from realdamage.errors import PhotoError
from realdamage.rendering.audit_text import COUNTED, crosstab, outcome, verdict_line

_TEMPLATE = "audit_page.html.j2"
_SIDE = 128  # pixels of a thumbnail
_PHOTOS = 8  # of a failed test
_CASES = 6  # shown of a problem
_LISTED = 50  # told of a problem
_VALUES = 15  # rows of a table of counts
_SHOWN = ("near_duplicate", "crossing", "label_conflict", "duplicate")


def write_page(path: str | Path, report: AuditReport, manifest: Manifest) -> None:
    """Writes the page; thumbnails of the worst offenders are read from the photos of `manifest`."""
    write_atomically(path, page(report, manifest).encode())


def page(report: AuditReport, manifest: Manifest) -> str:
    """The page as HTML: it loads nothing, neither from a network nor from other files."""
    # Every name and message comes from a user's files: escaped, all of them.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        files("realdamage.rendering").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    )
    pictures = _Pictures(manifest)
    return template.render(
        report=report,
        limit=LIMIT,
        verdict=verdict_line(report),
        tests=[_test(test, pictures) for test in report.tests],
        problems=[_problem(problem, pictures) for problem in report.problems],
        tables=list(_tables(report)),
    )


class _Pictures:
    """Thumbnails as data URLs, each file read once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.masks = dict(
            zip(manifest.table["file_name"], manifest.table["mask_file_name"], strict=True)
        )
        self.labels = dict(zip(manifest.table["file_name"], manifest.table["label"], strict=True))
        self.made: dict[str, str] = {}

    def of(self, name: str, *, mask: bool = False) -> list[dict[str, str]]:
        """The photo, and its mask where asked for and there; nothing for what cannot be read."""
        named = [(name, self.labels.get(name, ""))]
        if mask and self.masks.get(name):
            named.append((self.masks[name], "mask"))
        return [
            {"name": n, "label": label, "url": url} for n, label in named if (url := self._url(n))
        ]

    def _url(self, name: str) -> str:
        if name not in self.made:
            try:
                image = Image.fromarray(decode(self.manifest.path(name)))
            except PhotoError:
                self.made[name] = ""
            else:
                image.thumbnail((_SIDE, _SIDE))
                buffer = io.BytesIO()
                image.save(buffer, "JPEG", quality=80)
                self.made[name] = (
                    f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
                )
        return self.made[name]


def _test(test: ShortcutTest, pictures: _Pictures) -> dict[str, Any]:
    states = (
        ("failed", test.failed),
        ("allowed", test.exception or test.examples),
        ("passed", test.blocking),
    )
    state = (
        next((name for name, holds in states if holds), "told") if test.measured else "unmeasured"
    )
    photos = (
        [picture for name in test.examples[:_PHOTOS] for picture in pictures.of(name)]
        if test.failed
        else []
    )
    return {"test": test, "state": state, "outcome": outcome(test), "photos": photos}


def _problem(problem: Problem, pictures: _Pictures) -> dict[str, Any]:
    masks = problem.kind.startswith("mask_")
    cases = problem.items[:_CASES] if masks or problem.kind in _SHOWN else ()
    shown = [
        {
            "item": item,
            "photos": [p for name in item.files[:2] for p in pictures.of(name, mask=masks)],
        }
        for item in cases
    ]
    return {"problem": problem, "cases": shown, "listed": problem.items[len(cases) : _LISTED]}


def _tables(report: AuditReport) -> Iterator[dict[str, Any]]:
    for column in COUNTED:
        counts = crosstab(report, column)
        if counts is not None:
            rows = [(str(value), int(real), int(fake)) for value, real, fake in counts.itertuples()]
            yield {
                "column": column,
                "rows": rows[:_VALUES],
                "more": len(rows) - _VALUES,
                "most": max(max(real, fake) for _, real, fake in rows),
            }
