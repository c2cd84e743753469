"""Makes `python -m realdamage` the `realdamage` command, where no console script is on the path."""

from __future__ import annotations

import sys

from realdamage.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
