"""Bundles: what is written is read back, and each kind of damage is reported in one line."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import CONFIG_FILE, MAX_CONFIG_BYTES, WEIGHTS_FILE, read_bundle
from cellkeeper_service.model.config import Transform, config_json
from cellkeeper_service.model.parsing import parse_config
from cellkeeper_service.model.tensors import tensor_shapes
from cellkeeper_service.model.write import write_bundle
from safetensors.numpy import load_file, save_file

from testing.bundles import bundle_config, counting_bundle, make_bundle, random_tensors

TOKENS = {"kind": "tokens", "vocabulary": 9, "embedding_size": 3}
GRAPH: dict[str, Any] = {
    "format": "cellkeeper-bundle/1",
    "name": "m",
    "cell": "onnx",
    "graph": "model.onnx",
    "layout": "step",
    "input": {"kind": "features", "name": "x", "size": 2},
    "states": [{"name": "h", "input": "h", "output": "hn", "shape": [2]}],
    "outputs": [{"name": "y", "output": "y", "shape": [2]}],
}
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


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (["format"], "cellkeeper-bundle/2", "format: got 'cellkeeper-bundle/2', expected one of cellkeeper-bundle/1"),
        (["cell"], "transformer", "cell: got 'transformer', expected one of lstm, gru"),
        (["hidden_size"], 0, "hidden_size: got 0, expected a whole number from 1"),
        (["hidden_size"], True, "hidden_size: got True"),
        (["hidden_size"], 10**9, "hidden_size: got 1000000000"),
        (["num_layers"], "2", "num_layers: got '2'"),
        (["name"], "", "name: got ''"),
        (["bidirectional"], True, "bidirectional: got True, expected false: the backward direction"),
        (["proj_size"], 8, "proj_size: got 8, expected 0, or for an lstm less than hidden_size"),
        (["reset_after"], True, "reset_after: unknown key"),
        (["dropout"], 0.1, "dropout: unknown key, remove it"),
        (["initial_state"], "ones", "initial_state: got 'ones'"),
        (["input"], None, "input: got None, expected an object"),
        (["input", "kind"], "image", "input: kind: got 'image'"),
        (["input", "normalization"], {"offset": [0, 0, 0], "scale": [1, 0, 1]}, "normalization: scale: got 0.0"),
        (["input", "normalization"], {"offset": [0, 0], "scale": [1, 1, 1]}, "normalization: offset: got"),
        (["input", "normalization"], {"offset": [0, 0, float("nan")], "scale": [1, 1, 1]}, "offset: got"),
        (["input", "missing"], {"policy": "guess"}, "missing: policy: got 'guess'"),
        (["input", "missing"], {"policy": "hold", "value": 1e39}, "missing: value: got 1e+39"),
        (["input", "missing"], {"policy": "hold", "value": [1, 2]}, "value: got [1, 2], expected a list of 3 finite"),
        (
            ["input", "missing"],
            {"policy": "hold", "value": [1, 2, "3"]},
            "value: got [1, 2, '3'], expected a list of 3",
        ),
        (["input", "sampling"], 1, "input: sampling: unknown key"),
        (["head"], [{"units": 1, "activation": "celu"}], "head[0]: activation: got 'celu'"),
        (["head"], [{"activation": "relu"}], "head[0]: units: missing"),
        (["head"], "linear", "head: got 'linear'"),
        (["output"], [{"op": "exp"}, {"op": "log"}], "output[1]: op: got 'log'"),
        (["output"], [{"op": "scale"}], "output[0]: value: missing"),
        (["output"], [{"op": "scale", "value": [1, 2]}], "output[0]: value: got [1, 2]"),
        (["output"], [{"op": "exp", "value": 1}], "output[0]: value: unknown key"),
        (["output"], [{"op": "offset", "value": 10**400}], "output[0]: value: got 1000"),
    ],
)
def test_a_config_that_cannot_be_is_refused(path: list[str], value: Any, text: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    config = json.loads((folder / CONFIG_FILE).read_text())
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(StartError) as caught:
        read_bundle(folder)
    assert text in str(caught.value)
    assert str(folder / CONFIG_FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["format", "name", "cell", "input_size", "hidden_size", "input"])
def test_a_missing_key_is_named(key: str) -> None:
    value = config_json(bundle_config())
    del value[key]
    with pytest.raises(StartError, match=f"{key}: missing"):
        parse_config(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": "x", "format": "y"}',
        '"lstm"',
        "[" * 100_000,
        "\x00",
    ],
)
def test_a_config_that_is_not_an_object_is_refused(text: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(StartError, match=CONFIG_FILE):
        read_bundle(folder)


def test_an_absurd_config_is_not_read(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    (folder / CONFIG_FILE).write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(StartError, match="expected 1 to"):
        read_bundle(folder)


def test_sizes_that_no_file_has_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"hidden_size": 65_536, "num_layers": 64}))
    with pytest.raises(StartError, match=r"tensor rnn\.weight_ih_l1: missing, expected shape \[262144, 65536\]"):
        read_bundle(folder)
    state = {"name": "h", "input": "h", "output": "hn", "shape": [65_536, 65_536, 65_536]}
    (folder / CONFIG_FILE).write_text(json.dumps(GRAPH | {"states": [state]}))
    with pytest.raises(StartError, match=r"state of 1125899906842624 bytes, expected at most"):
        read_bundle(folder)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    (folder / file).unlink()
    with pytest.raises(StartError, match=f"{file}: cannot be read"):
        read_bundle(folder)
    with pytest.raises(StartError, match="no such folder"):
        read_bundle(tmp_path / "n")


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_file_elsewhere_is_not_followed(file: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    (folder / file).rename(tmp_path / "elsewhere")
    (folder / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match=f"{file}: points outside the bundle"):
        read_bundle(folder)


def test_every_damaged_byte_count_of_the_weights_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m", hidden_size=2)
    whole = (folder / WEIGHTS_FILE).read_bytes()
    for damaged in (whole[:-1], whole[:7], b"", whole + b"x", b"\xff" * 8 + whole[8:], whole[:8] + b"]" + whole[9:]):
        (folder / WEIGHTS_FILE).write_bytes(damaged)
        with pytest.raises(StartError, match=WEIGHTS_FILE):
            read_bundle(folder)


def test_every_tensor_is_needed_in_its_shape_and_dtype(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m", num_layers=2, head=(3, 1), initial_state="learned")
    file = folder / WEIGHTS_FILE
    tensors = load_file(file)
    shapes = tensor_shapes(bundle_config(num_layers=2, head=(3, 1), initial_state="learned"))
    assert tensors.keys() == shapes.keys()

    def refusal(**changes: Any) -> str:
        changed = {k.replace("__", "."): v for k, v in changes.items()}
        save_file({k: v for k, v in (tensors | changed).items() if v is not None}, file)
        with pytest.raises(StartError) as caught:
            read_bundle(folder)
        return str(caught.value)

    for name, tensor in tensors.items():
        key = name.replace(".", "__")
        assert f"tensor {name}: missing" in refusal(**{key: None})
        assert f"tensor {name}: got shape" in refusal(**{key: tensor[None]})
        assert f"tensor {name}: got dtype F64" in refusal(**{key: tensor.astype(np.float64)})
        spoilt = tensor.copy()
        spoilt.flat[-1] = np.inf
        assert f"tensor {name}: holds NaN or infinity" in refusal(**{key: spoilt})
    assert "tensor rnn.weight_ih_l0_reverse: not part of this model" in refusal(
        rnn__weight_ih_l0_reverse=tensors["rnn.weight_ih_l0"]
    )


@pytest.mark.parametrize("graph", ["../model.onnx", "/etc/passwd", ".hidden", "a/b.onnx", "a\\b", "model.onnx\x00"])
def test_a_graph_file_outside_is_refused(graph: str) -> None:
    with pytest.raises(StartError, match=r"graph: got .*expected the name of a file in the bundle, without a path"):
        parse_config(GRAPH | {"graph": graph})
    config = parse_config(GRAPH)
    assert parse_config(config_json(config)) == config


def test_the_counting_bundle(tmp_path: Path) -> None:
    bundle = read_bundle(counting_bundle(tmp_path / "m", features=2))
    assert bundle.spec.outputs[0].shape == (2,)
    assert bundle.initial_state == bytes(8)


@pytest.mark.parametrize("shape", [[1] * 9, [1] * 70, [0], [2, 0]])
def test_a_constant_of_no_shape_for_a_graph_is_refused(shape: list[int], tmp_path: Path) -> None:
    """NumPy has no arrays of 70 axes."""
    (tmp_path / CONFIG_FILE).write_text(json.dumps(GRAPH | {"constants": ["k"]}))
    (tmp_path / "model.onnx").write_bytes(b"not read yet")
    size = 4 * prod(shape)
    header = json.dumps({"constant.k": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    (tmp_path / WEIGHTS_FILE).write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(
        StartError, match=r"tensor constant\.k: got shape \[.*, expected at most 8 axes, none of length"
    ):
        read_bundle(tmp_path)


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
