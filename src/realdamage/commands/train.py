"""`realdamage-train +experiment=quickstart`: fine-tunes a ViT; keeps the best and the last checkpoint in the run's
folder."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from omegaconf import DictConfig

from realdamage import configuration
from realdamage.training.start import check_photos, checkpoint_to_resume, run_lock

# What Lightning says of its own defaults, with paths of this library; none of it is for the user to act on.
_NOISE = (
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*LeafSpec.*",
    ".*is smaller than the logging interval.*",
    ".*module.s. in eval mode at the start of training.*",  # frozen ones are held there
    ".*dirpath has changed.*",
)


def run(config: DictConfig) -> None:
    """Trains, and says where the checkpoints are."""
    check_photos(config)
    with run_lock(Path(config.paths.run)):
        _train(config, checkpoint_to_resume(config))


def _train(config: DictConfig, resume: Path | None) -> None:
    # Torch, Lightning and timm take seconds to import: by now the call is known to be right.
    from realdamage.training.building import build, check_resumable
    from realdamage.training.ending import ending, how_to_go_on

    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    trainer, classifier, datamodule = build(config)
    steps_before = check_resumable(resume, classifier) if resume else None
    if trainer.is_global_zero:
        count = sum(p.numel() for p in classifier.network.parameters())
        learning = sum(p.numel() for p in classifier.network.parameters() if p.requires_grad)
        print(
            f"{config.model.backbone}: {count / 1e6:.1f} million parameters, {learning / 1e6:.1f} million learn",
            flush=True,
        )
    try:
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    except (
        SystemExit
    ):  # how Lightning ends on Ctrl-C (with code 1) and on SIGTERM (with 0, as if it were done)
        if not trainer.is_global_zero:
            raise
        raise KeyboardInterrupt(how_to_go_on(trainer, Path(config.paths.run), resume)) from None
    if trainer.is_global_zero:
        for line in ending(trainer, config.monitor, steps_before):
            print(line)


def main() -> None:
    """Entry point of the command."""
    configuration.run("train", run)


if __name__ == "__main__":
    main()
