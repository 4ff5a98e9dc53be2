"""The models that are measured: LSTMs with one output."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    layers: int
    hidden: int
    features: int

    @property
    def state_bytes(self) -> int:
        return 2 * self.layers * self.hidden * 4


MODELS = {"2x128": Shape(2, 128, 32), "1x64": Shape(1, 64, 10), "2x512": Shape(2, 512, 64)}
MAIN = "2x128"
