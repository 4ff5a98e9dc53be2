"""Traces a module with any forward: torch.export exports one time step of it, with its states as arguments.

There are two kinds of modules: those whose forward takes states and returns them, and those whose forward runs
recurrent layers over a whole sequence. The states of the latter are found by watching these layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..processing import Processing
from ..refusal import BACKWARD, ImportRefused
from .carried import trace_carried
from .example import begins, examples_of, time_axis
from .export import RECIPE, Traced
from .source import source_name
from .watch import trace_watched

if TYPE_CHECKING:
    from torch import nn

_WHOLE = ("MultiheadAttention", "Transformer", "TransformerEncoder", "TransformerDecoder", "Conv1d", "ConvTranspose1d")


def trace(model: nn.Module, example: object, states: object, layout: str | None, processing: Processing) -> Traced:
    """Traces a module. Raises ImportRefused, naming the layer and the recipe.

    model: on the CPU, in evaluation mode, and not used elsewhere. example: x as its forward takes it; several inputs as
    a tuple, or by argument name. states: of a new session, as its forward takes them after the inputs; None for a
    module that runs recurrent layers over a sequence.
    """
    place = type(model).__name__
    inputs = examples_of(model, example, place)
    if len(inputs) > 1 and processing.normalization is not None:
        raise ImportRefused("normalization", "got one for a module with several inputs, expected it within the module")
    x = next(iter(inputs.values()))
    axis = time_axis(model, x, layout, place)
    lead = 1 if axis is None else 2
    for name, other in list(inputs.items())[1:]:
        if not begins(other, lead) or other.shape[:lead] != x.shape[:lead]:
            raise ImportRefused(
                f"example: {name}",
                f"got shape {list(other.shape)}, expected {list(x.shape[:lead])} before its features, as in the "
                "first input: all inputs have the same time steps and batch",
            )
    if states is None:
        if axis is None:
            raise ImportRefused(
                place,
                f"example: got shape {list(x.shape)} without states, expected a batch of sequences, [T, B, ...] or [B, "
                f"T, ...]; pass states if its forward takes them: {RECIPE}",
            )
        from .step import watched

        _refuse_backward(model)
        return trace_watched(model, inputs, axis, processing, place, watch=watched, name=source_name())
    return trace_carried(model, inputs, states, axis, processing, place)


def _refuse_backward(model: Any) -> None:
    from .step import recurrent_children

    for name, child in recurrent_children(model):
        if getattr(child, "bidirectional", False):
            raise ImportRefused(f"{name or 'model'} ({type(child).__name__})", f"bidirectional; {BACKWARD}")


def whole_sequence_layers(model: Any) -> str:
    """Describes layers that may make a stream differ from the whole sequence; "" if there are none."""
    found = [
        f"{name} ({type(child).__name__})" for name, child in model.named_modules() if type(child).__name__ in _WHOLE
    ]
    return f"holds {', '.join(found[:4])}, which sees other time steps; " if found else ""
