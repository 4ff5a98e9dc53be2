"""Finds out how to call a graph.

It uses what the user says, names and shapes if they are unambiguous, and a call of the graph. Errors ask for what
remains open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from cellkeeper_service.domain.spec import InputSpec
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import MAX_STATE_BYTES
from cellkeeper_service.model.config import GraphState
from cellkeeper_service.model.fields import one_line

from ..refusal import ImportRefused
from ..stack import Array
from .axes import BAKED, Axes, AxisArguments, find_axes, find_inputs, step_shape
from .constants import constants_of, suggestion
from .graph import Graph, Value
from .source import Declaration
from .states import check_states, guess_states, listing

PROBED_STEPS = 3
PROBED = 23  # sessions in the call that finds out shapes: a size that no other axis is likely to have


def declare(
    graph: Graph,
    place: str,
    *,
    input_name: str | Sequence[str] | None = None,
    layout: str | None = None,
    states: Mapping[str, str] | None = None,
    batch_axes: Mapping[str, int] | None = None,
    outputs: Sequence[str] | None = None,
    constants: Mapping[str, Array] | None = None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    vocabulary: int | Mapping[str, int] = 0,
    batch: str | None = "free",
) -> Declaration:
    """Returns the declaration. Raises ImportRefused, which says what is missing or wrong, and what to pass.

    input_name: several names for several inputs; input_shape and vocabulary are then by name. batch: "free", "one"
    (session a call), or None: whatever the graph has.
    """
    if states is None:
        states = guess_states(graph, place)
    check_states(graph, states, place)
    for number in vocabulary.values() if isinstance(vocabulary, Mapping) else [vocabulary]:
        if number < 0:
            raise ImportRefused("vocabulary", f"got {number}, expected how many token ids there are")
    batch_axes = batch_axes or {}
    given, repeated = constants_of(graph, constants or {}, place)
    wanted = None if input_name is None else (input_name,) if isinstance(input_name, str) else tuple(input_name)
    chosen = _inputs(graph, wanted, {*states, *given}, place)
    _refuse_unread(graph, [*states, *(value.name for value in chosen)], place)
    for name in batch_axes:
        if name not in states:
            raise ImportRefused(place, f"batch axis of {name}: not a state, expected some of {list(states)}")
    carried = {name: graph.inputs[name] for name in states}
    said = AxisArguments(layout, batch, batch_axes, place)
    specs, axes = _inputs_and_axes(chosen, input_shape, vocabulary, carried, said)
    repeated |= _of_batch(graph, given, carried, axes)
    named = _outputs(graph, states, outputs, axes, place)
    dtypes = {name: value.dtype for name, value in carried.items()}
    state_bytes = sum(np.dtype(dtypes[name]).itemsize * prod(dims) for name, dims in axes.state_shapes.items())
    if state_bytes > MAX_STATE_BYTES:
        raise ImportRefused(place, f"states: got {state_bytes} bytes for a session, expected at most {MAX_STATE_BYTES}")
    return Declaration(
        inputs=specs,
        states=tuple(
            GraphState(name, name, after, axes.state_shapes[name], axes.state_axes[name], dtypes[name])
            for name, after in states.items()
        ),
        outputs=named,
        constants=given,
        repeated=repeated,
        time_axis=axes.time_axis,
        single=axes.single,
        batch=axes.batch,
    )


def _inputs_and_axes(
    chosen: Sequence[Value],
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None,
    vocabulary: int | Mapping[str, int],
    states: Mapping[str, Value],
    said: AxisArguments,
) -> tuple[tuple[InputSpec, ...], Axes]:
    """Returns a time step's inputs, and where the graph has time and batch. chosen: the graph's inputs for them."""
    if len(chosen) > 1:
        shapes, vocabularies = _by_name("input_shape", input_shape), _by_name("vocabulary", vocabulary)
        return find_inputs(chosen, shapes, vocabularies, states, said)
    if isinstance(input_shape, Mapping) or isinstance(vocabulary, Mapping):
        raise ImportRefused("input_shape, vocabulary", "got values by name, expected them for several inputs only")
    (one,) = chosen
    shape = step_shape(one, input_shape, one.dtype in ("int32", "int64"), said.place)
    return (InputSpec(one.name, one.dtype, shape, vocabulary),), find_axes(one, len(shape), states, said)


def _of_batch(graph: Graph, constants: Mapping[str, Array], states: Mapping[str, Value], axes: Axes) -> dict[str, int]:
    """Returns the constants of one number that were passed with the batch's axis, by its name in the states."""
    if axes.batch != "free":
        return {}
    batch = {str((states[name].dims or ())[axis]) for name, axis in axes.state_axes.items()} - {""}
    return {
        name: free[0]
        for name, value in constants.items()
        if value.size == 1
        for free in [graph.inputs[name].free]
        if len(free) == 1 and (graph.inputs[name].dims or ())[free[0]] in batch
    }


def _refuse_unread(graph: Graph, names: Sequence[str], place: str) -> None:
    """Raises ImportRefused for an input or a state that the graph takes, but never reads."""
    unread = next((name for name in names if name not in graph.read), None)
    if unread is not None:
        raise ImportRefused(
            f"{place}: input {unread}",
            "no node of the graph reads it, so its values would be lost. torch.export merges inputs whose examples are "
            "one tensor, such as h and c of the same zeros: pass a tensor for each, and export again",
        )


