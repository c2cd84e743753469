"""What the quick audit adds to the start of a training run: 6,000 photos ought to cost seconds.

`make bench` times it; in the tests a tenth of the photos runs through, so that the benchmark itself
keeps working.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.data.audit import audit
from realdamage.data.manifest import DAMAGES, Manifest, read_manifest, write_manifest


@pytest.fixture
def manifest(benchmark: BenchmarkFixture, tmp_path: Path) -> Manifest:
    """Pairs from 12 sources, JPEGs of 20 qualities and 9 sizes, half of them damaged; padded, so
    that each is as large as a photo."""
    groups = 300 if benchmark.disabled else 3000
    rng = np.random.default_rng(0)
    contents: dict[tuple[int, int], bytes] = {}
    rows: list[dict[str, str]] = []
    for group in range(groups):
        key = int(rng.integers(75, 95)), int(rng.integers(9))
        if key not in contents:
            buffer = io.BytesIO()
            Image.new("RGB", (640 + 16 * key[1], 480)).save(buffer, "JPEG", quality=key[0])
            contents[key] = buffer.getvalue() + bytes(60_000)
        source, damage = (
            f"shop{rng.integers(12)}",
            str(rng.choice(DAMAGES)) if rng.random() < 0.5 else "",
        )
        for label in ("real", "synthetic"):
            name = f"{group:05}_{label}.jpg"
            (tmp_path / name).write_bytes(
                contents[key] + bytes(int(rng.integers(20_000))) + name.encode()
            )
            row = {
                "file_name": name,
                "label": label,
                "source": source,
                "damage": damage,
                "group": f"g{group}",
            }
            rows.append({**row, "condition": "damaged" if damage else "intact", "split": "train"})
    write_manifest(tmp_path, pd.DataFrame(rows))
    return read_manifest(tmp_path)


def test_quick_audit(benchmark: BenchmarkFixture, manifest: Manifest) -> None:
    report = benchmark.pedantic(audit, args=(manifest,), kwargs={"quick": True}, rounds=1)
    assert report.passed
    assert all(test.measured for test in report.tests)
    if not benchmark.disabled:
        seconds = benchmark.stats.stats.mean
        print(f"{len(manifest)} photos in {seconds:.1f} s")
        assert seconds < 30  # 10 on two idle cores; a busy machine may take longer
