"""What a detector does on families (or sources) that it was never trained on: figures of folds, each trained without
some of them, and their mean and worst.

    python -m realdamage.evaluation.left_out out/folds --manifest DIR --csv data/results/left_out.csv

In a fold's folder model.onnx says what was left out, and test/predictions.csv how the test photos were scored; both
come from `realdamage-folds`, or from the commands that it runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from realdamage.commit import git_commit
from realdamage.core.model_file import read_model_file
from realdamage.data.manifest import Manifest
from realdamage.data.readers import Reader, read_dataset, reader_from_yaml
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.folder import find_predictions
from realdamage.evaluation.left_out_figures import Fold, left_out_table
from realdamage.evaluation.predictions import read_predictions
from realdamage.files import write_atomically
from realdamage.rendering.left_out_text import to_markdown

MODEL, TEST, LOCALISATION = "model.onnx", "test", "localisation.json"


def read_fold(folder: Path) -> Fold:
    """A finished fold from its folder. Raises RealDamageError: its model left out nothing or values of several columns,
    or another model scored the photos; ModelFileError, UsageError: a file is missing."""
    _, metadata, graph = read_model_file(folder / MODEL)
    excluded = metadata.training.get("excluded") or {}
    if len(excluded) != 1:
        found = f"values of {' and '.join(excluded)}" if excluded else "nothing"
        raise RealDamageError(
            f"{folder / MODEL}: its training left out {found}; the model of a fold leaves out values of one column. "
            "Train it with +data.exclude.COLUMN=[…]"
        )
    ((column, values),) = excluded.items()
    path = find_predictions(folder / TEST)
    predictions = read_predictions(path)
    others = set(predictions["graph_sha256"]) - {"", graph}
    if others:
        raise RealDamageError(
            f"{path}: scored by another network ({min(others)[:12]}) than {folder / MODEL} ({graph[:12]}). Remove "
            f"{folder / TEST} and score the fold again."
        )
    localisation = folder / TEST / LOCALISATION
    rows = json.loads(localisation.read_text()) if localisation.is_file() else []
    return Fold(
        folder.name,
        str(column),
        tuple(values),
        predictions,
        rows,
        metadata.model_version,
        graph[:12],
    )


def read_folds(root: str | Path) -> tuple[list[Fold], list[str]]:
    """The finished folds below `root`, and the names of those that lack a model or predictions. Raises UsageError: none
    is finished; RealDamageError: as `read_fold`, or the folds leave out values of different columns."""
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder. Name the one that holds a folder for each fold.")
    folders = sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    finished = [
        path
        for path in folders
        if (path / MODEL).is_file() and list((path / TEST).glob("predictions.*"))
    ]
    if not finished:
        raise UsageError(
            f"{root}: no fold is finished; a finished one has FOLD/{MODEL} and FOLD/{TEST}/predictions.csv (found "
            f"{', '.join(path.name for path in folders) or 'no folder'}). Run realdamage-folds to its end."
        )
    folds = [read_fold(path) for path in finished]
    columns = sorted({fold.column for fold in folds})
    if len(columns) > 1:
        raise RealDamageError(
            f"{root}: its folds leave out values of {' and '.join(columns)}; give each its own folder"
        )
    return folds, [path.name for path in folders if path not in finished]


def write_left_out(
    root: str | Path,
    manifest: Manifest,
    *,
    command: str,
    csv: Path | None = None,
    markdown: Path | None = None,
    seed: int = 0,
) -> str:
    """Measures the finished folds below `root` and writes folds.csv and folds.md there (or where `csv` and `markdown`
    say), each row with `command`, commit and date; returns the text of the latter. Raises as `read_folds` and
    `left_out_table`."""
    folds, unfinished = read_folds(root)
    table = left_out_table(folds, manifest, seed=seed)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    table = table.assign(git_commit=git_commit(), command=command, date=date)
    csv = csv or Path(root) / "folds.csv"
    text = to_markdown(table, folds[0].column, unfinished)
    write_atomically(
        csv, table.to_csv(index=False, float_format="%.4f", lineterminator="\n").encode()
    )
    write_atomically(markdown or Path(root) / "folds.md", text.encode())
    return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="left_out", description="Figures of finished folds, their mean and worst."
    )
    parser.add_argument(
        "folder", type=Path, help="that holds a folder for each fold, such as out/folds"
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="the photos that the folds were scored on"
    )
    parser.add_argument(
        "--columns",
        type=Path,
        metavar="FILE",
        help="how they lie there, as for realdamage manifest",
    )
    parser.add_argument("--csv", type=Path, help="(FOLDER/folds.csv)")
    parser.add_argument("--markdown", type=Path, help="(FOLDER/folds.md)")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals (%(default)s)")
    options = parser.parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    command = " ".join(["python -m realdamage.evaluation.left_out", *given])
    try:
        manifest = read_dataset(
            options.manifest, reader_from_yaml(options.columns) if options.columns else Reader()
        )
        told = {"csv": options.csv, "markdown": options.markdown, "seed": options.seed}
        print(write_left_out(options.folder, manifest, command=command, **told))
    except RealDamageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
