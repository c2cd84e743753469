"""`realdamage-folds data.root=FOLDER`: leaves families out, trains, and measures on them.

The mean and the worst over the folds are what to expect of a generator, or a shop, that nobody has
seen yet. Each fold is a run of realdamage-train and realdamage-export, calibrated without what it
leaves out; a fold whose model and scores exist is not run again.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from realdamage import configuration
from realdamage.commit import git_commit
from realdamage.core.model_file import read_model_file
from realdamage.core.progress import track
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.errors import ConfigError, RealDamageError, did_you_mean
from realdamage.evaluation.calibration import calibrate_model, is_calibrated
from realdamage.evaluation.guarantee import Targets, check_enough
from realdamage.evaluation.left_out import (
    MEAN,
    WORST,
    Fold,
    column_of,
    left_out_table,
    localisation_rows,
    photos_of_fold,
    unseen,
)
from realdamage.evaluation.perturbations import suite_from_config
from realdamage.evaluation.predictions import write_predictions
from realdamage.evaluation.robustness import ModelFile, Suite
from realdamage.files import write_atomically
from realdamage.rendering.markdown import to_markdown
from realdamage.schema import FoldsConfig
from realdamage.training.start import changed_settings

LeftOut = Mapping[str, Sequence[str]]
"""Values by column."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class FoldRun:
    """One fold to be run.

    left_out: what its training leaves out.
    folder: holds the training, the model and the scored photos.
    overrides: what realdamage-train is called with, except for resuming.
    """

    name: str
    left_out: LeftOut
    folder: Path
    training: Path
    overrides: tuple[str, ...]

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"


