"""`realdamage-folds data.root=FOLDER`: leaves families (or another column's values) out, trains, measures on them, and
tells mean and worst: what to expect of a generator that nobody has seen yet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from realdamage import configuration
from realdamage.core.progress import available_processors, track
from realdamage.data.readers import read_dataset, reader_from_mapping
from realdamage.errors import ConfigError
from realdamage.evaluation.fold_plan import (
    FoldPlan,
    data_overrides,
    deal_folds,
    lists_by_name,
    quoted,
)
from realdamage.evaluation.fold_runs import FoldRuns, Scoring
from realdamage.evaluation.left_out import write_left_out
from realdamage.evaluation.perturbations import suite_from_config
from realdamage.schema import FoldsConfig


def run(config: FoldsConfig) -> None:
    """Finishes all folds, writes folds.csv and folds.md and prints the table; exit code 1 when a fold failed."""
    if config.jobs < 1:
        raise ConfigError(
            f"jobs={config.jobs}: at least 1, the number of folds trained side by side"
        )
    if config.limit is not None and config.limit < 2:
        raise ConfigError(
            f"limit={config.limit}: at least 2, as a real and a synthetic photo are needed"
        )
    plain: dict[str, Any] = configuration.plain(config)
    scoring = Scoring(suite_from_config(plain["robustness"]), config.limit, config.seed)
    manifest = read_dataset(config.data.root, reader_from_mapping(plain["data"]["reader"]))
    folds = lists_by_name("folds", plain["folds"]) or deal_folds(
        manifest, config.column, config.count
    )
    settings = [
        *config.overrides,
        *data_overrides(config.data.root, plain["data"]["reader"]),
        *_users_configs(),
    ]
    stages, of_stages = plain["stages"], lists_by_name("stage_overrides", plain["stage_overrides"])
    plan = FoldPlan(
        config.paths.out, config.name, config.column, folds, stages, settings, of_stages
    )
    plan.check(manifest)
    for fold, values in folds.items():
        print(f"{fold} leaves out {config.column} {', '.join(values)}", flush=True)
    threads = max(1, available_processors() // config.jobs)
    runs = FoldRuns(plan, manifest, scoring, threads, config.jobs, progress=track)
    if config.overwrite:
        runs.start_over()
    failed = runs.run()
    if len(failed) < len(folds):
        command = " ".join(["realdamage-folds", *HydraConfig.get().overrides.task])
        print(f"\n{write_left_out(plan.root, manifest, command=command, seed=config.seed)}")
        print(f"\nrows and table: {plan.root / 'folds.csv'}, {plan.root / 'folds.md'}")
    for fold, why in failed.items():
        print(f"error: {fold}: {why}", file=sys.stderr)
    if failed:
        sys.exit(1)


def _users_configs() -> list[str]:
    """The folder of --config-dir, in which the stages' experiments are looked for too."""
    given = [
        each.path
        for each in HydraConfig.get().runtime.config_sources
        if each.provider == "command-line"
    ]
    return [f"hydra.searchpath=[{quoted(f'file://{Path(path).resolve()}')}]" for path in given]


def main() -> None:
    """Entry point of the command."""
    configuration.run("folds", run)


if __name__ == "__main__":
    main()
