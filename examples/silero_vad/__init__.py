"""Silero VAD, a public voice detector, from its wheel: each of its ONNX files is imported, served and compared."""
