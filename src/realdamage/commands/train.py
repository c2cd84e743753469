"""`realdamage-train +experiment=quickstart`: fine-tunes a ViT; keeps the best and the last
checkpoint in the run's folder."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from realdamage import configuration
from realdamage.training.start import check_photos, checkpoint_to_resume, run_lock


def run(config: DictConfig) -> None:
    """Trains, and prints where the checkpoints are."""
    OmegaConf.to_object(config)  # checks all values
    check_photos(config)
    with run_lock(Path(config.paths.run)):
        resume = checkpoint_to_resume(config)
        # Torch, Lightning and timm take seconds to import; by now the call is known to be right.
        from realdamage.training.run import fit

        fit(config, resume)


def main() -> None:
    """Entry point of the command."""
    configuration.run("train", run)


if __name__ == "__main__":
    main()
