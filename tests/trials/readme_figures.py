"""Writes figures where people read them: rows of a CSV in data/results, and the README's table, from metrics.json.

    python -m realdamage.evaluation.results SET=out/x/metrics.json … --csv data/results/x.csv --readme README.md

Nothing is typed in by hand: every row carries checkpoint, commit and date of the evaluation that printed it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from realdamage.core.onnx_file import write_atomically
from realdamage.errors import RealDamageError, UsageError

START, END = "<!-- figures:start -->", "<!-- figures:end -->"
_FIGURES = ("auroc", "tpr_at_fpr_1", "tpr_at_fpr_5")
_FEWEST = 20
"""Photos of a slice from which on a rate is told without an interval: of fewer, one photo more or less says another."""
_FALSE_ALARMS = (
    *("n_damaged", "false_alarms", "false_alarms_low", "false_alarms_high"),
    *("n_real", "false_alarms_all_real", "false_alarms_all_real_low", "false_alarms_all_real_high"),
)
COLUMNS = (
    *(
        "set",
        "slice",
        "name",
        "trained_on",
        "n",
        *_FIGURES,
        "auroc_low",
        "auroc_high",
        *(f"{key}_{end}" for key in _FIGURES[1:] for end in ("low", "high")),
        "called_synthetic",
        "called_real",
        *_FALSE_ALARMS,
        "value",
    ),
    *("model_version", "graph_sha256", "data_root", "split", "command", "git_commit", "date"),
)


def result_rows(name: str, metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of one evaluation, called `name`: all photos, then kinds, generators, localisation, perturbations and the
    files' own facts.

    `tpr_at_fpr_…` of the row "all" counts false alarms on really damaged photos where there are enough of them; those
    of the other rows on all real photos (on that kind, in a row of a real kind). Intervals (`_low`, `_high`) are those
    that metrics.json has: of slices for AUROC and the rate of 1%. `called_synthetic` and `called_real`
    are shares of the row's own photos, in the row of a perturbation of its synthetic ones; what happens to the real
    ones then stands in `false_alarms…`, see `robustness_table`. A metrics.json from before a figure was measured leaves
    its cells empty.
    """
    run = metrics["run"]
    shared = {
        key: run[key]
        for key in ("model_version", "data_root", "split", "command", "git_commit", "date")
    }
    shared |= {"set": name, "graph_sha256": run["graph_sha256"][:12]}
    overall: dict[str, Any] = {"slice": "all", "name": "all", "n": metrics["n"]}
    for key in _FIGURES:
        overall[key] = metrics[key]
        overall[f"{key}_low"], overall[f"{key}_high"] = metrics["intervals"].get(key) or (
            None,
            None,
        )
    yield {**shared, **overall}
    for kind, rows in (("kind", metrics["per_kind"]), ("generator", metrics["per_generator"])):
        for key, row in rows.items():
            figures = {column: row.get(column) for column in COLUMNS if column in row}
            yield {
                **shared,
                "slice": kind,
                "name": key,
                **_slice_intervals(metrics, kind, key, row),
                **figures,
            }
    for key, figure in _localisation(metrics).items():
        yield {**shared, "slice": "localisation", "name": key, "value": figure}
    for row in metrics.get("robustness", []):
        figures = {key: row.get(key) for key in COLUMNS if key in row}
        yield {**shared, "slice": "perturbation", "name": row["title"], **figures}
    files = metrics.get("container_auroc")
    if files:
        interval = {"auroc_low": files["low"], "auroc_high": files["high"]}
        yield {
            **shared,
            "slice": "files only",
            "name": "size, bytes, tables",
            "auroc": files["auroc"],
            **interval,
        }


def _slice_intervals(
    metrics: Mapping[str, Any], kind: str, name: str, row: Mapping[str, Any]
) -> dict[str, Any]:
    """The intervals of a row of `per_kind` or `per_generator`, which stand with the slices; {} where there are none."""
    for found in (metrics.get("slices") or {}).get(kind, ()):
        if found[kind] == name:
            told = [
                key for key in _FIGURES if row.get(key) is not None and found.get(key) is not None
            ]
            return {
                f"{key}_{end}": found.get(f"{key}_{end}") for key in told for end in ("low", "high")
            }
    return {}


