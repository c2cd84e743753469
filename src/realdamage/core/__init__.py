"""Pixels, tiles, pooling, policy, verdict, the model file and the detector: what training and serving share."""
