"""A sweep ends with a table of its runs, best first."""

import pandas as pd
import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from realdamage.commands.sweep import SweepTable


def test_the_best_run_comes_first_and_failed_ones_last(tmp_path, capsys):
    table = SweepTable()
    jobs = [("0", 0.1, 0.7), ("1", 0.2, 0.9), ("2", 0.3, None)]
    for run, lr, figure in jobs:
        words = [f"model.lr={lr}", "name=x", "+model=vit_lite"]
        hydra = {
            "mode": RunMode.MULTIRUN,
            "sweep": {"dir": str(tmp_path)},
            "runtime": {"output_dir": str(tmp_path / run)},
            "overrides": {"task": words},
        }
        config = OmegaConf.create(
            {"monitor": "val/auroc", "model": {"lr": lr}, "name": "x", "hydra": hydra}
        )
        table.on_job_start(config)
        status = JobStatus.FAILED if figure is None else JobStatus.COMPLETED
        table.on_job_end(config, JobReturn(status=status, _return_value=figure))
        assert len(pd.read_csv(tmp_path / "sweep.csv")) == int(run) + 1  # nothing waits for the end
    table.on_multirun_end(config)
    found = pd.read_csv(tmp_path / "sweep.csv")
    assert found["run"].tolist() == [1, 0, 2]
    assert found["val/auroc"].isna().tolist() == [False, False, True]
    assert list(found) == ["run", "val/auroc", "seconds", "model.lr"]  # others do not differ
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[1].split()[:2] == ["1", "0.9"]
    assert lines[-1] == str(tmp_path / "sweep.csv")


@pytest.mark.slow
def test_optuna_looks_for_the_best_run(run_command, tiny_manifest, tmp_path):
    """Each run has a folder of its own."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason='needs the extra "sweep"')
    network = ("model.backbone=test_vit", "model.pretrained=false", "model.tile=64")
    small = ("model.overlap=16", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    small += ("callbacks.pictures=null",)
    trials = ("name=s", f"data.root={tiny_manifest}", "hydra.sweeper.n_trials=2")
    done = run_command("train", *network, *small, *trials, "+sweep=lr")
    assert done.code == 0, done.err
    sweep = tmp_path / "out/s-sweep"
    found = pd.read_csv(sweep / "sweep.csv")
    configs = [OmegaConf.load(sweep / str(run) / "config.yaml") for run in found["run"]]
    assert [config.model.lr for config in configs] == found["model.lr"].tolist()
    assert found["val/auroc"].is_monotonic_decreasing
    assert found["model.lr"].between(1e-4, 1e-2).all()
    best = OmegaConf.load(sweep / "optimization_results.yaml")
    assert best.best_value == pytest.approx(found["val/auroc"].max())
