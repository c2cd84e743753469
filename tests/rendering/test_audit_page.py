"""The page of an audit stands alone, shows the worst photos, and trusts no name in a user's files."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realdamage.data.audit import AuditReport, audit
from realdamage.data.manifest import Manifest, read_manifest, write_manifest
from realdamage.rendering.audit_page import page, write_page


class Elements(HTMLParser):
    """All tags with their attributes, and the tags that were never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def manifest(write_set: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Synthetic photos of a source of their own, one group in two splits, and a mask that marks nothing; tests must not
    change it."""
    root = write_set(tmp_path_factory.mktemp("page") / "set", 8)
    table = read_manifest(root).table
    table["source"] = table["source"].where(table["label"] == "real", "<b>generated</b>")
    table.loc[0, "split"] = "test"
    write_manifest(root, table)
    with Image.open(root / "masks/02_ai_region.png") as mask:
        Image.fromarray(np.zeros_like(np.asarray(mask))).save(root / "masks/02_ai_region.png")
    return read_manifest(root)


@pytest.fixture(scope="module")
def report(manifest: Manifest) -> AuditReport:
    return audit(manifest, workers=1)


def test_it_is_one_file_that_loads_nothing(
    report: AuditReport, manifest: Manifest, tmp_path: Path
) -> None:
    write_page(tmp_path / "audit.html", report, manifest)
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    elements = Elements(text)
    assert elements.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in elements.found}
    assert all(
        str(image["src"]).startswith("data:image/jpeg;base64,") for image in elements.of("img")
    )
    assert not re.search(r"https?://|url\(", text)
    assert "prefers-color-scheme: dark" in text


def test_it_tells_verdict_tests_counts_and_problems(
    report: AuditReport, manifest: Manifest
) -> None:
    text = page(report, manifest)
    assert "audit failed: source; 1 crossing; 1 mask empty" in text
    assert len(Elements(text).of("svg")) == 1 + sum(test.measured for test in report.tests)
    for words in (
        "masks mark no pixel",
        "equal files lie in several splits",
        "ai_region",
        "at least 20",
    ):
        assert words in text


def test_thumbnails_are_small_few_and_of_the_worst(report: AuditReport, manifest: Manifest) -> None:
    images = [str(image["src"]) for image in Elements(page(report, manifest)).of("img")]
    assert (
        len(images) == 8 + 2 + 2
    )  # the failed test's surest, the two splits side by side, the photo with its mask
    for url in images:
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
            assert max(image.size) <= 128
    many = replace(report, problems=tuple(replace(p, items=p.items * 100) for p in report.problems))
    text = page(many, manifest)
    assert len(Elements(text).of("img")) == 8 + 6 * 2 + 6 * 2
    assert text.count("<li>") < 2 * 50


def test_names_are_escaped(report: AuditReport, manifest: Manifest) -> None:
    text = page(report, manifest)
    assert "<b>" not in text
    assert "&lt;b&gt;generated&lt;/b&gt;: 0 real, 12 synthetic" in text


def test_a_photo_that_is_gone_leaves_no_hole(
    report: AuditReport, manifest: Manifest, tmp_path: Path
) -> None:
    copy = Manifest(shutil.copytree(manifest.root, tmp_path / "set"), manifest.table)
    assert page(report, copy) == page(report, manifest)
    (copy.root / report.failed_tests[0].examples[0]).unlink()
    images = Elements(page(report, copy)).of("img")
    assert 0 < len(images) < len(Elements(page(report, manifest)).of("img"))
