"""Follows the batch axis through an ONNX graph, to see if one session's values can reach another's row."""
