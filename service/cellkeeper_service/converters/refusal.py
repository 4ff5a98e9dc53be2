"""The error for a model that cannot be imported."""

from __future__ import annotations

from cellkeeper_service.errors import StartError
from cellkeeper_service.model.fields import one_line


class ImportRefused(StartError):
    """A model cannot be imported; nothing was written. The message is one line: where, what came, what was expected.

    place: the file, layer, tensor or argument.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{one_line(place)}: {one_line(reason)}")
        self.place = place
        self.reason = reason
