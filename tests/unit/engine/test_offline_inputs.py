"""Offline runs refuse what the service refuses: values that would broadcast, wrap around or be cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.engine.load import offline
from cellkeeper_service.errors import StartError

from testing.bundles import make_bundle
from tests.unit.engine.cases import bundle_of, engine_of, inputs_of


@pytest.mark.parametrize(
    ("case", "inputs", "words"),
    [
        ("lstm", np.ones((5, 1)), r"got shape \[5, 1\], expected \[T, 3\]"),
        ("lstm", np.ones(1), r"got shape \[1\], expected \[T, 3\]"),
        ("lstm", np.ones((5, 1, 3)), r"got shape \[5, 1, 3\], expected \[T, 3\]"),
        ("lstm", 1.0, r"got shape \[\], expected \[T, 3\]"),
        ("lstm", [["1", "2", "3"]], "got dtype <U1, expected numbers"),
        ("lstm", {"x": np.ones((5, 3))}, r"got \['x'\], expected an array: the model has one input"),
        ("lstm", np.full((2, 3), 1e39), "got 1e[+]39 at time step 0, feature 0, expected finite values of float32"),
        ("hold", [[0, 0, 0], [0, np.inf, 0]], "got inf at time step 1, feature 1, expected finite values .* or NaN$"),
        ("tokens", [3, 11], "got 11 at time step 1, expected integers of 0 to 10"),
        ("tokens", [3, -1], "got -1 at time step 1"),
        ("tokens", [1.5], "got 1.5 at time step 0"),
        ("tokens", [1 << 32], "got 4294967296 at time step 0"),
    ],
)
def test_what_the_service_refuses(case: str, inputs: Any, words: str) -> None:
    with pytest.raises(StartError, match=f"^inputs: {words}"):
        offline(engine_of("onnxruntime", case), inputs)


def test_columns_are_taken_by_name(tmp_path: Path) -> None:
    """The client takes them by name, too: an offline run by position would compare with other inputs."""
    pandas: Any = pytest.importorskip("pandas")
    bundle = make_bundle(tmp_path / "m", input_size=2, feature_names=["flow", "pressure"])
    frame = pandas.DataFrame({"pressure": [2.0, 2.1], "flow": [0.5, 0.4]})
    expected = offline(bundle, np.array([[0.5, 2.0], [0.4, 2.1]]))["prediction"]
    np.testing.assert_array_equal(offline(bundle, frame)["prediction"], expected)
    words = r"inputs: got columns \['pressure', 'q'\], expected \['flow', 'pressure'\] in any order"
    with pytest.raises(StartError, match=words):
        offline(bundle, frame.rename(columns={"flow": "q"}))


@pytest.mark.parametrize("case", ["lstm", "tokens", "hold"])
def test_no_time_steps_leave_the_initial_state(case: str) -> None:
    engine = engine_of("onnxruntime", case)
    found = offline(engine, inputs_of(case, 0, 1)[:, 0])
    assert {output.name: (0, *output.shape) for output in engine.spec.outputs} == {
        name: values.shape for name, values in found.items() if "." not in name
    }
    states = b"".join(found[f"state.{state.name}"].tobytes() for state in engine.spec.states)
    assert states == bundle_of(case).initial_state


@pytest.mark.parametrize("case", ["lstm", "tokens"])
def test_other_dtypes_and_orders_of_bytes_and_axes(case: str) -> None:
    engine = engine_of("onnxruntime", case)
    inputs = inputs_of(case, 300, 1)[:, 0]
    expected = offline(engine, inputs)["prediction"]
    for other in (inputs.astype(np.float64), inputs.astype(inputs.dtype.newbyteorder(">")), np.asfortranarray(inputs)):
        np.testing.assert_array_equal(offline(engine, other)["prediction"], expected)
