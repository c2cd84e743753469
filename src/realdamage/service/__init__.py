"""The HTTP service: a thin app over inference/ with limits, keys and figures. Imports no torch."""
