"""From a checkpoint to an ONNX file, and the gate that it must pass."""
