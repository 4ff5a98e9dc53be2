"""What keeps ONNX graphs from a GPU."""

from __future__ import annotations

from cellkeeper_service.errors import StartError


class GraphDeviceMissing(StartError):
    """This device cannot run ONNX graphs here. why: of the text, the part that does not name the device asked for."""

    def __init__(self, device: str, why: str, remedy: str) -> None:
        super().__init__(f"device: got {device}, but {why}; {remedy}, or choose cpu")
        self.why = why
