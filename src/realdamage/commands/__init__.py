"""The commands: `realdamage` and the five Hydra ones."""
