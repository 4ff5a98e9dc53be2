"""ONNX: a graph of one time step, as it is."""
