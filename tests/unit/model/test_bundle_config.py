"""A config.json that cannot be is refused in one line, before anything is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import CONFIG_FILE, MAX_CONFIG_BYTES, read_bundle
from cellkeeper_service.model.config import config_json
from cellkeeper_service.model.parsing import parse_config

from testing.bundles import bundle_config, make_bundle

from .graph_config import GRAPH


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


@pytest.mark.parametrize("graph", ["../model.onnx", "/etc/passwd", ".hidden", "a/b.onnx", "a\\b", "model.onnx\x00"])
def test_a_graph_file_outside_is_refused(graph: str) -> None:
    with pytest.raises(StartError, match=r"graph: got .*expected the name of a file in the bundle, without a path"):
        parse_config(GRAPH | {"graph": graph})
    config = parse_config(GRAPH)
    assert parse_config(config_json(config)) == config
