"""Reads the example input of a module that is traced: the arguments' names, and which axes are batch and time."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.config import LAYOUTS

from ..onnx.axes import TIME_AXES
from ..refusal import ImportRefused
from .program import INPUT

if TYPE_CHECKING:
    from torch import Tensor


def arguments(model: Any) -> list[str]:
    """Returns the positional arguments of the model's forward."""
    return [
        parameter.name
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def examples_of(model: Any, example: object, place: str) -> dict[str, Tensor]:
    """Returns the examples by name; a single one is named INPUT."""
    if not isinstance(example, tuple | list | Mapping):
        return {INPUT: _example(example, "example")}
    known = arguments(model)
    named = dict(example) if isinstance(example, Mapping) else dict(zip(known, example, strict=False))
    first = known[: len(named)]
    if not named or len(named) != len(example) or set(named) != {*first}:
        came = list(example) if isinstance(example, Mapping) else f"{len(example)} inputs"
        raise ImportRefused(
            "example", f"got {came}, expected the first arguments of {place}'s forward, one or more of {known}"
        )
    return {name: _example(named[name], f"example: {name}") for name in first}


def _example(example: object, where: str) -> Tensor:
    import torch

    value = torch.as_tensor(example) if isinstance(example, np.ndarray) else example
    if not isinstance(value, torch.Tensor) or value.ndim < 1:
        raise ImportRefused(where, f"got {type(example).__name__}, expected a tensor x as its forward takes it")
    return value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu().long()


def begins(x: Tensor, lead: int) -> bool:
    """Returns True if x may have `lead` axes before its features; token ids have no features."""
    return x.ndim > lead if x.is_floating_point() else x.ndim == lead


def time_axis(model: Any, x: Tensor, layout: str | None, place: str) -> int | None:
    """Returns the time axis of x, or None if it is one time step."""
    from .step import SEQUENCE_LAYERS, recurrent_children

    if layout is not None:
        if layout not in LAYOUTS:
            raise ImportRefused("layout", f"got {layout!r}, expected one of {', '.join(LAYOUTS)}")
        axis = TIME_AXES[layout]
    elif begins(x, 1) and not (x.is_floating_point() and x.ndim > 2):
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
    if not begins(x, lead) or (layout is None and x.ndim > lead + 1):
        raise ImportRefused(
            "example",
            f"got shape {list(x.shape)}, expected [batch, features ...], or with layout {layout or 'batch_first'}"
            " [batch, time, features ...] or [time, batch, features ...] (token ids without features)",
        )
    return axis
