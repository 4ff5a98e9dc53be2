"""Matches a graph's inputs and outputs that are one state before and after a call, if their names are unambiguous."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cellkeeper_service.model.named_inputs import DTYPES

from ..refusal import ImportRefused
from .graph import Graph, Value

_BEFORE = ("in", "input", "0", "init", "initial", "prev", "previous", "past", "before", "old")
_AFTER = ("out", "output", "n", "next", "new", "final", "present", "after", "updated")


def guess_states(graph: Graph, place: str) -> dict[str, str]:
    """Returns output names by input names. Raises ImportRefused if nothing, or more than one thing, fits."""
    _refuse_defaults(graph, place)
    pairs: dict[str, str] = {}
    for before in graph.inputs.values():
        fits = [name for name in _after(before, graph) if name != before.name]
        if len(fits) > 1:
            raise ImportRefused(place, f"states: input {before.name} may go with the outputs {fits}; pass states")
        if fits:
            pairs[before.name] = fits[0]
    possible = [one for one in graph.inputs.values() if any(_alike(one, other) for other in graph.outputs.values())]
    if not pairs and (not possible or len(graph.inputs) < 2):  # one input is the time step
        raise ImportRefused(
            place,
            "has no input that could be a state, so it starts over with each call; export the model with its states as "
            f"inputs and outputs, such as forward(x, h, c) -> (y, h, c). {listing(graph)}",
        )
    if not pairs or len(set(pairs.values())) < len(pairs):
        raise ImportRefused(
            place,
            f"states: the names do not show which output continues which input; pass states as INPUT=OUTPUT pairs. "
            f"{listing(graph)}",
        )
    return pairs


def _after(before: Value, graph: Graph) -> list[str]:
    """Returns the outputs that may continue an input, by their names, shapes and dtypes."""
    stems = _stems(before.name, _BEFORE)
    return [name for name, one in graph.outputs.items() if stems & _stems(name, _AFTER) and _alike(before, one)]


def _refuse_defaults(graph: Graph, place: str) -> None:
    """Raises ImportRefused for a state whose initial value is in the file, which makes it a constant."""
    for before in graph.defaults.values():
        fits = _after(before, graph)
        if fits:
            raise ImportRefused(
                f"{place}: input {before.name}",
                f"has a value in the file, which makes it a constant, but looks like the state that output {fits[0]} "
                "continues; remove the initializer of that name from the graph and pass it as initial, or rename one "
                "of them",
            )


def check_states(graph: Graph, states: Mapping[str, str], place: str) -> None:
    """Raises ImportRefused for an invalid pair."""
    if not states:
        raise ImportRefused(place, f"states: got none, expected INPUT=OUTPUT pairs. {listing(graph)}")
    for before, after in states.items():
        where = f"{place}: state {before}"
        if before not in graph.inputs:
            raise ImportRefused(where, f"no such input. {listing(graph)}")
        if after not in graph.outputs:
            raise ImportRefused(where, f"{after}: no such output. {listing(graph)}")
        if not _alike(graph.inputs[before], graph.outputs[after]):
            raise ImportRefused(where, f"goes in as {graph.inputs[before]} and comes out as {graph.outputs[after]}")
        if graph.inputs[before].dtype not in DTYPES:
            raise ImportRefused(
                where,
                f"got {graph.inputs[before]}, expected one of {', '.join(DTYPES)}; put a Cast around it in the graph",
            )
    if len(set(states.values())) < len(states):
        raise ImportRefused(place, f"states: got {dict(states)}, expected a different output for each input")


def listing(graph: Graph) -> str:
    """Lists the graph's inputs and outputs, for errors that ask for something."""
    inputs = ", ".join(map(str, graph.inputs.values()))
    return f"Inputs: {inputs}; outputs: {', '.join(map(str, graph.outputs.values()))} (docs/models.md, ONNX)"


def _stems(name: str, marks: tuple[str, ...]) -> set[str]:
    """Returns what a name may be without a mark for "before" or "after"; also the name itself."""
    lower = re.sub(r":\d+$", "", name.lower())  # TensorFlow's number of an operator's output
    stems = {lower}
    for mark in marks:
        for joint in ("_", ".", "-"):
            if lower.endswith(f"{joint}{mark}"):
                stems.add(lower.removesuffix(f"{joint}{mark}"))
            if lower.startswith(f"{mark}{joint}"):
                stems.add(lower.removeprefix(f"{mark}{joint}"))
        if mark in ("0", "n") and lower.endswith(mark):  # h0 and hn
            stems.add(lower.removesuffix(mark))
    # a number alone says only which place the exporter gave it: input_1 and output_1 need not be one state
    return {stem for stem in stems if re.search(r"[^\W\d_]", stem)}


def _alike(before: Value, after: Value) -> bool:
    """Returns True if both could be the same tensor: dtype, rank and fixed sizes agree."""
    if before.dtype != after.dtype:
        return False
    if before.dims is None or after.dims is None:
        return True
    if len(before.dims) != len(after.dims):
        return False
    pairs = zip(before.dims, after.dims, strict=True)
    return all(not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in pairs)