def _localisation(metrics: Mapping[str, Any]) -> dict[str, float]:
    found = metrics["localisation"] or {}
    keys = ("pixel_ap", "prevalence", "best_f1", "baseline_f1")
    return {key: found[key] for key in keys if found.get(key) is not None}


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows under `COLUMNS`, figures with four digits."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: f"{value:.4f}" if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
    return buffer.getvalue().encode()


def to_markdown(rows: Sequence[Mapping[str, Any]], source: str) -> str:
    """A table for the README: all photos and each generator of every set, localisation and the files alone. Generators
    with too few photos for any figure stand in the CSV only."""
    lines = [
        "| set | photos | n | AUROC (95%) | TPR at 1% FPR (95%) | TPR at 5% FPR (95%) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        told = row["slice"] == "generator" and row.get("auroc") is not None
        if told or row["slice"] in ("all", "files only"):
            name = {"all": "all", "files only": "*files alone: size, bytes, tables*"}.get(
                row["slice"], row["name"]
            )
            if row.get("trained_on") is False:
                name += " (never trained on)"
            figures = " | ".join(_cell(row, key) for key in _FIGURES)
            lines.append(f"| {row['set']} | {name} | {row.get('n') or ''} | {figures} |")
    sets: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["slice"] == "localisation":
            sets.setdefault(str(row["set"]), {})[str(row["name"])] = float(row["value"])
    for name, found in sets.items():
        if "pixel_ap" in found:
            lines += [
                "",
                f"Localisation, {name}: patch AP {found['pixel_ap']:.3f} (a map that is the same everywhere: "
                f"{found['prevalence']:.3f}), best F1 {found['best_f1']:.3f} (predict everything: "
                f"{found['baseline_f1']:.3f}).",
            ]
    origins = dict.fromkeys(
        f"{row['set']}: `{row['command']}` at {row['git_commit'][:8]}, {row['date'][:10]}"
        for row in rows
    )
    lines += [
        "",
        "In the rows “all” false alarms are counted on really damaged photos, in the others on all real photos of the",
        "set; – where they are too few for the rate, or the row's own are fewer than 20 without an interval. `paint`",
        "is the control: painted damage without any network.",
        "",
    ]
    return "\n".join([*lines, f"From [{source}]({source}). " + "; ".join(origins) + "."])


def _cell(row: Mapping[str, Any], key: str) -> str:
    value, low, high = (row.get(key + end) for end in ("", "_low", "_high"))
    if value is not None and low is not None and high is not None:
        return f"{value:.3f} ({low:.3f}–{high:.3f})"
    bare = value is not None and (key == "auroc" or (row.get("n") or 0) >= _FEWEST)
    return f"{value:.3f}" if bare else "–"


def fill(text: str, section: str) -> str:
    """`text` with what stands between the two marks replaced. Raises RealDamageError when a mark is missing."""
    if START not in text or END not in text:
        raise RealDamageError(
            f"the file lacks the marks {START} and {END}, between which the figures go; put them in"
        )
    before, after = text.split(START)[0], text.split(END)[1]
    return f"{before}{START}\n{section}\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="results", description="Writes figures from metrics.json into CSV and README."
    )
    parser.add_argument(
        "metrics",
        nargs="+",
        metavar="SET=METRICS",
        help="name of the set = a metrics.json of evaluate",
    )
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--readme", type=Path, help="file with the two marks to fill in")
    options = parser.parse_args(argv)
    try:
        rows = [row for given in options.metrics for row in result_rows(*_read(given))]
        write_atomically(options.csv, to_csv(rows))
        if options.readme:
            section = to_markdown(rows, str(options.csv))
            write_atomically(options.readme, fill(options.readme.read_text(), section).encode())
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(rows)} rows in {options.csv}")
    return 0


def _read(given: str) -> tuple[str, dict[str, Any]]:
    name, _, path = given.partition("=")
    if not name or not path:
        raise UsageError(f"{given}: write NAME=PATH, such as test=out/x/metrics.json")
    try:
        metrics: dict[str, Any] = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise RealDamageError(
            f"{path}: not a readable metrics.json ({error}). Name one that realdamage-evaluate wrote."
        ) from error
    return name, metrics


if __name__ == "__main__":
    sys.exit(main())
