"""Finite inputs with a result that is not finite: only that session is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper, numpy_helper

from testing.bundles import counting_bundle
from tests.unit.engine.cases import each_engine, new_engine, start_rows

from .test_user_graph import config_of, model_bytes

ROWS = np.arange(4, dtype=np.intp)


@each_engine
def test_a_state_that_overflows_is_reported_alone(kind: str, tmp_path: Path) -> None:
    engine = new_engine(kind, read_bundle(counting_bundle(tmp_path / "m")))
    engine.reserve(4)
    start_rows(engine, ROWS)
    inputs = np.ones((2, 4, 1), np.float32)
    inputs[:, 2] = 3e38
    computed = engine.run(inputs, ROWS, ROWS, frozenset())
    assert computed.finite is not None
    assert computed.finite.tolist() == [True, True, False, True]
    assert engine.read_states(ROWS).view("<f4")[[0, 1, 3], 0].tolist() == [2.0, 2.0, 2.0]


@each_engine
def test_an_output_that_overflows_at_any_step_is_reported_alone(kind: str, tmp_path: Path) -> None:
    folder = counting_bundle(tmp_path / "m", output=[{"op": "exp"}])
    engine = new_engine(kind, read_bundle(folder))
    engine.reserve(4)
    start_rows(engine, ROWS)
    inputs = np.zeros((2, 4, 1), np.float32)
    inputs[:, 1, 0] = [100.0, -100.0]  # exp(100) is infinite, the state after it is 0
    computed = engine.run(inputs, ROWS, ROWS, frozenset(["prediction"]))
    assert computed.finite is not None
    assert computed.finite.tolist() == [True, False, True, True]
    assert computed.outputs["prediction"][:, [0, 2, 3]].ravel().tolist() == [1.0] * 6


@each_engine
def test_the_counting_model_counts(kind: str, tmp_path: Path) -> None:
    engine = new_engine(kind, read_bundle(counting_bundle(tmp_path / "m", features=3)))
    engine.reserve(4)
    start_rows(engine, ROWS)
    inputs = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    computed = engine.run(inputs, ROWS, ROWS, frozenset(["prediction"]))
    np.testing.assert_array_equal(computed.outputs["prediction"], inputs.cumsum(axis=0))


@pytest.mark.parametrize("batch", ["free", "one"])
def test_values_that_a_graph_s_own_dtypes_cannot_hold(batch: str, tmp_path: Path) -> None:
    """70,000 is no float16 and 1e300 no float32. They become infinite without a warning for each call."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Constant", [], ["gain"], value=numpy_helper.from_array(np.array(1e298))),
        helper.make_node("Mul", ["wide", "gain"], ["y"]),
        helper.make_node("Identity", ["total"], ["total_after"]),
    ]
    lead = "B" if batch == "free" else 1
    graph = model_bytes(
        nodes,
        {"x": [lead, 2], "total": [lead, 2]},
        {"y": [lead, 2], "total_after": [lead, 2]},
        x=TensorProto.FLOAT16,
        y=TensorProto.DOUBLE,
    )
    shape = [2] if batch == "free" else [1, 2]
    state = {"name": "total", "input": "total", "output": "total_after", "shape": shape}
    bundle = write_bundle(tmp_path / "m", config_of("step", states=[state], constants=[], batch=batch), {}, graph=graph)
    engine = load_engine(bundle, "cpu", 4)
    engine.reserve(4)
    start_rows(engine, ROWS)
    inputs = np.zeros((1, 4, 2), np.float32)
    inputs[0, 1], inputs[0, 2] = 70_000, 100
    computed = engine.run(inputs, ROWS, ROWS, frozenset(["prediction"]))
    assert computed.finite is not None
    assert computed.finite.tolist() == [True, False, False, True]
