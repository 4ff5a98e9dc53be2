"""Cells as ONNX bundles, and how the server's metrics distinguish a live state from a collapsed one."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families

from examples.serving import served

from .cell import STATE_SIZE, SteadyCell
from .events import NONE, SYMBOLS, draw_streams
from .measure import SETTLED_STEPS, readout

STEPS, SESSIONS = 100, 16
NORM, CHANGE = "cellkeeper_state_norm", "cellkeeper_state_relative_change"

Buckets = Mapping[str, Sequence[float]]


def save(cell: SteadyCell, name: str, folder: Path) -> None:
    """Writes the bundle, replacing an existing one. Its prediction: the probe's score of each symbol."""
    config = {
        "format": "cellkeeper-bundle/1",
        "name": name,
        "cell": "onnx",
        "graph": "model.onnx",
        "layout": "step",
        "input": {"kind": "features", "name": "x", "size": SYMBOLS},
        "states": [{"name": "s", "input": "s", "output": "s_after", "shape": [STATE_SIZE], "batch_axis": 0}],
        "outputs": [{"name": "prediction", "output": "scores", "shape": [SYMBOLS]}],
    }
    if folder.exists():
        shutil.rmtree(folder)
    write_bundle(folder, config, {"initial.s": np.zeros(STATE_SIZE, np.float32)}, graph=graph(cell))


def graph(cell: SteadyCell) -> bytes:
    """Returns one time step of the cell, with the probe: x [B, SYMBOLS], s [B, STATE_SIZE] -> scores, s_after."""
    probe = readout(cell)
    weights = {
        "onward": cell.onward,
        "inward": cell.inward,
        "bias": cell.bias,
        "probe_weight": probe.weight,
        "probe_bias": probe.bias,
    }
    nodes = [
        helper.make_node("MatMul", ["s", "onward"], ["carried"]),
        helper.make_node("MatMul", ["x", "inward"], ["pushed"]),
        helper.make_node("Add", ["pushed", "bias"], ["biased"]),
        helper.make_node("Add", ["s", "carried"], ["kept"]),
        helper.make_node("Add", ["kept", "biased"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["s_after"]),
        helper.make_node("MatMul", ["s_after", "probe_weight"], ["read"]),
        helper.make_node("Add", ["read", "probe_bias"], ["scores"]),
    ]

    def value(name: str, size: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size])

    made = helper.make_graph(
        nodes,
        "steady",
        [value("x", SYMBOLS), value("s", STATE_SIZE)],
        [value("scores", SYMBOLS), value("s_after", STATE_SIZE)],
        [numpy_helper.from_array(tensor.detach().numpy(), name) for name, tensor in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def serve(bundles: Mapping[str, Path], sessions: int = SESSIONS) -> dict[str, Any]:
    """Streams the same inputs through each model, by name. Returns what clients read, and what /metrics shows.

    It makes one step at a time: the server samples one session's state in every 64th engine call.
    """
    streams = draw_streams(torch.Generator().manual_seed(97), STEPS, sessions)
    latest, inputs = streams.latest.numpy(), streams.inputs.numpy()
    with served(*bundles.values()) as (client, _, metrics_url):
        results: dict[str, Any] = {}
        for model in bundles:
            columns = [
                np.stack(list(client.session(f"s-{i}", model=model).stream(inputs[:, i], window=1)))
                for i in range(sessions)
            ]
            right = np.stack(columns, axis=1).argmax(axis=2) == latest
            results[model] = {"latest": float(right[SETTLED_STEPS:][latest[SETTLED_STEPS:] != NONE].mean())}
        with urllib.request.urlopen(metrics_url, timeout=30) as reply:
            text = reply.read().decode()
    for model, result in results.items():
        for name in (NORM, CHANGE):
            result[name] = histogram(text, name, model)
    return results


def histogram(text: str, name: str, model: str) -> dict[str, list[float]]:
    """Returns a histogram.

    upto: the buckets' upper bounds, without the infinite one. count: the values in each bucket and above the last.
    """
    bounds, counts = [], []
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name == name else ():
            if sample.name == f"{name}_bucket" and sample.labels["model"] == model:
                bounds.append(float(sample.labels["le"]))
                counts.append(sample.value)
    return {"upto": bounds[:-1], "count": np.diff(counts, prepend=0.0).tolist()}


def share_below(found: Buckets, bound: float) -> float:
    """Returns the share of a histogram's values that are at most `bound`, one of its buckets' upper bounds."""
    counted = sum(n for upto, n in zip(found["upto"], found["count"], strict=False) if upto <= bound * 1.0001)
    return counted / sum(found["count"])
