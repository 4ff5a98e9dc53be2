"""Users' ONNX graphs on the real server give onnxruntime's bits, step by step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cellkeeper import Client
from cellkeeper_service.converters import Imported, import_onnx

from testing.bundles import Array
from testing.forked_server import ForkedServer
from verification.parity.onnx_cases import HANDMADE_CONSTANTS, carried_graph, handmade_graph

STEPS, SESSIONS = 24, 5


def by_hand(model: bytes, imported: Imported, inputs: Array, states: dict[str, str], **constants: Array) -> Array:
    """Returns the output "y" of one sequence [T, F]: one call per time step, in the server's smallest batch."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    filled = re.search(r"min_batch=(\d+)", imported.parity.numerics)
    batch = int(filled.group(1)) if filled else 1
    feeds: dict[str, Any] = dict(constants)
    ranks = {}
    for item in session.get_inputs():
        ranks[item.name] = len(item.shape)
        if item.name in states:
            feeds[item.name] = np.zeros([batch if isinstance(size, str) else size for size in item.shape], np.float32)
    rows = []
    for x in inputs:
        value = np.zeros((batch, len(x)), np.float32)
        value[0] = x
        feeds["x"] = value if ranks["x"] == 2 else value[:, None]
        y, *after = session.run(["y", *states.values()], feeds)
        feeds.update(zip(states, after, strict=True))
        rows.append(y[0].reshape(-1))
    return np.stack(rows)


@pytest.mark.parametrize("kind", ["torch.onnx", "by hand"])
def test_served_bits_are_onnxruntimes(kind: str, tmp_path: Path) -> None:
    states: dict[str, str]
    if kind == "by hand":
        model, constants, states = handmade_graph(), HANDMADE_CONSTANTS, {"state": "stateN", "peak": "peak_out"}
    else:
        model, constants, states = carried_graph(), {}, {"h0": "hn", "c0": "cn"}
    imported = import_onnx(model, tmp_path / "m", constants=constants, report=str)
    assert imported.parity.exact
    features = 2 if kind == "by hand" else 3
    inputs = np.random.default_rng(6).standard_normal((SESSIONS, STEPS, features)).astype(np.float32)
    served: list[list[Array]] = [[] for _ in range(SESSIONS)]
    with ForkedServer([tmp_path / "m"], f"sqlite:{tmp_path / 's.db'}") as server:
        for start, stop in ((0, 1), (1, 2), (2, 9), (9, 16), (16, STEPS)):
            if start == 9:  # the sessions survive it
                server.kill()
                server.restart()
            with Client(server.target) as client:
                for number in range(SESSIONS):
                    session = client.session(f"{kind} {number}")
                    served[number].append(np.atleast_2d(session.step(inputs[number, start:stop])))
    for number in range(SESSIONS):
        expected = by_hand(model, imported, inputs[number], states, **constants)
        np.testing.assert_array_equal(np.concatenate(served[number]), expected)
