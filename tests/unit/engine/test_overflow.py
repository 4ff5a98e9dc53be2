"""Finite inputs with a result that is not finite: only that session is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cellkeeper_service.model.bundle import read_bundle

from testing.bundles import counting_bundle
from tests.unit.engine.cases import each_engine, new_engine, start_rows

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
