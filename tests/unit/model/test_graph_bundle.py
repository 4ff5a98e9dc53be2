"""Bundles of ONNX graphs: what belongs to the fingerprint, what is refused, and tensors in any layout of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.parsing import parse_config
from cellkeeper_service.model.write import write_bundle

from testing.bundles import bundle_config, random_tensors

from .graph_config import GRAPH


def test_the_fingerprint_is_of_the_graph_as_well(tmp_path: Path) -> None:
    found = {write_bundle(tmp_path / name, GRAPH, {}, graph=name.encode()).spec.fingerprint for name in ("a", "b")}
    assert len(found) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"input": {"kind": "features", "name": "x", "shape": [257, 256]}},
            r"input: shape: got .* with up to 65536",
        ),
        ({"input": {"kind": "features", "name": "x", "shape": [5]}}, r"input: shape: got .* two axes or more"),
        ({"states": []}, "states: got .* at least one"),
        ({"states": [{**GRAPH["states"][0], "name": "last_input"}]}, "states: got .* other than last_input"),
        ({"states": GRAPH["states"] * 2}, "states: got .* distinct names"),
        ({"outputs": []}, "outputs: got .* at least one"),
        (
            {"outputs": [{"name": "state.h", "output": "y", "shape": [2]}]},
            r"outputs: got .* other than state and",
        ),
        (
            {"outputs": [{"name": "state", "output": "y", "shape": [2]}]},
            r"outputs: got .* other than state and",
        ),
        ({"outputs": GRAPH["outputs"] * 2}, "outputs: got .* distinct names"),
        ({"constants": ["k", "k"]}, "constants: got .* distinct names"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(StartError, match=words):
        parse_config(GRAPH | changes)


def test_tensors_in_any_layout_of_memory(tmp_path: Path) -> None:
    """safetensors stores memory as it is, in the order of an array's first bytes."""
    config = bundle_config(num_layers=2, initial_state="learned")
    plain = random_tensors(config)
    strided = {name: np.repeat(value, 2, axis=-1)[..., ::2] for name, value in plain.items()}
    layouts = {
        "fortran": {name: np.asfortranarray(value) for name, value in plain.items()},
        "strided": strided,
        "backwards": {name: value[::-1].copy()[::-1] for name, value in plain.items()},
        "big-endian": {name: value.astype(">f4") for name, value in plain.items()},
        "wide": {name: np.asfortranarray(value.astype(np.float64)) for name, value in plain.items()},
    }
    for layout, tensors in layouts.items():
        found = write_bundle(tmp_path / layout, config, tensors).tensors
        for name, value in plain.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64"])
def test_initial_states_in_any_layout_of_memory(dtype: str, tmp_path: Path) -> None:
    start = np.arange(6).reshape(2, 3).astype(dtype)
    state = {"name": "h", "input": "h", "output": "hn", "shape": [2, 3], "dtype": dtype}
    for name, value in {"fortran": np.asfortranarray(start), "strided": np.repeat(start, 2, axis=1)[:, ::2]}.items():
        write_bundle(tmp_path / name, GRAPH | {"states": [state]}, {"initial.h": value}, graph=b"a graph")
        assert read_bundle(tmp_path / name).initial_state == start.tobytes()
