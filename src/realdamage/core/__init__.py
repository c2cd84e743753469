"""Pixels, tiles, pooling, policy, the model file and the detector. The base install: numpy, pillow,
onnxruntime."""
