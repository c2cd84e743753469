"""Compares a claim photo with a listing photo, or with another claim's photo: the same shot,
painted on?"""

from realdamage.photo_pairs.decide import Change, Comparison, Outcome, compare
from realdamage.photo_pairs.draw import draw_comparison
from realdamage.photo_pairs.features import Prepared, prepare

__all__ = ["Change", "Comparison", "Outcome", "Prepared", "compare", "draw_comparison", "prepare"]
