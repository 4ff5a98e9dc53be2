"""`make bench-one-session`: what fixing the batch of an ONNX graph to one costs, compared with a free batch.

It runs the engine alone, time step by time step, on one CPU thread: it gathers, computes and scatters rows. The
service's own cost is the same for both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper, numpy_helper

FEATURES = 64
SESSIONS = (1, 4, 16, 64, 256)
BATCHES = ("free", "one")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.one_session", description=__doc__)
    parser.add_argument("--hidden", default="32,128,256", help="sizes of the LSTM, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="seconds of each measurement")
    options = parser.parse_args(words)
    sizes = [int(size) for size in options.hidden.split(",")]
    print(table({hidden: rates(hidden, options.rounds, options.seconds) for hidden in sizes}))


def rates(hidden: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Returns steps a second by batch, for each of SESSIONS: the best of the rounds, in which both take turns."""
    with tempfile.TemporaryDirectory(prefix="cellkeeper-bench-") as name:
        engines = {}
        for batch in BATCHES:
            folder, model = Path(name) / batch, graph(hidden, batch)
            engines[batch] = load_engine(write_bundle(folder, config(hidden, batch), {}, graph=model), "cpu")
            engines[batch].reserve(max(SESSIONS))
        best = {batch: [0.0] * len(SESSIONS) for batch in BATCHES}
        for _ in range(rounds):
            for i, count in enumerate(SESSIONS):
                for batch, engine in engines.items():
                    best[batch][i] = max(best[batch][i], rate(engine, count, seconds))
        return best


def rate(engine: Engine, sessions: int, seconds: float) -> float:
    rows = np.arange(sessions, dtype=np.intp)
    engine.write_states(rows, np.tile(np.frombuffer(engine.initial_state, np.uint8), (sessions, 1)))
    inputs = np.random.default_rng(0).standard_normal((1, sessions, FEATURES)).astype(np.float32)
    wanted, calls, started = frozenset(["prediction"]), 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        engine.run(inputs, rows, rows, wanted)
        calls += 1
    return calls * sessions / took


def graph(hidden: int, batch: str) -> bytes:
    """Returns an LSTM of one time step: (x [B, F], h [1, B, H], c [1, B, H]) -> (y [B, H], h_out, c_out)."""
    draw = np.random.default_rng(0)
    size: Any = "n" if batch == "free" else 1
    weights = {
        "W": draw.uniform(-0.1, 0.1, (1, 4 * hidden, FEATURES)).astype(np.float32),
        "R": draw.uniform(-0.1, 0.1, (1, 4 * hidden, hidden)).astype(np.float32),
        "axis0": np.array([0]),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis0"], ["sequence"]),
        helper.make_node("LSTM", ["sequence", "W", "R", "", "", "h", "c"], ["", "h_out", "c_out"], hidden_size=hidden),
        helper.make_node("Squeeze", ["h_out", "axis0"], ["y"]),
    ]
    shapes: dict[str, list[Any]] = {"x": [size, FEATURES], "h": [1, size, hidden], "c": [1, size, hidden]}
    results: dict[str, list[Any]] = {"y": [size, hidden], "h_out": [1, size, hidden], "c_out": [1, size, hidden]}
    taken, given = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in some.items()]
        for some in (shapes, results)
    )
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "g", taken, given, tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def config(hidden: int, batch: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"shape": [1, hidden], "batch_axis": 1} if batch == "free" else {"shape": [1, 1, hidden]}
    return {
        "format": "cellkeeper-bundle/1",
        "name": "m",
        "cell": "onnx",
        "graph": "model.onnx",
        "batch": batch,
        "layout": "step",
        "input": {"kind": "features", "name": "x", "size": FEATURES},
        "states": [{"name": name, "input": name, "output": f"{name}_out", **shape} for name in ("h", "c")],
        "outputs": [{"name": "prediction", "output": "y", "shape": [hidden]}],
    }


def table(found: dict[int, dict[str, list[float]]]) -> str:
    """Returns the table. found: steps a second by hidden size and batch, for each of SESSIONS."""
    lines = [
        "| LSTM, steps a second | " + " | ".join(f"{count} sessions" for count in SESSIONS) + " |",
        "|---|" + "---:|" * len(SESSIONS),
    ]
    for hidden, by_batch in found.items():
        for batch, title in (("free", "a free batch"), ("one", "one session a call")):
            cells = [f"{round(rate, -2):,.0f}" for rate in by_batch[batch]]
            lines.append(f"| 1x{hidden}, {title} | " + " | ".join(cells) + " |")
        ratios = [f"{free / one:.1f}x" for free, one in zip(by_batch["free"], by_batch["one"], strict=True)]
        lines.append(f"| 1x{hidden}, free beside one | " + " | ".join(ratios) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
