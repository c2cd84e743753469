"""The HTTP service: a thin app over core/ with limits, keys and figures. Imports no torch."""
