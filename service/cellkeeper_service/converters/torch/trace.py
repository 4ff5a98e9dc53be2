"""Traces a module with any forward: torch.export exports one time step of it, with its states as arguments.

There are two kinds of modules: those whose forward takes states and returns them, and those whose forward runs
recurrent layers over a whole sequence. The states of the latter are found by watching these layers.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.config import LAYOUTS
from cellkeeper_service.model.fields import one_line

from ..processing import Processing
from ..refusal import BACKWARD, ImportRefused
from .export import BATCH, RECIPE, Traced, exported, rows, spread, step_shape
from .program import INPUT, OUTPUT
from .source import CarriedSource, output_names, source_name
from .swapped import refuse_swapped
from .watch import trace_watched

if TYPE_CHECKING:
    from torch import Tensor, nn

SWAP_STEPS = 5
_WHOLE = ("MultiheadAttention", "Transformer", "TransformerEncoder", "TransformerDecoder", "Conv1d", "ConvTranspose1d")


def trace(model: nn.Module, example: object, states: object, layout: str | None, processing: Processing) -> Traced:
    """Traces a module. Raises ImportRefused, naming the layer and the recipe.

    model: on the CPU, in evaluation mode, and not used elsewhere. example: x as its forward takes it; several inputs as
    a tuple, or by argument name. states: of a new session, as its forward takes them after the inputs; None for a
    module that runs recurrent layers over a sequence.
    """
    place = type(model).__name__
    inputs = _examples(model, example, place)
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
    return _carried(model, inputs, states, axis, processing, place)


def _carried(
    model: Any, inputs: Mapping[str, Tensor], states: Any, axis: int | None, processing: Processing, place: str
) -> Traced:
    from .step import CarriedStep

    names, flat, call = _states_of(model, states, len(inputs), place)
    xs = list(inputs.values())
    batch = xs[0].shape[1 if axis == 0 else 0]
    step = CarriedStep(model, call, len(flat), axis, processing)
    first = [rows(x, axis) for x in xs]
    shape = step_shape(first, processing)
    found = []
    candidates = [[at for at, size in enumerate(value.shape) if size == batch] for value in flat]
    why = "no axis of a state has the size of the batch of example"
    for axes in itertools.islice(itertools.product(*candidates), 64):
        batched = [spread(value, at, BATCH) for value, at in zip(flat, axes, strict=True)]
        try:
            results = _run(step, *first, *batched)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises
            why = str(error)
            continue
        after = results[-len(flat) :]
        if [value.shape for value in after] == [value.shape for value in batched] and results[0].shape[:1] == (BATCH,):
            found.append((axes, batched, len(results) - len(flat)))
        else:
            why = f"states go in as {_shapes(batched)} and come out as {_shapes(after)}"
    if len(found) != 1:
        why = why if not found else "more than one axis of a state may be the batch: pass an example of another batch"
        raise ImportRefused(
            place,
            f"one time step with the given states for a batch of {BATCH} fails ({one_line(why)[:120]}); its forward "
            f"takes x and the states and returns outputs, then the states in the same order: {RECIPE}",
        )
    axes, batched, count = found[0]
    for name, value, at in zip(names, flat, axes, strict=True):
        if not bool((value == value.select(at, 0).unsqueeze(at)).all()):
            raise ImportRefused(
                f"{place}: state {name}", "its rows differ, expected the state of a new session in each"
            )
    initial = {name: value.select(at, 0).detach().numpy() for name, value, at in zip(names, flat, axes, strict=True)}
    program = exported(step, (*first, *batched), axes, place)
    source = CarriedSource(model, call, flat, axes, axis)
    if axis is not None:
        refuse_swapped(source, names, _sequence(inputs, axis), place)
    return Traced(program, names, output_names(count), initial, source, tuple(inputs), shape)


def _sequence(inputs: Mapping[str, Tensor], axis: int) -> np.ndarray[Any, Any]:
    """Returns [SWAP_STEPS, ...] of random values (ids are 0), of a structured dtype if there are several inputs."""
    draw = np.random.default_rng(0)
    values = {}
    for name, x in inputs.items():
        shape = (SWAP_STEPS, *x.shape[2:])
        values[name] = draw.standard_normal(shape).astype("f4") if x.is_floating_point() else np.zeros(shape, "i8")
    if len(values) == 1:
        return next(iter(values.values()))
    packed = np.zeros(SWAP_STEPS, [(name, value.dtype, value.shape[1:]) for name, value in values.items()])
    for name, value in values.items():
        packed[name] = value
    return packed


def _states_of(
    model: Any, states: Any, inputs: int, place: str
) -> tuple[tuple[str, ...], list[Tensor], Callable[..., Any]]:
    """Returns the states' names and tensors, and how to call the module with them. inputs: arguments before them."""
    import torch
    from torch.utils import _pytree as tree

    known = _arguments(model)[inputs:]
    if isinstance(states, Mapping):
        unknown = [name for name in states if name not in known]
        if unknown:
            raise ImportRefused(place, f"states {unknown}: not arguments of its forward, expected some of {known}")
        structure: Any = {name: states[name] for name in known if name in states}  # in the order of forward's arguments
    elif isinstance(states, torch.Tensor) or len(known) == 1:
        structure = {known[0]: states} if known else {}
    else:
        structure = dict(zip(known, states, strict=False)) if len(states) <= len(known) else {}
    if not structure:
        raise ImportRefused(
            place, f"states: got {_kinds(states)}, expected one for each argument after the input: {known}"
        )
    leaves, spec = tree.tree_flatten(structure)
    if not leaves or not all(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in leaves):
        raise ImportRefused(place, f"states: got {_kinds(states)}, expected tensors of floats, or tuples of them")
    names: list[str] = []
    for name, value in structure.items():
        inner = tree.tree_leaves(value)
        stem = f"{name}_state" if name in (INPUT, OUTPUT) else name  # INPUT and OUTPUT are taken in the graph
        names += [stem] if len(inner) == 1 else [f"{stem}_{number}" for number in range(len(inner))]

    orders = _keys(structure)

    def call(module: Any, xs: Sequence[Tensor], flat: Sequence[Tensor]) -> Any:
        return _in_order(module(*xs, **tree.tree_unflatten(list(flat), spec)), orders)

    return tuple(names), [leaf.detach().cpu().float() for leaf in leaves], call


