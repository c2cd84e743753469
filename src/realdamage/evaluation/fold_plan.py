"""What the folds leave out, and what each of their trainings is called with: found out and checked before hours go into
the first of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realdamage.data.manifest import did_you_mean
from realdamage.data.manifest import Manifest
from realdamage.errors import ConfigError
from realdamage.evaluation.left_out_figures import MEAN, WORST, photos_of_fold
from realdamage.training.settings import changed_settings

# Hydra is imported where a training is composed: no module of this room brings it along.

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class FoldPlan:
    """`folds`: by name, the values of `column` left out; `stages`: names of experiments, each starts from the weights
    of the one before; `settings`: further overrides of all of them, `stage_settings`: of the stage that each is named
    after; `out`, `name`: the folds lie in out/name."""

    out: str
    name: str
    column: str
    folds: Mapping[str, Sequence[str]]
    stages: Sequence[str]
    settings: Sequence[str]
    stage_settings: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The folder that holds a folder for each fold."""
        return Path(self.out) / self.name

    def folder(self, fold: str, stage: str) -> Path:
        """Of a training run."""
        return self.root / fold / stage

    def overrides(self, fold: str, stage: str) -> list[str]:
        """What realdamage-train is called with, less how it shall resume."""
        before = self.stages[: self.stages.index(stage)]
        weights = (
            [f"model.weights={quoted(str(self.folder(fold, before[-1]) / 'best.ckpt'))}"]
            if before
            else []
        )
        values = ",".join(quoted(value) for value in self.folds[fold])
        return [
            f"+experiment={stage}",
            *self.settings,
            *self.stage_settings.get(stage, ()),
            f"paths.out={quoted(self.out)}",
            f"name={quoted(f'{self.name}/{fold}/{stage}')}",
            f"+data.exclude.{self.column}=[{values}]",
            *weights,
        ]

    def check(self, manifest: Manifest) -> None:
        """Raises ConfigError: a fold that leaves out nothing that is there, or cannot be scored; a stage that is no
        experiment, or leaves out other photos besides."""
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise ConfigError(
                f"stages={list(self.stages)}: name at least one experiment, and none twice"
            )
        for stage in self.stage_settings:
            if stage not in self.stages:
                raise ConfigError(
                    f"stage_overrides.{stage}: not one of the stages {', '.join(self.stages)}"
                )
        for fold, values in self.folds.items():
            if not _NAME.fullmatch(fold) or fold in (MEAN, WORST):
                raise ConfigError(
                    f"folds.{fold}: its name becomes a folder's; use letters, digits, _ . and -, but not {MEAN} or "
                    f"{WORST}, which the table has"
                )
            photos = photos_of_fold(manifest, self.column, values).table
            known = sorted(set(manifest.table[self.column]) - {""})
            for value in values:
                if value not in known:
                    raise ConfigError(
                        f"folds.{fold}: {manifest.root} has no {self.column} {value!r}.{did_you_mean(value, known)} "
                        f"It has {', '.join(known)}"
                    )
            if not (photos["label"] == "synthetic").any():
                raise ConfigError(
                    f"folds.{fold}: no synthetic photo of the test split has {self.column} "
                    f"{' or '.join(values) or '(no value is named)'}, so nothing could be measured. Leave out values "
                    "with test photos, or join folds"
                )
        first = next(iter(self.folds))
        for stage in self.stages:
            config = self._composed(first, stage, Path())
            if set(config["data"]["exclude"]) != {self.column}:
                others = ", ".join(sorted(set(config["data"]["exclude"]) - {self.column}))
                raise ConfigError(
                    f"stage {stage} leaves out photos by {others} besides {self.column}; then no figure could tell "
                    f"which of them mattered. Take data.exclude out of its experiment and of overrides"
                )

    def check_settings(self) -> None:
        """Raises ConfigError naming what differs: a stage's folder holds a run that was made with other settings."""
        for fold in self.folds:
            for stage in self.stages:
                found = self.folder(fold, stage) / "config.yaml"
                changed = self._changed(fold, stage, found) if found.is_file() else []
                if changed:
                    raise ConfigError(
                        f"{found.parent} was trained with other settings: {'; '.join(changed)}. Go on with those, give "
                        "these another name=…, or train all folds anew with overwrite=true"
                    )

    def _changed(self, fold: str, stage: str, path: Path) -> list[str]:
        from omegaconf import OmegaConf

        had: Any = OmegaConf.to_container(OmegaConf.load(path))
        return changed_settings(
            had, self._composed(fold, stage, Path(had.get("paths", {}).get("run", ".")))
        )

    def _composed(self, fold: str, stage: str, run: Path) -> dict[str, Any]:
        from realdamage import configuration

        config = configuration.compose(
            "train", [*self.overrides(fold, stage), f"paths.run={quoted(str(run))}"]
        )
        return configuration.plain(config)


def deal_folds(manifest: Manifest, column: str, count: int) -> dict[str, list[str]]:
    """All values of synthetic photos in `count` folds (fewer where there are fewer values): those with most photos
    first, each into the fold that has least so far. Raises ConfigError: no such column, fewer than 2 values."""
    if column not in manifest.table.columns:
        photos_of_fold(manifest, column, [])  # says so
    values = manifest.table.loc[manifest.table["label"] == "synthetic", column]
    photos = values[values != ""].value_counts()
    count = min(count, len(photos))
    if count < 2:
        found = (
            f"count={count}"
            if len(photos) > 1
            else f"{manifest.root} has {len(photos)} {column} of synthetic photos"
        )
        raise ConfigError(f"{found}; at least 2 are needed, as some must stay to train on")
    sizes = [0] * count
    dealt: list[list[str]] = [[] for _ in sizes]
    for value, size in sorted(photos.items(), key=lambda item: (-int(item[1]), str(item[0]))):
        emptiest = sizes.index(min(sizes))
        sizes[emptiest] += int(size)
        dealt[emptiest].append(str(value))
    return {f"fold{index + 1}": own for index, own in enumerate(dealt)}


def lists_by_name(key: str, given: Any) -> dict[str, list[str]]:
    """{name: [word, …]} as a configuration has it under `key`, {} for null. Raises ConfigError: another shape."""
    if not isinstance(given or {}, Mapping) or any(
        not isinstance(words, list) for words in (given or {}).values()
    ):
        raise ConfigError(
            f"{key}={given}: write a list under each name, as in {key}={{NAME: [first, second]}}"
        )
    return {str(name): [str(word) for word in words] for name, words in (given or {}).items()}


def data_overrides(root: str, reader: Mapping[str, Any]) -> list[str]:
    """Where the photos lie and how they are read, as overrides of realdamage-train."""
    told = [f"data.root={quoted(root)}", f"data.reader.layout={quoted(str(reader['layout']))}"]
    mapped = [key for key in ("columns", "values", "constants") if reader[key]]
    return told + [f"++data.reader.{key}={_literal(reader[key])}" for key in mapped]


def quoted(text: str) -> str:
    """A word as Hydra's command line takes it, whatever is in it."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", text)) + "'"


def _literal(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "null" if value is None else quoted(str(value))
    keys = (re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(key)) for key in value)
    return (
        "{"
        + ",".join(
            f"{key}:{_literal(each)}" for key, each in zip(keys, value.values(), strict=True)
        )
        + "}"
    )
