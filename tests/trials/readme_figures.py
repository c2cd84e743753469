"""Writes figures of evaluations into a CSV in data/results, and into the README's tables.

    python tests/trials/readme_figures.py SET=out/x … --csv data/results/x.csv --readme README.md
        --folds data/results/left_out.csv

The README's marks say which table goes where: `outcomes` is what happened to 1,000 photos of the
first set, `figures` are AUROC and rates of all sets, `shops` is what a shop that the model has not
seen can expect, by the table of folds. Nothing is typed in by hand: every row has the
checkpoint, commit and date of its evaluation.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.figures import labelled_and_scored
from realdamage.evaluation.predictions import clean, read_evaluation
from realdamage.files import write_atomically
from realdamage.rendering.markdown import Markdown, read_folds, table
from realdamage.rendering.outcomes import COLUMNS as OUTCOME_COLUMNS
from realdamage.rendering.outcomes import generator_counts, outcome_cells, outcomes
from realdamage.rendering.words import count

MARKS = {
    name: (f"<!-- {name}:start -->", f"<!-- {name}:end -->")
    for name in ("outcomes", "figures", "shops")
}
FIGURES = ("auroc", "tpr_at_fpr_1", "tpr_at_fpr_5")
FEWEST = 20
"""Fewest photos of a slice whose rate is shown without an interval."""
WIDTH = 120
"""Characters of a line of text in the README."""
COLUMNS = (
    *("set", "slice", "name", "trained_on", "n", *FIGURES, "auroc_low", "auroc_high"),
    *(f"{key}_{end}" for key in FIGURES[1:] for end in ("low", "high")),
    *("called_synthetic", "called_real"),
    *("n_damaged", "false_alarms", "false_alarms_low", "false_alarms_high"),
    *("n_real", "false_alarms_all_real", "false_alarms_all_real_low", "false_alarms_all_real_high"),
    *("value", "model_version", "graph_sha256", "data_root", "split", "command"),
    *("git_commit", "date"),
)


def result_rows(name: str, metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of one evaluation, called `name`: all photos, then kinds, generators, localisation,
    perturbations and the files' own facts.

    False alarms of the row "all" are counted on really damaged photos where there are enough, those
    of the other rows on all real photos. `called_synthetic` and `called_real` are shares of the
    row's own photos, for a perturbation of its synthetic ones.
    """
    run = metrics["run"]
    about = ("model_version", "data_root", "split", "command", "git_commit", "date")
    shared = {key: run[key] for key in about}
    shared |= {"set": name, "graph_sha256": run["graph_sha256"][:12]}
    intervals = {key: metrics["intervals"].get(key) or (None, None) for key in FIGURES}
    yield {
        **shared,
        **{"slice": "all", "name": "all", "n": metrics["n"]},
        **{key: metrics[key] for key in FIGURES},
        **{f"{key}_{end}": ends[at] for key, ends in intervals.items() for at, end in _ENDS},
    }
    for kind in ("kind", "generator"):
        slices = {found[kind]: found for found in (metrics.get("slices") or {}).get(kind, ())}
        for key, row in metrics[f"per_{kind}"].items():
            found = slices.get(key, {})
            known = [one for one in FIGURES if row.get(one) is not None and found.get(one)]
            ends = {f"{one}_{end}": found.get(f"{one}_{end}") for one in known for _, end in _ENDS}
            yield {**shared, "slice": kind, "name": key, **ends, **row}
    localised = metrics["localisation"] or {}
    for key in ("pixel_ap", "prevalence", "best_f1", "baseline_f1"):
        if localised.get(key) is not None:
            yield {**shared, "slice": "localisation", "name": key, "value": localised[key]}
    for row in metrics.get("robustness", []):
        yield {**shared, "slice": "perturbation", "name": row["title"], **row}
    files = metrics.get("container_auroc")
    if files:
        ends = {"auroc": files["auroc"], "auroc_low": files["low"], "auroc_high": files["high"]}
        yield {**shared, "slice": "files only", "name": "size, bytes, tables", **ends}