def run(config: FoldsConfig) -> None:
    """Finishes all folds and writes folds.csv and folds.md; exit code 1 when a fold failed."""
    reader: Any = OmegaConf.to_object(config.data.reader)
    manifest = read_dataset(config.data.root, reader)
    runs = [planned(config, name, own) for name, own in folds_of(config, manifest).items()]
    for each in runs:
        check(config, manifest, each)
        named = (f"{column} {', '.join(values)}" for column, values in each.left_out.items())
        print(f"{each.name} leaves out {'; '.join(named)}", flush=True)
    finished: list[Fold] = []
    failed: dict[str, str] = {}
    for each in runs:
        try:
            finished.append(finish(config, manifest, each))
        except RealDamageError as error:
            failed[each.name] = str(error)
    if finished:
        root = Path(config.paths.out) / config.name
        rates = None
        if config.alpha is not None and config.beta is not None:
            rates = Targets(fpr=config.alpha, miss=config.beta, kinds=tuple(config.kinds))
        table = left_out_table(finished, manifest, targets=rates, seed=config.seed).assign(
            git_commit=git_commit(),
            command=" ".join(["realdamage-folds", *HydraConfig.get().overrides.task]),
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        text = to_markdown(table, list(failed))
        csv = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        write_atomically(root / "folds.csv", csv.encode())
        write_atomically(root / "folds.md", text.encode())
        print(f"\n{text}\n\nrows and table: {root / 'folds.csv'}, {root / 'folds.md'}")
    for name, why in failed.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    if failed:
        sys.exit(1)


def folds_of(config: FoldsConfig, manifest: Manifest) -> dict[str, LeftOut]:
    """By name, what each fold leaves out: `config.folds`, or all values in `config.count`.

    A plain list is of values of `config.column`.
    """
    given: Any = configuration.plain(config)["folds"]
    if not given:
        dealt = deal_folds(manifest, config.column, config.count)
        return {name: {config.column: values} for name, values in dealt.items()}
    named = given if isinstance(given, Mapping) else {"": given}
    folds: dict[str, LeftOut] = {}
    for name, own in named.items():
        left_out = own if isinstance(own, Mapping) else {config.column: own}
        if not (name and left_out and all(isinstance(each, list) for each in left_out.values())):
            raise ConfigError(
                f"folds={given}: write a list under each name, as in folds={{NAME: [first, "
                "second]}, or lists by column, as in folds={NAME: {family: [a], source: [b]}}"
            )
        folds[str(name)] = {key: [str(each) for each in of] for key, of in left_out.items()}
    return folds


def deal_folds(manifest: Manifest, column: str, count: int) -> dict[str, list[str]]:
    """All values of synthetic photos, the most frequent first, each into the smallest fold.

    Raises ConfigError: no such column, or fewer than 2 values or folds (code too_few_folds).
    """
    values = column_of(manifest, column)[manifest.table["label"] == "synthetic"]
    photos = values[values != ""].value_counts()
    count = min(count, len(photos))
    if count < 2:
        raise ConfigError(
            f"count={count}: at least 2 are needed, because some values must stay to train on; "
            f"{manifest.root} has {len(photos)} {column} of synthetic photos",
            code="too_few_folds",
        )
    sizes = [0] * count
    dealt: list[list[str]] = [[] for _ in sizes]
    for value, size in sorted(photos.items(), key=lambda item: (-int(item[1]), str(item[0]))):
        smallest = sizes.index(min(sizes))
        sizes[smallest] += int(size)
        dealt[smallest].append(str(value))
    return {f"fold{index + 1}": own for index, own in enumerate(dealt)}


def planned(config: FoldsConfig, name: str, left_out: LeftOut) -> FoldRun:
    """What a fold's training is called with, also the reader and --config-dir that the user typed.

    Codes of ConfigError: fold_name.
    """
    if not _NAME.fullmatch(name) or name in (MEAN, WORST):
        raise ConfigError(
            f"folds.{name}: its name becomes a folder's; use letters, digits, _ . and -, but not "
            f"{MEAN} or {WORST}, which are rows of the table",
            code="fold_name",
        )
    hydra = HydraConfig.get()
    reader = [word for word in hydra.overrides.task if word.lstrip("+~").startswith("data.reader")]
    sources = [each for each in hydra.runtime.config_sources if each.provider == "command-line"]
    folders = [f"file://{Path(source.path).resolve()}" for source in sources]
    folder = Path(config.paths.out) / config.name / name
    overrides = (
        f"+experiment={config.train_experiment}",
        *config.overrides,
        f"data.root={quoted(config.data.root)}",
        *reader,
        *(f"hydra.searchpath=[{quoted(each)}]" for each in folders),
        f"paths.out={quoted(config.paths.out)}",
        f"name={quoted(f'{config.name}/{name}/{config.train_experiment}')}",
        *(
            f"+data.exclude.{column}=[{','.join(quoted(value) for value in values)}]"
            for column, values in left_out.items()
        ),
    )
    return FoldRun(name, left_out, folder, folder / config.train_experiment, overrides)


def check(config: FoldsConfig, manifest: Manifest, fold: FoldRun) -> None:
    """Raises ConfigError, before hours go into training, when a fold cannot be trained or measured.

    Codes: unknown_value, nothing_to_measure, other_settings.
    """
    for column, values in fold.left_out.items():
        known = sorted(set(column_of(manifest, column)) - {""})
        for value in values:
            if value not in known:
                raise ConfigError(
                    f"folds.{fold.name}: {manifest.root} has no {column} {value!r}."
                    f"{did_you_mean(value, known)} It has {', '.join(known)}",
                    code="unknown_value",
                )
    column, values = next(iter(fold.left_out.items()))
    photos = photos_of_fold(manifest, fold.left_out).table
    if not (photos[column].isin(values) & (photos["label"] == "synthetic")).any():
        raise ConfigError(
            f"folds.{fold.name}: no synthetic photo of the test split has {column} "
            f"{' or '.join(values)}, so nothing could be measured. Leave out values with test "
            "photos, or join folds",
            code="nothing_to_measure",
        )
    config_file = fold.training / "config.yaml"
    had: Any = OmegaConf.to_container(OmegaConf.load(config_file)) if config_file.is_file() else {}
    at = f"paths.run={quoted(str(had.get('paths', {}).get('run', '.')))}"
    wanted = configuration.plain(configuration.compose("train", [*fold.overrides, at]))
    changed = changed_settings(had, wanted) if had and not config.overwrite else []
    if changed:
        raise ConfigError(
            f"{fold.training} was trained with other settings: {'; '.join(changed)}. Continue with "
            "those, give these another name=…, or train all folds again with overwrite=true",
            code="other_settings",
        )


def finish(config: FoldsConfig, manifest: Manifest, fold: FoldRun) -> Fold:
    """Trains, exports and calibrates a fold, unless that is done, and scores its photos; parts that
    the same model has scored are not scored again."""
    if config.overwrite:
        fold.model.unlink(missing_ok=True)
        shutil.rmtree(fold.training, ignore_errors=True)
    if not fold.model.is_file():
        typed("train", *fold.overrides, "resume=last")
        typed(
            "export",
            f"checkpoint={quoted(str(fold.training / 'best.ckpt'))}",
            f"output={quoted(str(fold.model))}",
            f"paths.out={quoted(config.paths.out)}",
            f"name={quoted(f'{config.name}/{fold.name}/export')}",
        )
    known = manifest.subset(~unseen(manifest, fold.left_out))
    if config.alpha is not None and config.beta is not None:
        targets = targets_of(config, known, fold.name)
        if not is_calibrated(fold.model, known, targets):
            calibrate_model(fold.model, known, targets, progress=track)
    photos = photos_of_fold(manifest, fold.left_out)
    suite = suite_from_config(configuration.plain(config)["robustness"])
    _, metadata, graph = read_model_file(fold.model)
    judge = hashlib.sha256(fold.model.read_bytes()).hexdigest()
    print(f"{fold.name}: scoring {len(photos)} photos", flush=True)
    scored = Suite(ModelFile(fold.model), photos, suite, fold.folder / "test", judge, config.seed)
    scored.score(overwrite=True, progress=track)  # drops only what has other settings
    write_predictions(fold.folder / "test/predictions.csv", scored.predictions)
    about = (metadata.model_version, graph[:12])
    done = Fold(fold.name, fold.left_out, scored.predictions, (), *about)
    return replace(done, localisation=localisation_rows(scored, manifest, done, seed=config.seed))


def targets_of(config: FoldsConfig, known: Manifest, name: str) -> Targets:
    """alpha and beta as guarantees, or as rates where the known photos are too few for one."""
    kinds = tuple(config.kinds)
    guaranteed = Targets(alpha=config.alpha, beta=config.beta, kinds=kinds)
    try:
        check_enough(guaranteed, known.table[known.table["split"] == "policy"], name)
    except RealDamageError as error:
        print(f"{error} The thresholds keep to these rates without a guarantee.", flush=True)
        return Targets(fpr=config.alpha, miss=config.beta, kinds=kinds)
    return guaranteed


def typed(command: str, *arguments: str) -> None:
    """Runs a command in its own process. Raises RealDamageError (code fold_failed)."""
    print(f"$ realdamage-{command} {' '.join(arguments)}", flush=True)
    module = f"realdamage.commands.{command}"
    code = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    if code:
        raise RealDamageError(
            f"realdamage-{command} ended with exit code {code}. See its output above, fix the "
            "cause and start again",
            code="fold_failed",
        )


def quoted(text: str) -> str:
    """A word as Hydra's command line takes it, whatever is in it."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", text)) + "'"


def main() -> None:
    """Entry point of the command."""
    configuration.run("folds", run)


if __name__ == "__main__":
    main()
