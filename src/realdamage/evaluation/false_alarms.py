"""Compares what models call synthetic, source by source, at one rate of false alarms: what does a part of the training
set cost the honest photos of other sources?

    python -m realdamage.evaluation.false_alarms A=out/a/test/predictions.csv B=out/b/test/predictions.csv \
        --trained-on shop1,shop2 --fpr 0.05 --csv data/results/false_alarms.csv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from realdamage.evaluation.predictions import read_predictions
from realdamage.inference.errors import RealDamageError, UsageError
from realdamage.inference.onnx_file import write_atomically

FEW = 20
"""Sources with fewer photos of a label are counted together: a share of them would say nothing."""
OTHERS = "(other sources)"


def threshold_at(scores: Sequence[float], fpr: float) -> float:
    """The lowest threshold at which at most a share `fpr`, in 0..1, of these real photos' scores is called synthetic
    (score ≥ threshold). Raises UsageError: there is no score."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    if not len(ordered):
        raise UsageError("--trained-on: no real photo of these sources is among the predictions; name others")
    allowed = int(np.floor(fpr * len(ordered) + 1e-9))
    return float(np.nextafter(ordered[allowed], np.inf)) if allowed < len(ordered) else -np.inf


def called_synthetic(predictions: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """One row for each label and source: `n` photos, `called` synthetic, their share and its 95% interval (Clopper &
    Pearson 1934). `predictions` as `read_predictions` gives them; photos without a score are left out."""
    scored = predictions[predictions["score"].notna()]
    counts = scored.groupby(["label", "source"])["score"].transform("size")
    named = scored.assign(source=scored["source"].where(counts >= FEW, OTHERS), hit=scored["score"] >= threshold)
    rows = []
    for (label, source), photos in named.groupby(["label", "source"], sort=True):
        called, n = int(photos["hit"].sum()), len(photos)
        interval = binomtest(called, n).proportion_ci(method="exact")
        rows.append(
            {
                "label": label,
                "source": source,
                "n": n,
                "called": called,
                "share": called / n,
                "low": float(interval.low),
                "high": float(interval.high),
            }
        )
    return pd.DataFrame(rows)


def compare(files: Sequence[tuple[str, Path]], trained_on: Sequence[str], fpr: float) -> pd.DataFrame:
    """The rows of `called_synthetic` for each model and file. `files`: (model, predictions file); a model may have
    several, and its first one must hold real photos of the sources `trained_on`, which set its threshold.

    Raises UsageError: a source is not there. RealDamageError: a file cannot be read.
    """
    tables: list[pd.DataFrame] = []
    thresholds: dict[str, float] = {}
    for model, path in files:
        predictions = read_predictions(path)
        if model not in thresholds:
            known = predictions[(predictions["label"] == "real") & predictions["source"].isin(trained_on)]
            thresholds[model] = threshold_at(known["score"].dropna().tolist(), fpr)
        found = called_synthetic(predictions, thresholds[model])
        found.insert(0, "file", path.parent.name)
        found.insert(0, "model", model)
        tables.append(found.assign(threshold=thresholds[model], fpr=fpr))
    return pd.concat(tables, ignore_index=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="false_alarms", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "files", nargs="+", metavar="MODEL=FILE", help="predictions of a model; a model may be repeated"
    )
    parser.add_argument("--trained-on", required=True, help="sources, with commas, whose real photos set the threshold")
    parser.add_argument("--fpr", type=float, default=0.05, help="false alarms on them, in 0..1 (%(default)s)")
    parser.add_argument("--csv", type=Path, help="write the rows there too")
    options = parser.parse_args(argv)
    try:
        pairs = [tuple(text.split("=", 1)) for text in options.files]
        if any(len(pair) != 2 for pair in pairs):
            raise UsageError("write each file as MODEL=FILE")
        if not 0 < options.fpr < 1:
            raise UsageError(f"--fpr {options.fpr}: must lie between 0 and 1")
        table = compare([(model, Path(path)) for model, path in pairs], options.trained_on.split(","), options.fpr)
        if options.csv:
            text = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
            write_atomically(options.csv, text.encode())
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table.drop(columns=["threshold", "fpr"]).to_string(index=False, float_format="%.3f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
