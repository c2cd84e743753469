"""Compares a claim photo with the merchant's photo, or with the photo of another claim: the same shot, painted on?"""

from realdamage.inference.comparison.decision import compare
from realdamage.inference.comparison.drawing import draw_comparison
from realdamage.inference.comparison.prepared import Prepared, prepare
from realdamage.inference.comparison.result import Change, Comparison, Outcome

__all__ = ["Change", "Comparison", "Outcome", "Prepared", "compare", "draw_comparison", "prepare"]