def _keys(structure: Any) -> list[tuple[str, ...]]:
    """Returns the keys of each dict in the structure, outer ones first."""
    if isinstance(structure, Mapping):
        return [tuple(structure), *(keys for value in structure.values() for keys in _keys(value))]
    return [keys for value in structure for keys in _keys(value)] if isinstance(structure, tuple | list) else []


def _in_order(result: Any, orders: Sequence[tuple[str, ...]]) -> Any:
    """Returns a forward's result with the states last; if dicts name them, in the order in which they were passed."""
    if isinstance(result, tuple | list):
        return [_in_order(value, orders) for value in result]
    if not isinstance(result, Mapping):
        return result
    states = next((keys for keys in orders if {*keys} <= {*result}), ())
    names = [name for name in result if name not in states]
    return {name: _in_order(result[name], orders) for name in (*names, *states)}


def _refuse_backward(model: Any) -> None:
    from .step import recurrent_children

    for name, child in recurrent_children(model):
        if getattr(child, "bidirectional", False):
            raise ImportRefused(
                f"{name or 'model'} ({type(child).__name__})",
                f"bidirectional; {BACKWARD}",
            )


def whole_sequence_layers(model: Any) -> str:
    """Describes layers that may make a stream differ from the whole sequence; "" if there are none."""
    found = [
        f"{name} ({type(child).__name__})" for name, child in model.named_modules() if type(child).__name__ in _WHOLE
    ]
    return f"holds {', '.join(found[:4])}, which sees other time steps; " if found else ""


def _arguments(model: Any) -> list[str]:
    """Returns the positional arguments of the model's forward."""
    return [
        parameter.name
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def _examples(model: Any, example: object, place: str) -> dict[str, Tensor]:
    """Returns the examples by name; a single one is named INPUT."""
    if not isinstance(example, tuple | list | Mapping):
        return {INPUT: _example(example, "example")}
    known = _arguments(model)
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


def _begins(x: Tensor, lead: int) -> bool:
    """Returns True if x may have `lead` axes before its features; token ids have no features."""
    return x.ndim > lead if x.is_floating_point() else x.ndim == lead


def _time_axis(model: Any, x: Tensor, layout: str | None, place: str) -> int | None:
    """Returns the time axis of x, or None if it is one time step."""
    from .step import SEQUENCE_LAYERS, recurrent_children

    if layout is not None:
        if layout not in LAYOUTS:
            raise ImportRefused("layout", f"got {layout!r}, expected one of {', '.join(LAYOUTS)}")
        axis = {"step": None, "time_first": 0, "batch_first": 1}[layout]
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


def _run(step: Any, *arguments: Tensor) -> Any:
    import torch

    with torch.no_grad():
        return step(*arguments)


def _shapes(values: Sequence[Tensor]) -> list[list[int]]:
    return [list(value.shape) for value in values]


def _kinds(states: object) -> str:
    if isinstance(states, tuple | list):
        return f"{type(states).__name__} of {len(states)}"
    return type(states).__name__
