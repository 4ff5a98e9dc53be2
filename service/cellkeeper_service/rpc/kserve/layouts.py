"""Which leading dimensions a model's clients give to its tensors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cellkeeper_service.errors import StartError

FORM = "MODEL=LAYOUT, comma-separated"


@dataclass(frozen=True, slots=True)
class Layout:
    """The dimensions before those of a time step. A single step needs no time dimension.

    batch: tensors have a batch dimension, of size 1. timed: outputs have a time dimension if the inputs have one. If
    not, the inputs' is 1 and the outputs have none.
    """

    batch: bool = True
    timed: bool = True

    def expected(self, step: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of an input with and without a time dimension. -1: any size."""
        batch = (-1,) * self.batch
        return (*batch, -1 if self.timed else 1, *step), (*batch, *step)

    def declared_output(self, step: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of an output as clients are told."""
        return self.expected(step)[0 if self.timed else 1]

    def leading(self, steps: int | None) -> tuple[int, ...]:
        """Returns the dimensions of a tensor in a reply. steps: None if it has no time dimension."""
        return (1,) * self.batch + (() if steps is None or not self.timed else (steps,))


BATCH = Layout()
LAYOUTS = {"batch": BATCH, "no_batch": Layout(batch=False), "one_step": Layout(timed=False)}


def read_layouts(text: str, models: Collection[str]) -> dict[str, Layout]:
    """Returns the layouts by model. text: the setting. Raises StartError."""
    found: dict[str, Layout] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        model, equals, layout = part.partition("=")
        if not (model and equals and layout):
            raise StartError(f"kserve_layout: got {part!r}, expected {FORM}")
        if model not in models:
            raise StartError(f"kserve_layout: got the model {model!r}, expected one of {', '.join(sorted(models))}")
        if layout not in LAYOUTS:
            raise StartError(f"kserve_layout: got {layout!r} for {model}, expected one of {', '.join(LAYOUTS)}")
        if model in found:
            raise StartError(f"kserve_layout: got two layouts for {model}, expected one")
        found[model] = LAYOUTS[layout]
    return found