def _by_name(what: str, said: Any) -> Mapping[str, Any]:
    if said is None or isinstance(said, Mapping):
        return said or {}
    if said == 0:
        return {}
    raise ImportRefused(what, f"got {said!r} for several inputs, expected values by input name")


def probe(session: Any, declaration: Declaration, place: str) -> tuple[Declaration, dict[str, tuple[int, ...]]]:
    """Returns the declaration with its untimed outputs, and the shape of each output for a time step of one session.

    Calls the graph, with several sessions if it takes them.
    """
    batch = PROBED if declaration.batch == "free" else 1
    try:
        declaration = replace(declaration, untimed=_untimed(session, declaration, batch))
        results, states = _called(session, declaration, batch)
    except (ImportRefused, StartError) as error:
        raise ImportRefused(place, str(error).removeprefix(f"{place}: ")) from error
    except Exception as error:  # onnxruntime's errors have no public base class
        cause = BAKED if batch > 1 and _runs(session, declaration) else "the graph cannot run, or is declared wrongly"
        why = one_line(str(error).partition("Status Message: ")[2] or str(error))
        steps = "" if declaration.one_step else f" and {PROBED_STEPS} time steps"
        instead = "" if declaration.one_step else "; if it is made for one length, export it for any, or for one step"
        raise ImportRefused(place, f"a call for {batch} sessions{steps} fails: {cause} ({why}){instead}") from error
    before = {name: value.shape for name, value in declaration.fresh(batch).items()}
    for name, shape in before.items():
        if states[name].shape != shape:
            raise ImportRefused(
                f"{place}: state {name}", f"went in as {list(shape)}, came out as {list(states[name].shape)}"
            )
    shapes = zip(declaration.outputs, (value.shape[2:] for value in results), strict=True)
    return declaration, {name: tuple(int(size) for size in shape) for name, shape in shapes}


def _untimed(session: Any, declaration: Declaration, batch: int) -> frozenset[str]:
    """Returns the outputs without a time axis of a graph whose input has one of length 1."""
    if not declaration.single:
        return frozenset()
    results = declaration.run(session, _zeros(declaration, batch), declaration.fresh(batch))
    with_time, without = (declaration.lead(1, batch, has_time) for has_time in (True, False))
    return frozenset(
        name
        for name in set(declaration.outputs) - set(declaration.state_outputs)
        if results[name].shape[: len(with_time)] != with_time and results[name].shape[: len(without)] == without
    )


def _called(session: Any, declaration: Declaration, batch: int) -> tuple[list[Array], dict[str, Array]]:
    """Returns the outputs and the new states of a call with zeros, of one or a few time steps."""
    states = declaration.fresh(batch)
    return declaration.call(session, _zeros(declaration, batch), states), states


def _zeros(declaration: Declaration, batch: int) -> Array:
    """Returns one or a few time steps, as `Declaration.call` takes them."""
    steps = 1 if declaration.one_step else PROBED_STEPS
    return np.zeros((steps, batch, *declaration.step.shape), declaration.step.numpy_dtype)


def _runs(session: Any, declaration: Declaration) -> bool:
    """Returns True if the graph runs for one session."""
    try:
        _called(session, declaration, 1)
    except Exception:  # noqa: BLE001 - onnxruntime's errors have no public base class
        return False
    return True


def _inputs(graph: Graph, names: Sequence[str] | None, others: set[str], place: str) -> list[Value]:
    """Returns the inputs of a time step: the named ones in that order, or the only one left."""
    left = {value.name: value for value in graph.inputs.values() if value.name not in others}
    if names is not None:
        for name in names:
            if name not in left:
                raise ImportRefused(
                    f"{place}: input {name}", f"not an input other than states and constants. {listing(graph)}"
                )
        if not names or len(set(names)) < len(names):
            raise ImportRefused("input", f"got {list(names)}, expected one or more names, each once")
        rest = [value for name, value in left.items() if name not in names]
        if rest:
            raise ImportRefused(
                place,
                f"inputs {[value.name for value in rest]}: neither states nor constants; pass their values as constants"
                f"{suggestion([left[name] for name in names], rest)}",
            )
        return [left[name] for name in names]
    if len(left) != 1:
        raise ImportRefused(
            place,
            f"input: {list(left)} are neither states nor constants, expected exactly one; pass "
            f"input, states and constants{suggestion([], list(left.values()))}. {listing(graph)}",
        )
    return list(left.values())


def _outputs(
    graph: Graph, states: Mapping[str, str], said: Sequence[str] | None, axes: Axes, place: str
) -> tuple[str, ...]:
    """Returns the named outputs, or all that are not states, or the first state if there are no others."""
    beside = [name for name in graph.outputs if name not in states.values()]
    named = list(said) if said is not None else beside or list(states.values())[:1]
    by_output = {after: before for before, after in states.items()}
    for name in named:
        where = f"{place}: output {name}"
        if name not in graph.outputs:
            raise ImportRefused(where, f"no such output. {listing(graph)}")
        if name not in by_output:
            continue
        if axes.time_axis is not None and not axes.single:
            raise ImportRefused(
                where,
                "is a state, which the graph returns once per call and not once per time step; export a graph of one "
                f"time step, or name other outputs. {listing(graph)}",
            )
        if graph.outputs[name].dtype != "float32":
            raise ImportRefused(where, f"got {graph.outputs[name]}, expected float32 for an output")
    if not named or len(set(named)) < len(named):
        raise ImportRefused(place, f"outputs: got {named}, expected one or more, each once. {listing(graph)}")
    return tuple(named)
