"""Does a set of 100,000 photos open in seconds? Only names are read, so the files are empty.

`make bench` times 100,000 rows; a run of the tests reads 2,000, to see that the code still runs.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.data.manifest import write_manifest
from realdamage.data.readers import Reader, read_dataset

ROWS = 100_000
FEW_ROWS = 2_000
PER_FOLDER = 1_000


def rows(count: int) -> pd.DataFrame:
    index = pd.Series(range(count))
    label = index.mod(2).map({0: "real", 1: "synthetic"})
    name = label + "/" + (index // (2 * PER_FOLDER)).astype(str) + "/" + index.astype(str) + ".jpg"
    real = index.mod(2) == 0
    return pd.DataFrame(
        {
            "file_name": name,
            "label": label,
            "kind": real.map({True: "original", False: "ai_region"}),
            "generator": real.map({True: "", False: "some-model"}),
            "source": "shop" + index.mod(5).astype(str),
            "group": "product-" + (index // 2).astype(str),
            "pair": name.shift(1).where(~real, "").fillna(""),
            "split": index.floordiv(2).mod(10).map(lambda tenth: "test" if tenth == 9 else "train"),
        }
    )


@pytest.fixture(scope="module")
def photos(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, pd.DataFrame]:
    """Empty files in real/ and synthetic/, and the table that describes them."""
    root = tmp_path_factory.mktemp("photos")
    table = rows(ROWS if request.config.getoption("benchmark_enable") else FEW_ROWS)
    for folder in sorted({name.rpartition("/")[0] for name in table["file_name"]}):
        (root / folder).mkdir(parents=True)
    for name in table["file_name"]:
        (root / name).touch()
    return root, table


@pytest.mark.parametrize("form", ["csv", "parquet", "mapped", "folders"])
def test_reading(benchmark: BenchmarkFixture, photos: tuple[Path, pd.DataFrame], form: str) -> None:
    root, table = photos
    source, reader = root / f"all.{form}", Reader()
    if form == "csv":
        table.to_csv(source, index=False)
    elif form == "parquet":
        table.to_parquet(source)
    elif form == "mapped":
        source = root / "mapped.csv"
        table.rename(columns={"file_name": "path"}).replace(
            {"label": {"real": "0", "synthetic": "1"}}
        ).to_csv(source)
        reader = Reader(
            columns={"file_name": "path"}, values={"label": {"0": "real", "1": "synthetic"}}
        )
    else:
        source = root
    manifest = benchmark.pedantic(
        lambda: read_dataset(source, reader), rounds=3 if benchmark.enabled else 1
    )
    assert len(manifest) == len(table)
    assert manifest.table["label"].value_counts().to_dict() == dict.fromkeys(
        ("real", "synthetic"), len(table) // 2
    )


def test_writing(
    benchmark: BenchmarkFixture, photos: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    _, table = photos
    path = benchmark.pedantic(
        lambda: write_manifest(tmp_path, table), rounds=3 if benchmark.enabled else 1
    )
    assert path.read_bytes().count(b"\n") == len(table) + 1
