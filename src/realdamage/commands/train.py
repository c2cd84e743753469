"""`realdamage-train +experiment=quickstart`: fine-tunes a ViT; keeps the best and the last
checkpoint in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from realdamage import configuration
from realdamage.training.photos import made_later, training_photos
from realdamage.training.start import checkpoint_to_resume, run_lock


def run(config: DictConfig) -> float | None:
    """Trains, and logs where the checkpoints are. Returns the best figure (`config.monitor`), None
    if it was not measured."""
    settings: Any = OmegaConf.to_object(config)  # checks all values
    with run_lock(Path(config.paths.run)):
        resume = checkpoint_to_resume(config)
        photos = None if made_later(settings.data) else training_photos(settings.data)
        # Torch, Lightning and timm take seconds to import; by now call and photos are right.
        from realdamage.training.run import fit

        return fit(config, resume, photos)


def main() -> None:
    """Entry point of the command."""
    configuration.run("train", run)


if __name__ == "__main__":
    main()
