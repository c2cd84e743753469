"""What models call synthetic, by source, each at the threshold set on the sources it knows.

python tests/trials/false_alarms.py --trained-on shop1,shop2 --fpr 0.05 --csv rates.csv \
    A=out/a/test/predictions.csv B=out/b/test/predictions.csv

A model may have several files; the real photos of the first one set its threshold. Made
data/results/false_alarms.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from realdamage.data.bootstrap import share_interval
from realdamage.evaluation.predictions import read_predictions
from realdamage.evaluation.slices import FEW, OTHERS, threshold_at


def called_synthetic(predictions: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """n, called, share and its exact 95% interval, per label and source of the scored photos."""
    scored = predictions[predictions["score"].notna()]
    counts = scored.groupby(["label", "source"])["score"].transform("size")
    source = scored["source"].where(counts >= FEW, OTHERS)
    called = scored.assign(source=source, called=scored["score"] >= threshold)
    table = called.groupby(["label", "source"])["called"].agg(n="size", called="sum").reset_index()
    table["share"] = table["called"] / table["n"]
    ends = [share_interval(own.called, own.n) for own in table.itertuples()]
    table[["low", "high"]] = np.array(ends)
    return table.assign(threshold=threshold)


def compare(files: list[str], trained_on: list[str], fpr: float) -> pd.DataFrame:
    """The rows of all files, written as MODEL=FILE."""
    tables: list[pd.DataFrame] = []
    thresholds: dict[str, float] = {}
    for model, path in (file.split("=", 1) for file in files):
        predictions = read_predictions(path)
        if model not in thresholds:
            real = predictions["label"] == "real"
            known = predictions[real & predictions["source"].isin(trained_on)]
            thresholds[model] = threshold_at(known["score"].dropna().to_numpy(), fpr)
        table = called_synthetic(predictions, thresholds[model])
        table.insert(0, "file", Path(path).parent.name)
        table.insert(0, "model", model)
        tables.append(table.assign(fpr=fpr))
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", metavar="MODEL=FILE")
    parser.add_argument("--trained-on", required=True, help="sources, separated by commas")
    parser.add_argument("--fpr", type=float, default=0.05, help="false alarms on them, in 0..1")
    parser.add_argument("--csv", type=Path, help="write the rows there too")
    options = parser.parse_args()
    found = compare(options.files, options.trained_on.split(","), options.fpr)
    if options.csv:
        found.to_csv(options.csv, index=False, float_format="%.4f", lineterminator="\n")
    print(found.drop(columns=["threshold", "fpr"]).to_string(index=False, float_format="%.3f"))
