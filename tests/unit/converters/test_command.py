"""`cellkeeper-server import` as a process: its output, its exit status and its files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_service.converters.command import run_import
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.config import GraphConfig, Missing, RecurrentConfig
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

from tests.integration.program.launch import program
from verification.parity.onnx_cases import handmade_graph


def test_torch(tmp_path: Path) -> None:
    model = nn.ModuleDict({"rnn": nn.GRU(2, 8), "out": nn.Linear(8, 1)})
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    numbers = {"normalization": {"offset": [1, 2], "scale": [3, 4]}, "missing": {"policy": "hold", "value": [1.5, 2.5]}}
    (tmp_path / "p.json").write_text(json.dumps({**numbers, "output": [{"op": "scale", "value": 10}]}))
    words = ["--layers", "gru=rnn dense=out", "--name", "pump", "--processing", tmp_path / "p.json"]
    ended = program("import", "torch", tmp_path / "w.safetensors", tmp_path / "m", *words)
    assert (ended.status, ended.err) == (0, "")
    assert "model pump, gru 1x8; takes 2 features, gives 1 values" in ended.out
    assert "largest difference" in ended.out
    config = read_bundle(tmp_path / "m").config
    assert isinstance(config, RecurrentConfig)
    assert config.output[0].value == 10.0
    assert getattr(config.input, "missing", None) == Missing("hold", (1.5, 2.5))


def test_onnx(tmp_path: Path) -> None:
    (tmp_path / "bank.onnx").write_bytes(handmade_graph())
    save_arrays({"gain": np.ones(6, np.float32)}, str(tmp_path / "c.safetensors"))
    words = [
        "--constant",
        "rate=16000",
        "--constants",
        tmp_path / "c.safetensors",
        "--states",
        "state=stateN,peak=peak_out",
    ]
    ended = program("import", "onnx", tmp_path / "bank.onnx", tmp_path / "m", *words)
    assert (ended.status, ended.err) == (0, "")
    assert "difference 0.00e+00" in ended.out
    assert isinstance(read_bundle(tmp_path / "m").config, GraphConfig)


def test_refusals_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "bank.onnx").write_bytes(handmade_graph())
    (tmp_path / "p.json").write_text('{"normalisation": {}}')
    for name in ("zip.pt", "a.keras"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("any/data.pkl", b"")
    target = tmp_path / "m"
    for words, text in (
        (["onnx", tmp_path / "bank.onnx", target], "input: ['x', 'gain', 'rate'] are neither states nor constants"),
        (["onnx", tmp_path / "bank.onnx", target, "--states", "state"], "--states: got 'state', expected NAME=VALUE"),
        (["onnx", tmp_path / "bank.onnx", target, "--constant", "rate=fast"], "--constant: rate: got 'fast'"),
        (["keras", tmp_path / "bank.onnx", target], "neither a .keras file (zip) nor a .h5 file"),
        (["torch", tmp_path / "bank.onnx", target], "neither a safetensors file"),
        (
            ["torch", tmp_path / "bank.onnx", target],
            "`cellkeeper-server import onnx`, or import_onnx, reads such a file",
        ),
        (
            ["keras", tmp_path / "bank.onnx", target],
            "`cellkeeper-server import onnx`, or import_onnx, reads such a file",
        ),
        (["onnx", tmp_path / "zip.pt", target], "`cellkeeper-server import torch`, or import_torch, reads such a file"),
        (
            ["keras", tmp_path / "zip.pt", target],
            "`cellkeeper-server import torch`, or import_torch, reads such a file",
        ),
        (
            ["torch", tmp_path / "a.keras", target],
            "`cellkeeper-server import keras`, or import_keras, reads such a file",
        ),
        (["torch", tmp_path / "bank.onnx", target, "--processing", tmp_path / "p.json"], "normalisation: unknown key"),
    ):
        with pytest.raises(StartError) as caught:
            run_import([str(word) for word in words])
        assert text in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras", "bank.onnx", "p.json", "zip.pt"]

    line = program("import", "onnx", tmp_path / "bank.onnx", target).line
    assert "are neither states nor constants" in line


@pytest.mark.parametrize("words", [[], ["jax", "a", "b"], ["onnx", "a"], ["torch", "a", "b", "--lay=x"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_import(words)
    assert capsys.readouterr().err.startswith("usage: cellkeeper-server import")
