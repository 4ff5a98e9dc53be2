"""Traces a module whose forward takes its states and returns them."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellkeeper_service.model.fields import one_line

from ..proof import measure
from ..refusal import ImportRefused, refusing
from ..stack import Array
from .export import Example, State, export_step, rows, spread
from .outputs import BATCH, RECIPE, Steps, not_a_tensor, outputs_of
from .private import tree
from .program import INPUT, OUTPUT, Traced
from .source import TracedSource, source_name
from .step import Step
from .watch import LENGTHS, stretched

SWAP_STEPS = 5
CLOSE = 1e-4  # relative to the largest output
MOST_TRIED = 64  # combinations of axes
_EXPECTED = (
    "expected one that takes any batch and any length; one that takes a single time step needs an example without a "
    f"time axis, or layout='step': {RECIPE}"
)


def trace_carried(example: Example, states: Any) -> Traced:
    """Traces a module. states: of a new session, as its forward takes them. Raises ImportRefused."""
    return trace_called(example, *_states_of(example, states), name=source_name())


def trace_called(
    example: Example,
    names: Sequence[str],
    flat: Sequence[Tensor],
    call: Callable[..., Any],
    *,
    name: str,
    batch_axes: Sequence[int] | None = None,
) -> Traced:
    """Traces a module. Raises ImportRefused.

    names, flat: of the states. call: calls the module with the inputs and the states; it returns outputs, then the
    states. name: of the source. batch_axes: of the states, if known.
    """
    model, axis, place = example.model, example.time_axis, example.place
    xs = list(example.inputs.values())
    batch = xs[0].shape[1 if axis == 0 else 0]
    possible = (
        [[at for at, size in enumerate(value.shape) if size == batch] for value in flat]
        if batch_axes is None
        else [[at] for at in batch_axes]
    )
    if not all(possible):
        raise ImportRefused(
            place, f"states: got {_shapes(flat)}, but no axis of a state has the size of the batch of example, {batch}"
        )
    plain = Step(model, call, len(flat), axis, None, example.processing)
    axes, returned = _batch_axes(plain, [rows(x, axis) for x in xs], flat, possible, axis, place)
    states = [State(*state) for state in zip(names, flat, axes, strict=True)]
    if axis is None:
        kept = dict.fromkeys(range(returned), Steps.LAST)
    else:
        kept = _outputs(model, call, xs, _spread(flat, axes), axis, place)
    for state in states:
        if not bool((state.value == state.value.select(state.batch_axis, 0).unsqueeze(state.batch_axis)).all()):
            raise ImportRefused(
                f"{place}: state {state.name}", "its rows differ, expected the state of a new session in each"
            )
    source = TracedSource(name, model, call, kept, axis, flat, axes)
    traced = export_step(example, states, call, kept, source)
    if axis is not None:
        _refuse_swapped(source, states, _sequence(example.inputs), place)
    return traced


def _outputs(
    model: Any, call: Callable[..., Any], xs: Sequence[Tensor], states: Sequence[Tensor], axis: int, place: str
) -> dict[int, Steps]:
    """Returns the outputs among the tensors before the states. states: for BATCH sessions. Raises ImportRefused."""
    given = {}
    for steps in LENGTHS:
        what = (
            f"its forward fails on random values of the example's kind, {BATCH} sequences of {steps} time steps with "
            "the given states"
        )
        with refusing(place, what, _EXPECTED):
            result = _run(call, model, stretched(xs, axis, steps), [value.clone() for value in states])
            given[steps] = tree.tree_leaves(result)[: -len(states)]
    return outputs_of(given, axis, place)


def _batch_axes(
    step: Any,
    first: Sequence[Tensor],
    states: Sequence[Tensor],
    possible: Sequence[Sequence[int]],
    axis: int | None,
    place: str,
) -> tuple[tuple[int, ...], int]:
    """Returns the batch axis of each state, and how many outputs a step has: the only axes with which a step works.

    first: the inputs of one time step. possible: axes of each state. axis: of time. Raises ImportRefused.
    """
    found, why = [], ""
    for axes in itertools.islice(itertools.product(*possible), MOST_TRIED):
        batched = _spread(states, axes)
        try:
            results = _run(step, *first, *batched)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises
            why = str(error)
            continue
        for result in results:
            if not hasattr(result, "shape"):
                raise ImportRefused(place, f"{not_a_tensor(result)}: {RECIPE}")
        after = results[-len(states) :]
        if _shapes(after) == _shapes(batched) and BATCH in results[0].shape[: 1 if axis is None else 2]:
            found.append((axes, len(results) - len(states)))
        else:
            why = f"states go in as {_shapes(batched)} and come out as {_shapes(after)}"
    if len(found) != 1:
        why = why if not found else "more than one axis of a state may be the batch: pass an example of another batch"
        raise ImportRefused(
            place,
            f"one time step with the given states for a batch of {BATCH} fails ({one_line(why)[:120]}); its forward "
            f"takes x and the states and returns outputs, then the states in the same order: {RECIPE}",
        )
    return found[0]


def _refuse_swapped(source: TracedSource, states: Sequence[State], inputs: Array, place: str) -> None:
    """Raises ImportRefused, naming two states, if a forward returns them in swapped order, which their shapes cannot
    show.

    That is: single steps give what the whole sequence gives only when these two are exchanged after each step. Only a
    forward that takes sequences can be checked. inputs: a sequence, [T, ...].
    """
    shapes = [state.value.select(state.batch_axis, 0).shape for state in states]
    pairs = [pair for pair in itertools.combinations(range(len(states)), 2) if shapes[pair[0]] == shapes[pair[1]]]
    if not pairs:
        return
    whole = source.whole(inputs)["prediction"]
    if measure(source.stepped(inputs)["prediction"], whole, CLOSE).relative <= CLOSE:
        return
    for first, second in pairs:
        order = list(range(len(states)))
        order[first], order[second] = second, first
        if measure(source.stepped(inputs, order)["prediction"], whole, CLOSE).relative <= CLOSE:
            raise ImportRefused(
                f"{place}: states {states[first].name} and {states[second].name}",
                "are returned by its forward in the other order: with the two exchanged, its steps match the whole "
                "sequence; return them in the order in which they are taken",
            )


def _spread(states: Sequence[Tensor], axes: Sequence[int]) -> list[Tensor]:
    return [spread(value, at) for value, at in zip(states, axes, strict=True)]


def _sequence(inputs: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
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


def _states_of(example: Example, states: Any) -> tuple[tuple[str, ...], list[Tensor], Callable[..., Any]]:
    """Returns the states' names and tensors, and how to call the module with them."""
    inputs, place, every = list(example.inputs), example.place, arguments(example.model)
    taken = inputs if example.by_name else every[: len(inputs)]
    known = [name for name in every if name not in taken]
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
        carried = tree.tree_unflatten(list(flat), spec)
        result = module(**dict(zip(inputs, xs, strict=True)), **carried) if example.by_name else module(*xs, **carried)
        return _in_order(result, orders)

    return tuple(names), [leaf.detach().cpu().float() for leaf in leaves], call


def arguments(model: Any) -> list[str]:
    """Returns the positional arguments of the model's forward."""
    return [
        parameter.name
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


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


def _run(call: Any, *arguments: Any) -> Any:
    with torch.no_grad():
        return call(*arguments)


def _shapes(values: Sequence[Tensor]) -> list[list[int]]:
    return [list(value.shape) for value in values]


def _kinds(states: object) -> str:
    if isinstance(states, tuple | list):
        return f"{type(states).__name__} of {len(states)}"
    return type(states).__name__
