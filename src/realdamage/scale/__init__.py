"""Very many photos: one function for one photo, run on this machine or on a Ray cluster."""

from realdamage.scale.photo import Judge
from realdamage.scale.run import Summary, score

__all__ = ["Judge", "Summary", "score"]
