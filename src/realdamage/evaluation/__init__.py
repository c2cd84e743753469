"""Scores a manifest through the wrapper, measures, calibrates. No torch."""
