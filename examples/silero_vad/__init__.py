"""Silero VAD, a public voice detector, as its wheel ships it: each of its ONNX files imported, served and compared."""
