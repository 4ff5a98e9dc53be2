"""Traces a module with any forward: torch.export exports one time step of it, with its states as arguments.

There are two kinds of modules: those whose forward takes states and returns them, and those whose forward runs
recurrent layers over a whole sequence. The states of the latter are found by watching these layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cellkeeper_service.model.config import LAYOUTS

from ..onnx.axes import TIME_AXES
from ..processing import Processing
from ..refusal import BACKWARD, ImportRefused
from .carried import arguments, trace_carried
from .export import Example
from .outputs import RECIPE
from .program import INPUT, Traced
from .source import source_name
from .step import SEQUENCE_LAYERS, recurrent_children, watched
from .watch import trace_watched

_WHOLE = ("MultiheadAttention", "Transformer", "TransformerEncoder", "TransformerDecoder", "Conv1d", "ConvTranspose1d")


def trace(model: nn.Module, example: object, states: object, layout: str | None, processing: Processing) -> Traced:
    """Traces a module. Raises ImportRefused, naming the layer and the recipe.

    model: on the CPU, in evaluation mode, and not used elsewhere. example: x as its forward takes it; several inputs as
    a tuple, or by argument name. states: of a new session, as its forward takes them after the inputs, or by argument
    name; None for a module that runs recurrent layers over a sequence.
    """
    place = type(model).__name__
    inputs = _examples(model, example, isinstance(states, Mapping), place)
    if len(inputs) > 1 and processing.normalization is not None:
        raise ImportRefused("normalization", "got one for a module with several inputs, expected it within the module")
    x = next(iter(inputs.values()))
    axis = _time_axis(model, x, layout, place)
    lead = 1 if axis is None else 2
    for name, other in list(inputs.items())[1:]:
        if not _begins(other, lead) or other.shape[:lead] != x.shape[:lead]:
            raise ImportRefused(
                f"example: {name}",
                f"got shape {list(other.shape)}, expected {list(x.shape[:lead])} before its features, as in the "
                f"first input: all inputs have the same time steps and batch{_missing_axes(other, x, lead)}",
            )
    if states is None:
        if axis is None:
            raise ImportRefused(
                place,
                f"example: got shape {list(x.shape)} without states, expected a batch of sequences, [T, B, ...] or [B, "
                f"T, ...]; pass states if its forward takes them: {RECIPE}",
            )
        for name, child in recurrent_children(model):
            if getattr(child, "bidirectional", False):
                raise ImportRefused(f"{name or 'model'} ({type(child).__name__})", f"bidirectional; {BACKWARD}")
        return trace_watched(Example(model, inputs, axis, processing, place), watched, source_name())
    by_name = isinstance(example, Mapping) and [*inputs] != arguments(model)[: len(inputs)]
    return trace_carried(Example(model, inputs, axis, processing, place, by_name), states)


def _missing_axes(other: Tensor, x: Tensor, lead: int) -> str:
    """Says how an input may get the axes that it lacks, if they are the features, or the time steps."""
    if other.is_floating_point() and other.shape == x.shape[:lead]:
        return f"; for one number, pass {[*other.shape, 1]}, and take [..., 0] of it in forward"
    if lead == 2 and other.shape[:1] == x.shape[:1]:
        return f"; an input that stays the same over time is one of each time step, or a state: {RECIPE}"
    return ""


def _examples(model: Any, example: object, states_by_name: bool, place: str) -> dict[str, Tensor]:
    """Returns the examples by name, in the order of forward's arguments; a single one is named INPUT.

    They are the first arguments. If the states have names, too, any arguments may be the inputs.
    """
    if not isinstance(example, tuple | list | Mapping):
        return {INPUT: _example(example, "example")}
    known = arguments(model)
    named = dict(example) if isinstance(example, Mapping) else dict(zip(known, example, strict=False))
    first = known[: len(named)]
    any_of_them = states_by_name and isinstance(example, Mapping)
    right = {*named} <= {*known} if any_of_them else {*named} == {*first}
    if not named or len(named) != len(example) or not right:
        came = list(example) if isinstance(example, Mapping) else f"{len(example)} inputs"
        which = "arguments" if any_of_them else "the first arguments"
        raise ImportRefused(
            "example",
            f"got {came}, expected {which} of {place}'s forward, one or more of {known}; if states come before an "
            "input, pass example and states as dicts by argument name",
        )
    return {name: _example(named[name], f"example: {name}") for name in known if name in named}


def _example(example: object, where: str) -> Tensor:
    value = torch.as_tensor(example) if isinstance(example, np.ndarray) else example
    if not isinstance(value, torch.Tensor) or value.ndim < 1:
        raise ImportRefused(where, f"got {type(example).__name__}, expected a tensor x as its forward takes it")
    return value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu().long()


def _begins(x: Tensor, lead: int) -> bool:
    """Returns True if x may have `lead` axes before its features; token ids have no features."""
    return x.ndim > lead if x.is_floating_point() else x.ndim == lead


def _time_axis(model: Any, x: Tensor, layout: str | None, place: str) -> int | None:
    """Returns the time axis of x, or None if it is one time step."""
    if layout is not None:
        if layout not in LAYOUTS:
            raise ImportRefused("layout", f"got {layout!r}, expected one of {', '.join(LAYOUTS)}")
        axis = TIME_AXES[layout]
    elif _begins(x, 1) and not (x.is_floating_point() and x.ndim > 2):
        axis = None
    else:
        orders = {
            bool(child.batch_first) for _, child in recurrent_children(model) if isinstance(child, SEQUENCE_LAYERS)
        }
        if len(orders) != 1:
            raise ImportRefused(
                place,
                f"layout: got an example of {list(x.shape)}, the time axis is ambiguous; pass layout, "
                "step, time_first or batch_first",
            )
        axis = int(orders.pop())
    lead = 1 if axis is None else 2
    if not _begins(x, lead) or (layout is None and x.ndim > lead + 1):
        raise ImportRefused(
            "example",
            f"got shape {list(x.shape)}, expected [batch, features ...], or with layout {layout or 'batch_first'}"
            " [batch, time, features ...] or [time, batch, features ...] (token ids without features)",
        )
    return axis


def whole_sequence_layers(model: Any) -> str:
    """Describes layers that may make a stream differ from the whole sequence; "" if there are none."""
    found = [
        f"{name} ({type(child).__name__})" for name, child in model.named_modules() if type(child).__name__ in _WHOLE
    ]
    return f"holds {', '.join(found[:4])}, which sees other time steps; " if found else ""
