"""How many processors there are to use, in one place: not every system can say which of them are this process's."""

from __future__ import annotations

import os


def available_processors() -> int:
    """Those that this process may run on; where the system cannot tell (macOS, Windows), all of the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
