"""`realdamage-train +experiment=quickstart`: fine-tunes a ViT; keeps the best and the last
checkpoint in the run's folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from realdamage import configuration
from realdamage.errors import ConfigError
from realdamage.training.photos import chosen_photos, made_later, training_photos
from realdamage.training.start import checkpoint_to_resume, finished_run, run_lock

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """Trains, and logs where the checkpoints are. Returns the best figure (`config.monitor`), None
    if it was not measured."""
    settings: Any = OmegaConf.to_object(config)  # checks all values
    with run_lock(Path(config.paths.run)):
        resume = checkpoint_to_resume(config)
        ended = finished_run(config, resume)
        if ended and resume:
            if ended.manifest_sha256 != chosen_photos(settings.data).digest():
                raise ConfigError(
                    f"resume={config.resume}: the run in {resume.parent} has ended, and the photos "
                    f"of {config.data.root} have changed since. Start over with overwrite=true, or "
                    "choose another folder with name=…",
                    code="other_photos",
                )
            log.info(
                "%s is up to date: all epochs are done, and settings and photos are the same. "
                "Raise trainer.max_epochs to go on, or start over with overwrite=true instead of "
                "resume\nnext: realdamage-export checkpoint=%s",
                resume.parent,
                resume.parent / ended.best,
            )
            return ended.score
        photos = None if made_later(settings.data) else training_photos(settings.data)
        # Torch, Lightning and timm take seconds to import; by now call and photos are right.
        from realdamage.training.run import fit

        return fit(config, resume, photos)


def main() -> None:
    """Entry point of the command."""
    configuration.run("train", run)


if __name__ == "__main__":
    main()
