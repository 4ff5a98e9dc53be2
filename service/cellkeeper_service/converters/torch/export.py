"""What both ways of tracing a module share: the example, and the export of one time step."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellkeeper_service.model.fields import one_line

from ..processing import Processed, Processing
from ..proof import Source
from ..refusal import ImportRefused
from .outputs import BATCH, RECIPE, Steps
from .program import Traced, quiet
from .source import output_names
from .step import Step

_CALLED = re.compile(r'The following call raised this error:\s+File "([^"]+)", line (\d+)')
_FIXED = "specialized it to be a constant"  # what torch.export says if code turned the batch into a number


@dataclass(frozen=True)
class Example:
    """A module to trace, with an example of its inputs.

    inputs: by name; with time at time_axis, or one time step if that is None. processing: around the module. place: its
    name in errors. by_name: the inputs are not forward's first arguments, but those of their names. Raises
    ImportRefused for a normalization of time steps of several axes.
    """

    model: Any
    inputs: Mapping[str, Tensor]
    time_axis: int | None
    processing: Processing
    place: str
    by_name: bool = False

    def __post_init__(self) -> None:
        if self.step_shape is not None and self.processing.normalization is not None:
            raise ImportRefused(
                "normalization",
                f"got one for time steps of shape {list(self.step_shape)}, expected it within the model: it works by "
                "feature",
            )

    @property
    def step_shape(self) -> tuple[int, ...] | None:
        """The shape of a time step, if there is one input and it has several axes."""
        if len(self.inputs) != 1:
            return None
        (x,) = self.inputs.values()
        shape = tuple(int(size) for size in x.shape[1 if self.time_axis is None else 2 :])
        return shape if len(shape) > 1 else None


class State(NamedTuple):
    """A state's tensor, for one or more new sessions."""

    name: str
    value: Tensor
    batch_axis: int


def rows(x: Tensor, axis: int | None) -> Tensor:
    """Returns one time step [BATCH, ...] for a trace: zeros for ids, else numbers from -1 to 1."""
    shape = (BATCH, *x.shape[1 if axis is None else 2 :])
    if not x.is_floating_point():
        return torch.zeros(shape, dtype=x.dtype)
    return torch.linspace(-1, 1, prod(shape)).reshape(shape)


def spread(value: Tensor, axis: int) -> Tensor:
    """Repeats the first session's state for BATCH sessions."""
    return value.narrow(axis, 0, 1).repeat_interleave(BATCH, axis).clone()


def _said(error: BaseException) -> str:
    """Returns what torch.export says first, and where in the code that is. Some of its errors are only advice about
    other tools, around the error that is meant."""
    found: BaseException | None = error
    text = where = ""
    while found is not None and not (text and where):
        said = str(found).replace("\n", " ")
        at = _CALLED.search(said)
        where = where or (f", at {Path(at[1]).name}:{at[2]}" if at else "")
        text = text or one_line(said.partition("The error above occurred")[0].strip())[:120]
        found = found.__cause__ or found.__context__
    return f"{text or type(error).__name__}{where}"


def export_step(
    example: Example, states: Sequence[State], call: Callable[..., Any], kept: dict[int, Steps], source: Source
) -> Traced:
    """Exports one time step of a module. Raises ImportRefused.

    call, kept: as in step.Step. source: the module as it is, without the processing.
    """
    processing, place = example.processing, example.place
    first = [rows(x, example.time_axis) for x in example.inputs.values()]
    step = Step(example.model, call, len(states), example.time_axis, kept, processing).eval()
    arguments = (*first, *(spread(state.value, state.batch_axis) for state in states))
    batch = torch.export.Dim("batch")
    axes = [*[0] * len(first), *(state.batch_axis for state in states)]
    try:
        with quiet():
            program = torch.export.export(
                step, arguments, dynamic_shapes=(tuple({axis: batch} for axis in axes),), strict=False
            )
    except Exception as error:  # the user's code may raise anything
        if _FIXED in str(error):
            raise ImportRefused(
                place, f"its forward fixes the size of the batch, by a number or len(x); use x.shape[0]: {RECIPE}"
            ) from error
        raise ImportRefused(
            place,
            "torch.export cannot trace one time step of it; remove branches on values, loops over time and a fixed "
            f"batch from its forward: {RECIPE} ({_said(error)})",
        ) from error
    return Traced(
        program,
        tuple(state.name for state in states),
        output_names(len(kept)),
        {state.name: state.value.select(state.batch_axis, 0).detach().numpy() for state in states},
        Processed(source, processing),
        tuple(example.inputs),
        example.step_shape,
    )
