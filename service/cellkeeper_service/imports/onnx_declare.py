"""Finds out how a graph is to be called: from what the user says, from its names and shapes where those are certain,
and by calling it. What stays open is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import MAX_STATE_BYTES
from cellkeeper_service.model.config import LAYOUTS, MAX_SIZE
from cellkeeper_service.model.missing import as_numbers

from .onnx_graph import Graph, Value
from .onnx_source import Declaration
from .onnx_states import check_states, guess_states, listing
from .refusal import ImportRefused
from .stack import Array

BAKED = "a batch is baked into the graph; export it with a dynamic batch axis"


def declare(
    graph: Graph,
    place: str,
    *,
    input_name: str | None,
    layout: str | None,
    states: Mapping[str, str] | None,
    batch_axes: Mapping[str, int],
    outputs: Sequence[str] | None,
    constants: Mapping[str, Array],
) -> Declaration:
    """Raises ImportRefused that names what is missing or wrong, and what to pass."""
    if states is None:
        states = guess_states(graph, place)
    check_states(graph, states, place)
    given = _constants(graph, constants, place)
    chosen = _input(graph, input_name, {*states, *given}, place)
    named = list(outputs) if outputs is not None else [n for n in graph.outputs if n not in states.values()]
    for name in named:
        if name not in graph.outputs or name in states.values():
            raise ImportRefused(f"{place}: output {name}", f"not an output beside the states. {listing(graph)}")
    if not named:
        raise ImportRefused(place, f"outputs: none beside the states. {listing(graph)}")
    for name in batch_axes:
        if name not in states:
            raise ImportRefused(place, f"batch axis of {name}: not a state, expected {list(states)}")
    axes = {name: _batch_axis(graph.inputs[name], batch_axes.get(name), place) for name in states}
    batch = {str((graph.inputs[name].dims or ())[axis]) for name, axis in axes.items()} - {""}
    tokens = chosen.dtype in ("int32", "int64")
    time_axis, single = _layout(chosen, layout, batch, tokens, place)
    shapes = {name: _without(graph.inputs[name], axis, place) for name, axis in axes.items()}
    state_bytes = sum(4 * prod(shape) for shape in shapes.values())
    if state_bytes > MAX_STATE_BYTES:
        raise ImportRefused(place, f"states: got {state_bytes} bytes for a session, expected at most {MAX_STATE_BYTES}")
    return Declaration(
        input_name=chosen.name,
        input_shape=() if tokens else (_size(chosen, place),),
        dtype=chosen.dtype,
        states=dict(states),
        state_shapes=shapes,
        state_axes=axes,
        outputs=tuple(named),
        constants=given,
        time_axis=time_axis,
        single=single,
    )


def probe(session: Any, declaration: Declaration, place: str) -> dict[str, tuple[int, ...]]:
    """Calls the graph with two sessions: the shape of each output, for one time step of one session."""
    steps, batch = (1 if declaration.time_axis is None or declaration.single else 3), 2
    x = np.zeros((steps, batch, *declaration.input_shape), declaration.dtype)
    states = declaration.zeros(batch)
    before = {name: value.shape for name, value in states.items()}
    try:
        results = declaration.call(session, x, states)
    except StartError as error:
        raise ImportRefused(place, str(error).removeprefix(f"{place}: ")) from error
    except Exception as error:  # onnxruntime's errors have no public base class
        raise ImportRefused(
            place, f"a call of {steps} steps for {batch} sessions fails: {BAKED}, or the declaration is wrong ({error})"
        ) from error
    for name, shape in before.items():
        if states[name].shape != shape:
            raise ImportRefused(
                f"{place}: state {name}", f"went in as {list(shape)}, came out as {list(states[name].shape)}"
            )
    lead = [steps, batch] if declaration.time_axis == 0 else [batch, steps]
    lead = [batch] if declaration.time_axis is None else lead
    shapes = {}
    for name, value in zip(declaration.outputs, results, strict=True):
        if value.dtype != np.float32 or list(value.shape[: len(lead)]) != lead:
            raise ImportRefused(
                f"{place}: output {name}",
                f"got {value.dtype} {list(value.shape)} for {steps} steps of {batch} sessions, expected float32 "
                f"{[*lead, '...']}; name the outputs that are to be served",
            )
        shapes[name] = tuple(int(size) for size in value.shape[len(lead) :])
    return shapes


def _constants(graph: Graph, constants: Mapping[str, Array], place: str) -> dict[str, Array]:
    """In the dtypes of the graph."""
    given = {}
    for name, value in constants.items():
        where = f"{place}: constant {name}"
        if name not in graph.inputs:
            raise ImportRefused(where, f"no such input. {listing(graph)}")
        wanted = graph.inputs[name]
        try:
            array = as_numbers(value).astype(wanted.dtype)
        except (TypeError, ValueError) as error:
            raise ImportRefused(where, f"got {value!r}, expected {wanted}") from error
        dims = wanted.dims
        fits = dims is None or (
            len(dims) == array.ndim
            and all(not isinstance(d, int) or d == s for d, s in zip(dims, array.shape, strict=True))
        )
        if not fits and array.size == 1 and dims is not None and all(isinstance(d, int) for d in dims):
            array, fits = array.reshape([1] * len(dims)), all(d == 1 for d in dims)
        same = np.array_equal(array.astype(np.float64), np.asarray(value, np.float64).reshape(array.shape))
        if not fits or (wanted.dtype != "float32" and not same) or not np.isfinite(array.astype(np.float64)).all():
            raise ImportRefused(where, f"got shape {list(array.shape)} {value!r}, expected {wanted}")
        given[name] = array
    return given


def _input(graph: Graph, name: str | None, others: set[str], place: str) -> Value:
    left = [value for value in graph.inputs.values() if value.name not in others]
    if name is not None:
        if name not in [value.name for value in left]:
            raise ImportRefused(f"{place}: input {name}", f"not an input beside states and constants. {listing(graph)}")
        rest = [value.name for value in left if value.name != name]
        if rest:
            raise ImportRefused(place, f"inputs {rest}: neither states nor constants; pass their values as constants")
        return graph.inputs[name]
    if len(left) != 1:
        raise ImportRefused(
            place,
            f"input: {[value.name for value in left]} are neither states nor constants, expected exactly one; pass "
            f"input, states and constants. {listing(graph)}",
        )
    return left[0]


def _batch_axis(value: Value, said: int | None, place: str) -> int:
    where = f"{place}: state {value.name}"
    if value.dims is None:
        raise ImportRefused(where, f"got {value}, expected a shape with fixed sizes but for the batch")
    if said is not None:
        if not 0 <= said < len(value.dims):
            raise ImportRefused(where, f"batch axis: got {said}, expected 0 to {len(value.dims) - 1} for {value}")
        if said not in value.free:
            raise ImportRefused(where, f"got {value} with the batch axis {said}: {BAKED}")
        return said
    if not value.free:
        raise ImportRefused(where, f"got {value}: {BAKED}")
    if len(value.free) > 1:
        raise ImportRefused(where, f"got {value}: more than one axis may be the batch; pass its batch axis")
    return value.free[0]


def _without(value: Value, axis: int, place: str) -> tuple[int, ...]:
    rest = [size for at, size in enumerate(value.dims or ()) if at != axis]
    if not all(isinstance(size, int) for size in rest):
        raise ImportRefused(f"{place}: state {value.name}", f"got {value}, expected fixed sizes but for the batch")
    return tuple(int(size) for size in rest)


def _size(value: Value, place: str) -> int:
    size = value.dims[-1] if value.dims else ""
    if not isinstance(size, int) or size > MAX_SIZE:
        raise ImportRefused(
            f"{place}: input {value.name}",
            f"got {value}, expected a fixed number of features at the end, to {MAX_SIZE}",
        )
    return size


def _layout(value: Value, said: str | None, batch: set[str], tokens: bool, place: str) -> tuple[int | None, bool]:
    """The time axis, and whether it has the length 1."""
    where = f"{place}: input {value.name}"
    if value.dtype not in ("float32", "int32", "int64") or value.dims is None:
        raise ImportRefused(where, f"got {value}, expected float32 features, or int32 or int64 token ids, with a shape")
    lead = len(value.dims) - (0 if tokens else 1)
    if said is not None:
        if said not in LAYOUTS:
            raise ImportRefused("layout", f"got {said!r}, expected one of {', '.join(LAYOUTS)}")
        axis = {"step": None, "time_first": 0, "batch_first": 1}[said]
    elif lead == 1:
        axis = None
    elif lead == 2:
        axis = _time_axis(value, batch, where)
    else:
        axis = None
    if lead != (1 if axis is None else 2):
        form = "[batch, features] or [time, batch, features] (token ids without features)"
        raise ImportRefused(where, f"got {value}, expected {form}")
    batch_axis = 0 if axis in (None, 1) else 1
    if batch_axis not in value.free:
        raise ImportRefused(where, f"got {value}: {BAKED}")
    if axis is None or axis in value.free:
        return axis, False
    if value.dims[axis] != 1:
        raise ImportRefused(where, f"got {value}: a length is baked into the graph; export it with a dynamic time axis")
    return axis, True


def _time_axis(value: Value, batch: set[str], where: str) -> int:
    """The axis of the first two that is not the batch of the states."""
    first, second = (value.dims or ())[:2]
    named = [axis for axis, size in enumerate((first, second)) if size in batch]
    if len(named) == 1:
        return 1 - named[0]
    fixed = [axis for axis, size in enumerate((first, second)) if isinstance(size, int)]
    if len(fixed) == 1:
        return fixed[0]
    if len(fixed) == 2:
        raise ImportRefused(where, f"got {value}: {BAKED}")
    raise ImportRefused(
        where, f"got {value}: which axis is time cannot be told; pass layout, time_first or batch_first"
    )