def outcomes_table(name: str, predictions: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    """What happened to 1,000 photos of the set `name`: the README's first table, with sentences."""
    photos = labelled_and_scored(clean(predictions))
    found = outcomes(photos, generator_counts(photos, trained_on(metrics)))
    about = (
        f"Per 1,000 photos of a row, with the photos counted, in “{name}”: "
        f"{_origin(metrics['run'])}."
    )
    texts = [table(OUTCOME_COLUMNS, outcome_cells(found.rows)) or found.reason]
    texts += ["\n".join(_wrapped(f"- {each}", "  ") for each in found.sentences), _wrapped(about)]
    return "\n\n".join(filter(None, texts))


def shops_table(path: Path) -> str:
    """What thresholds do to honest photos of a source never trained on, and to new fakes: those of
    other sources, and its own."""
    found = read_folds(path)
    own = found["own"]
    n = sum(row["n_real"] for row in own)
    rows = []
    for name, mark in (("from other sources", ""), ("from its own photos", "own_")):
        called = [sum(row[f"{mark}honest_{one}"] for row in own) for one in ("synthetic", "review")]
        fakes = sum(row[f"{mark}fakes_found"] for row in own) / len(own)
        rows.append((name, *(f"{each / n:.1%}" for each in called), f"{fakes:.0%}"))
    titles = ("thresholds", "called synthetic", "sent to review", "new fakes called synthetic")
    models = count(found["models"], "model")
    about = (
        f"{n:,.0f} honest photos of {len(own)} sources that {models} of this recipe were trained "
        "without. New fakes are images by deployed generators that they were trained without, too "
        "(mean over the sources). From its own photos: chosen on half of them, the other half "
        f"judged. Each source: [{path.name}]({path})."
    )
    return f"{table(titles, rows)}\n\n{_wrapped(about)}"


def trained_on(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.json says about the training, as `ModelMetadata.training` would."""
    rows = metrics.get("per_generator") or {}
    known = {name: row.get("trained_on") for name, row in rows.items()}
    if all(trained is None for trained in known.values()):
        return {}
    return {"generators": [name for name, trained in known.items() if trained]}


def _origin(run: Mapping[str, Any]) -> str:
    return f"`{run['command']}` at {run['git_commit'][:8]}, {run['date'][:10]}"


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows under `COLUMNS`, figures with four digits."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        rounded = {
            key: f"{each:.4f}" if isinstance(each, float) else each for key, each in row.items()
        }
        writer.writerow(rounded)
    return buffer.getvalue().encode()


def to_markdown(rows: Sequence[Mapping[str, Any]], source: str) -> str:
    """The README's table: all photos and each generator of every set, localisation and the files
    alone. Generators with too few photos for any figure are in the CSV only."""
    titles = ("set", "photos", "n", "AUROC (95%)", "TPR at 1% FPR (95%)", "TPR at 5% FPR (95%)")
    names = {"all": "all", "files only": Markdown("*files alone: size, bytes, tables*")}
    cells: list[tuple[object, ...]] = []
    localised: list[str] = []
    sets: dict[str, dict[str, float]] = {}
    for row in rows:
        measured = row["slice"] == "generator" and row.get("auroc") is not None
        if measured or row["slice"] in names:
            unseen = " (never trained on)" if row.get("trained_on") is False else ""
            name = names.get(row["slice"]) or f"{row['name']}{unseen}"
            figures = (_cell(row, key) for key in FIGURES)
            cells.append((row["set"], name, row.get("n") or "", *figures))
        if row["slice"] == "localisation":
            sets.setdefault(str(row["set"]), {})[str(row["name"])] = float(row["value"])
    for name, found in sets.items():
        text = (
            f"Localisation, {name}: patch AP {found['pixel_ap']:.3f} (a map that is the same "
            f"everywhere: {found['prevalence']:.3f}), best F1 {found['best_f1']:.3f} (predict "
            f"everything: {found['baseline_f1']:.3f})."
        )
        localised.append(_wrapped(text))
    origins = dict.fromkeys(f"{row['set']}: {_origin(row)}" for row in rows)
    about = (
        "In the rows “all” false alarms are counted on really damaged photos, in the others on all "
        "real photos of the set. A – means that they are too few for the rate, or that the row has "
        f"fewer than {FEWEST} photos and no interval. `paint` is the control: painted damage "
        "without any network."
    )
    written = f"From [{source}]({source}). {'; '.join(origins)}."
    return "\n\n".join([table(titles, cells), *localised, _wrapped(about), _wrapped(written)])


def _wrapped(text: str, indent: str = "") -> str:
    options: Any = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, **options)


_ENDS = tuple(enumerate(("low", "high")))


def _cell(row: Mapping[str, Any], key: str) -> str:
    value, low, high = (row.get(key + end) for end in ("", "_low", "_high"))
    if value is not None and low is not None and high is not None:
        return f"{value:.3f} ({low:.3f}–{high:.3f})"
    enough = key == "auroc" or (row.get("n") or 0) >= FEWEST
    return f"{value:.3f}" if value is not None and enough else "–"


def fill(text: str, sections: Mapping[str, str]) -> str:
    """`text` with each section between its two `MARKS`, where it has them.

    Raises RealDamageError: it has none.
    """
    there = [name for name in sections if all(mark in text for mark in MARKS[name])]
    if not there:
        wanted = " … ".join(MARKS["outcomes"])
        raise RealDamageError(f"the file has no place for a table; put these marks in: {wanted}")
    for name in there:
        start, end = MARKS[name]
        text = f"{text.split(start)[0]}{start}\n{sections[name]}\n{end}{text.split(end)[1]}"
    return text


def read_set(given: str) -> tuple[str, pd.DataFrame, dict[str, Any]]:
    """Name, predictions and metrics from NAME=FOLDER. Raises UsageError, RealDamageError."""
    name, _, path = given.partition("=")
    if not name or not path:
        raise UsageError(f"{given}: write NAME=FOLDER, such as test=out/x")
    return name, *read_evaluation(Path(path))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="+", metavar="SET=FOLDER", help="of realdamage-evaluate")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--readme", type=Path, help="file with marks to fill in")
    parser.add_argument("--folds", type=Path, help="folds.csv of realdamage-folds")
    options = parser.parse_args(argv)
    try:
        sets = [read_set(given) for given in options.sets]
        rows = [row for name, _, metrics in sets for row in result_rows(name, metrics)]
        if options.readme:
            tables = {
                "outcomes": outcomes_table(*sets[0]),
                "figures": to_markdown(rows, str(options.csv)),
            }
            if options.folds:
                tables["shops"] = shops_table(options.folds)
            filled = fill(options.readme.read_text(), tables)
            write_atomically(options.readme, filled.encode())
        write_atomically(options.csv, to_csv(rows))
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(rows)} rows in {options.csv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
