"""Reads photos, scores them with an ONNX model and words the verdict; imports numpy, Pillow and onnxruntime only."""
