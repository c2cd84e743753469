"""`realdamage-synthesize +recipe=quickstart out=FOLDER`: makes a set of real and AI-damaged photos with its
manifest."""

from __future__ import annotations

from pathlib import Path

from realdamage import configuration
from realdamage.core.progress import track
from realdamage.schema import SynthesizeConfig
from realdamage.synthesis.recipe import synthesize
from realdamage.synthesis.settings import recipe_from_config


def run(config: SynthesizeConfig) -> None:
    """Makes what the configuration asks for; prints where it lies and how fast it went."""
    recipe = recipe_from_config(
        configuration.plain(config.recipe), configuration.plain(config.prompts)
    )
    summary = synthesize(recipe, Path(config.out), overwrite=config.overwrite, progress=track)
    if not summary.photos:
        print(
            f"{summary.made} photos made by this process in {summary.root}; the last process writes the manifest"
        )
        return
    speed = (
        f"{summary.made} made now, {summary.photos_per_second:.1f} photos/s"
        if summary.made
        else "all were there already"
    )
    print(f"{summary.photos} photos in {summary.root} ({speed})")
    print(f"next: realdamage-train data.root={summary.root}")


def main() -> None:
    """Entry point of the command."""
    configuration.run("synthesize", run)


if __name__ == "__main__":
    main()
