"""The error for a GPU that cannot run ONNX graphs."""

from __future__ import annotations

from cellkeeper_service.errors import StartError


class GraphDeviceMissing(StartError):
    """This device cannot run ONNX graphs here. why: the part of the message that does not name the requested device."""

    def __init__(self, device: str, why: str, remedy: str) -> None:
        super().__init__(f"device: got {device}, but {why}; {remedy}, or choose cpu")
        self.why = why
