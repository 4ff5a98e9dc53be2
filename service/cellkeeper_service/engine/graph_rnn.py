"""Writes a layer of a vanilla RNN as a Scan over the time steps.

onnxruntime's own RNN operator computes tanh with a relative error of 7 % at 1e-6, and takes up to 3.7 times as long
(docs/adr/106-rnn-as-scan.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import helper

from cellkeeper_service.domain.engine import Array

from .graph_functions import write_activation
from .graph_writer import GraphWriter, Value, floats


def write_rnn(
    writer: GraphWriter,
    weights: Mapping[str, Array],
    activation: str,
    value: str,
    before: str,
    results: tuple[str, str],
) -> None:
    """Adds a layer [T, B, F] and its state [1, B, H] -> [T, 1, B, H] and the new state, named `results`.

    weights: weight_ih, weight_hh, and bias_ih and bias_hh or neither. activation: its name in config.json.
    """
    size, features = weights["weight_ih"].shape
    bias = weights["bias_ih"] + weights["bias_hh"] if "bias_ih" in weights else None
    into = writer.dense(Value(value, features, features), weights["weight_ih"], bias)
    state = writer.padded(Value(before, size, size))
    body = GraphWriter(prefix=f"{results[0]}_")
    old, given, new, output = (f"{results[0]}_step_{name}" for name in ("before", "input", "after", "output"))
    again = body.dense(Value(old, size, state.columns), weights["weight_hh"], None)
    total = again._replace(name=body.node("Add", [again.name, given]))
    after = write_activation(body, total, activation)
    body.node("Identity", [after.name], name=new)
    body.node("Identity", [after.name], name=output)
    columns = state.columns
    step = helper.make_graph(
        body.nodes,
        f"{results[0]}_step",
        [floats(old, 1, "B", columns), floats(given, "B", columns)],
        [floats(new, 1, "B", columns), floats(output, 1, "B", columns)],
        body.constants,
    )
    last, sequence = f"{results[1]}_padded", f"{results[0]}_padded"
    writer.nodes.append(
        helper.make_node("Scan", [state.name, into.name], [last, sequence], body=step, num_scan_inputs=1)
    )
    for name, result, axis in ((last, results[1], 2), (sequence, results[0], 3)):
        writer.node("Slice", [name, writer.axes(0), writer.axes(size), writer.axes(axis)], name=result)
