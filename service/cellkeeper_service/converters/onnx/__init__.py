"""ONNX: imports a graph of one time step, or of sequences."""
