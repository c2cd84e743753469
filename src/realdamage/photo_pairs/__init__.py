"""Compares a claim photo with the merchant's photo, or with the photo of another claim: the same shot, painted on?"""

from realdamage.photo_pairs.decision import compare
from realdamage.photo_pairs.drawing import draw_comparison
from realdamage.photo_pairs.prepared import Prepared, prepare
from realdamage.photo_pairs.result import Change, Comparison, Outcome

__all__ = ["Change", "Comparison", "Outcome", "Prepared", "compare", "draw_comparison", "prepare"]
