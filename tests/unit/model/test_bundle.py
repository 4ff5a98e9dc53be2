"""Bundles: what is written is read back, with who may read it; and what is refused leaves nothing."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.config import Transform, config_json
from cellkeeper_service.model.parsing import parse_config
from cellkeeper_service.model.write import write_bundle

from testing.bundles import bundle_config, counting_bundle, make_bundle, random_tensors

TOKENS = {"kind": "tokens", "vocabulary": 9, "embedding_size": 3}
SHAPES: list[dict[str, Any]] = [
    {},
    {"cell": "gru", "reset_after": False, "num_layers": 3, "head": (4, 2)},
    {"cell": "rnn_relu", "bias": False, "head": ()},
    {"proj_size": 4, "initial_state": "learned"},
    {"head": (2,), "feedback": (1, "known", 1)},
    {"input_size": 6, "head": (9,), "feedback": "argmax", "input": {**TOKENS, "embedding_size": 6}},
    {"input_size": 6, "input": {"kind": "tokens", "vocabulary": 9, "embedding_size": 6}},
    {
        "input": {
            "kind": "features",
            "normalization": {"offset": [0.1, 2, 3.5], "scale": [1, -2, 1e-3]},
            "missing": {"policy": "hold", "value": -1.5},
        },
        "output": [{"op": "scale", "value": [2.5]}, {"op": "clip_min", "value": 0}, {"op": "expm1"}],
    },
    {"input": {"kind": "features", "missing": {"policy": "constant", "value": [0.1, 2, -3.5]}}},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip(shape: dict[str, Any], tmp_path: Path) -> None:
    config = bundle_config(**shape)
    tensors = random_tensors(config, 5)
    written = write_bundle(tmp_path / "m", config, tensors)
    read = read_bundle(tmp_path / "m")
    assert read.config == written.config == config
    assert parse_config(json.loads(json.dumps(config_json(config)))) == config
    assert read.spec == written.spec
    assert read.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)
    assert len(read.initial_state) == read.spec.state_bytes
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_each_feature_holds_its_own_value_before_its_first(tmp_path: Path) -> None:
    each = {"kind": "features", "missing": {"policy": "hold", "value": [0.5, 1.5, -2.0]}}
    bundle = read_bundle(make_bundle(tmp_path / "m", input=each))
    assert np.frombuffer(bundle.initial_state, "<f4")[-3:].tolist() == [0.5, 1.5, -2.0]


def test_one_value_for_all_features_is_written_as_ever(tmp_path: Path) -> None:
    """Otherwise an import that is repeated would give a bundle with another fingerprint."""
    for number, value in enumerate((0.5, 300)):
        config = bundle_config(input={"kind": "features", "missing": {"policy": "hold", "value": value}})
        written = write_bundle(tmp_path / str(number), config, random_tensors(config))
        assert (
            f'"missing": {{\n      "policy": "hold",\n      "value": {float(value)}\n    }}'
            in (tmp_path / str(number) / "config.json").read_text()
        )
        assert written.config == config


def test_specs(tmp_path: Path) -> None:
    hold = {"kind": "features", "missing": {"policy": "hold", "value": 0.5}}
    spec = read_bundle(make_bundle(tmp_path / "a", num_layers=2, head=(4,), input=hold)).spec
    assert (spec.input.dtype, spec.input.shape, spec.vocabulary, spec.missing_values) == ("float32", (3,), 0, True)
    assert [(state.name, state.shape) for state in spec.states] == [
        ("h", (2, 8)),
        ("c", (2, 8)),
        ("last_input", (3,)),
    ]
    assert [(output.name, output.shape) for output in spec.outputs] == [("prediction", (4,)), ("hidden", (8,))]
    tokens = {"kind": "tokens", "vocabulary": 9, "embedding_size": 3}
    spec = read_bundle(make_bundle(tmp_path / "b", cell="gru", input=tokens)).spec
    assert (spec.input.dtype, spec.input.shape, spec.vocabulary, spec.missing_values) == ("int32", (), 9, False)
    assert [state.name for state in spec.states] == ["h"]
    spec = read_bundle(make_bundle(tmp_path / "c", proj_size=5)).spec
    assert [(state.name, state.shape) for state in spec.states] == [("h", (1, 5)), ("c", (1, 8))]


def test_the_fingerprint_is_of_config_and_weights(tmp_path: Path) -> None:
    def fingerprint(folder: str, **options: Any) -> bytes:
        return read_bundle(make_bundle(tmp_path / folder, **options)).spec.fingerprint

    first = fingerprint("a")
    assert len(first) == 32
    assert fingerprint("b") == first
    assert fingerprint("c", seed=1) != first
    assert fingerprint("d", output=[{"op": "exp"}]) != first


def test_nothing_is_left_of_a_bundle_that_is_refused(tmp_path: Path) -> None:
    config = bundle_config()
    tensors = random_tensors(config)
    tensors["head.0.bias"] = np.array([np.nan])
    with pytest.raises(StartError, match=rf"^{tmp_path}/m/model\.safetensors: tensor head\.0\.bias: holds NaN"):
        write_bundle(tmp_path / "m", config, tensors)
    assert list(tmp_path.iterdir()) == []
    make_bundle(tmp_path / "m")
    with pytest.raises(FileExistsError):
        make_bundle(tmp_path / "m", seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e39, 10**400])
def test_a_number_that_no_float32_holds_is_refused_like_any_other(number: float, tmp_path: Path) -> None:
    config = replace(bundle_config(), output=(Transform("scale", number),))
    with pytest.raises(StartError, match=r"output\[0\]: value: got .*, expected a finite float32 number"):
        write_bundle(tmp_path / "m", config, random_tensors(config))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_the_umask_decides_who_may_read_a_bundle(umask: int, folder: int, file: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        path = counting_bundle(tmp_path / "m")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == folder
    assert {found.stat().st_mode & 0o777 for found in path.iterdir()} == {file}


def test_other_float_dtypes_are_stored_as_float32(tmp_path: Path) -> None:
    config = bundle_config()
    tensors = {name: value.astype(np.float64) for name, value in random_tensors(config).items()}
    bundle = write_bundle(tmp_path / "m", config, tensors)
    assert {value.dtype for value in bundle.tensors.values()} == {np.dtype(np.float32)}
    with pytest.raises(StartError, match=r"tensor rnn\.bias_ih_l0: got dtype int64"):
        write_bundle(tmp_path / "n", config, tensors | {"rnn.bias_ih_l0": np.zeros(32, np.int64)})


def test_the_counting_bundle(tmp_path: Path) -> None:
    bundle = read_bundle(counting_bundle(tmp_path / "m", features=2))
    assert bundle.spec.outputs[0].shape == (2,)
    assert bundle.initial_state == bytes(8)


@pytest.mark.parametrize("hidden_size", [2, 64])
def test_a_disk_that_is_too_small(hidden_size: int, tmp_path: Path) -> None:
    """For the configuration, or for the weights, of which safetensors reports it in its own error."""
    config = bundle_config(hidden_size=hidden_size)
    tensors = random_tensors(config)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 if hidden_size == 2 else 4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bundle(tmp_path / "m", config, tensors)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
