"""Follows the batch axis through an ONNX graph: whether the values of one session can reach another one's row."""
