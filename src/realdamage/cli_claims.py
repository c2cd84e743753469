"""The commands of `realdamage` that look at a claim rather than at pixels alone: what a file says of itself, the listing
photo beside it, all photos of a claim with the evidence file. Heavy imports wait inside them."""

from __future__ import annotations

import argparse
from typing import Any


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
