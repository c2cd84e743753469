"""`realdamage-synthesize +recipe=quickstart out=FOLDER`: makes a set of real and AI-damaged photos
with its manifest."""

from __future__ import annotations

from pathlib import Path

from realdamage import configuration
from realdamage.core.progress import track
from realdamage.schema import SynthesizeConfig
from realdamage.synthesis.recipe import recipe_from_config
from realdamage.synthesis.runner import synthesize


def run(config: SynthesizeConfig) -> None:
    """Makes the photos; prints where they are and how fast it went."""
    plain = configuration.plain(config)
    summary = synthesize(
        recipe_from_config(plain["recipe"]),
        Path(config.out),
        plain["prompts"],
        overwrite=config.overwrite,
        runner=plain["runner"],
        progress=track,
    )
    root, made = summary.root, summary.made
    speed = "up to date: all were made before; overwrite=true makes them again"
    if made:
        speed = f"{made} made now, {summary.photos_per_second:.1f} photos/s"
    print(f"{summary.photos} photos in {root} ({speed})")
    print(f"next: realdamage-train data.root={root}")


def main() -> None:
    """Entry point of the command."""
    configuration.run("synthesize", run)


if __name__ == "__main__":
    main()
