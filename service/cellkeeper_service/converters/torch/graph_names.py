"""Names the inputs and outputs of an exported graph, whatever its inner values are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellkeeper_service.engine.batch_axis.shapes import graphs_within


def for_now(names: Sequence[str]) -> dict[str, str]:
    """Returns names for the exporter, and the name that each stands for.

    The exporter calls inner values after operators ("cat", "mul"). It gives inputs and outputs the names that it is
    told even if an inner value has them, and such a graph is invalid.
    """
    return {f"cellkeeper.{number}": name for number, name in enumerate(names)}


def rename(model: Any, names: Mapping[str, str]) -> None:
    """Renames values of an ONNX model; inner values that have one of the new names get another."""
    graphs = list(graphs_within(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    values = [
        value for graph in graphs for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    ]
    used = {name for node in nodes for name in (*node.input, *node.output)} | {value.name for value in values}
    changed = dict(names)
    taken = used | {*names.values()}
    for name in names.values():
        if name in used:
            other = next(f"{name}.{number}" for number in range(1, len(taken) + 2) if f"{name}.{number}" not in taken)
            changed[name] = other
            taken.add(other)
    for node in nodes:
        for side in (node.input, node.output):
            side[:] = [changed.get(name, name) for name in side]
    for value in values:
        value.name = changed.get(value.name, value.name)
