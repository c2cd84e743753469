"""The table at the end of a sweep (`realdamage-train -m …`): one row per run, best first. Hydra
calls it, see configs/train.yaml."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from realdamage.files import write_atomically


class SweepTable(Callback):
    """Writes sweep.csv in the sweep's folder after each run, and prints it at the end.

    Columns: run (folder), the monitored figure (empty when the run failed or did not measure it),
    seconds, and each setting that the runs do not share.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        self._started = time.monotonic()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        finished = job_return.status == JobStatus.COMPLETED
        figure = job_return.return_value if finished else None
        words = [word.lstrip("+~").partition("=") for word in config.hydra.overrides.task]
        settings = {key: OmegaConf.select(config, key) for key, _, _ in words}
        self._rows.append(
            {
                "run": Path(config.hydra.runtime.output_dir).name,
                config.monitor: math.nan if figure is None else float(figure),
                "seconds": round(time.monotonic() - self._started, 1),
                **{
                    key: text if OmegaConf.is_config(settings[key]) else settings[key]
                    for key, _, text in words
                },
            }
        )
        text = self._table(config.monitor).to_csv(index=False, lineterminator="\n")
        write_atomically(self._path(config), text.encode())

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if self._rows:
            table = self._table(list(self._rows[0])[1])
            text = table.to_string(index=False, na_rep="–", float_format="%.4g")
            print(f"\n{text}\n\n{self._path(config)}")

    def _path(self, config: DictConfig) -> Path:
        return Path(config.hydra.sweep.dir) / "sweep.csv"

    def _table(self, monitor: str) -> Any:
        import pandas as pd  # this file is imported at every start

        table = pd.DataFrame(self._rows).sort_values(monitor, ascending=False, na_position="last")
        same = [name for name in table.columns[3:] if table[name].nunique(dropna=False) == 1]
        return table.drop(columns=same if len(table) > 1 else [])
