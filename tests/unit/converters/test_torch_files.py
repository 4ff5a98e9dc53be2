"""Files of PyTorch's weights: what describes them, and those that lie or hold code."""

from __future__ import annotations

import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from cellkeeper_service.converters import ImportRefused, import_torch
from safetensors.torch import save_file
from torch import nn

from verification.parity.torch_cases import Forecaster

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def test_the_weights_of_a_single_lstm_need_no_description(tmp_path: Path) -> None:
    save_file(nn.LSTM(3, 8, 2).state_dict(), tmp_path / "w.safetensors")
    assert import_torch(tmp_path / "w.safetensors", tmp_path / "m", **QUICK).bundle.config.name == "m"
    save_file(nn.RNN(3, 8).state_dict(), tmp_path / "r.safetensors")  # tanh or relu?
    refused(tmp_path, "pass layers", import_torch, tmp_path / "r.safetensors", tmp_path / "r")


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (None, "do not show their order and the activations; pass layers"),
        ("lstm=rnn", "tensor head.bias: belongs to none of the layers lstm=rnn"),
        ("gru=rnn dense=head", "weight_ih: got shape|weight_ih: got 192 rows|weight_hh"),
        ("lstm=rnn dense=heads", r"dense=heads: no tensor's name begins with heads\.; the names begin with head, rnn"),
        ("lstm=rnn tied=head", "no embedding before it"),
        ("lstm=rnn swish dense=head", "layers: got 'swish'"),
        ("lstm:rnn", "layers: got 'lstm:rnn'"),
        ("lstm=rnn leaky_relu dense=head", "layers: got 'leaky_relu', expected its slope with it"),
        ("lstm=rnn leaky_relu:x dense=head", "layers: got 'leaky_relu:x', expected a number"),
        ("lstm=rnn layer_norm=head:nan", "layers: got 'layer_norm=head:nan', expected a number"),
        (" ", "layers: got none"),
    ],
)
def test_a_description_that_does_not_fit(layers: str | None, words: str, tmp_path: Path) -> None:
    save_file(Forecaster().state_dict(), tmp_path / "w.safetensors")
    refused(tmp_path, words, import_torch, tmp_path / "w.safetensors", tmp_path / "m", layers=layers)


def test_an_activation_with_a_number(tmp_path: Path) -> None:
    modules = nn.ModuleDict({"rnn": nn.GRU(3, 8), "head": nn.Linear(8, 2)})
    save_file(modules.state_dict(), tmp_path / "w.safetensors")
    for number, layers in enumerate(("gru=rnn elu:0.5 dense=head", "gru=rnn dense=head leaky_relu:0.2 elu:1.5")):
        imported = import_torch(tmp_path / "w.safetensors", tmp_path / f"m{number}", layers=layers, **QUICK)
        assert imported.parity.relative < 1e-5


def test_names_of_one_layer_may_begin_with_those_of_another(tmp_path: Path) -> None:
    modules = nn.ModuleDict({"rnn": nn.GRU(3, 8), "norm": nn.LayerNorm(8)})
    modules["norm"].head = nn.Linear(8, 2)
    save_file(modules.state_dict(), tmp_path / "w.safetensors")
    layers = "gru=rnn layer_norm=norm dense=norm.head"
    imported = import_torch(tmp_path / "w.safetensors", tmp_path / "m", layers=layers, **QUICK)
    assert imported.parity.relative < 1e-5


class Trap:
    """An object that creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self._path, "w"))


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.pt"
    torch.save({"weight": Trap(tmp_path / "sprung")}, hostile)
    refused(tmp_path, "not only weights", import_torch, hostile, tmp_path / "m", layers="lstm=")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refused(tmp_path, "neither a safetensors file", import_torch, tmp_path / "plain.pt", tmp_path / "m")
    torch.save(Forecaster(), tmp_path / "whole.pt")
    refused(tmp_path, "not only weights", import_torch, tmp_path / "whole.pt", tmp_path / "m")
    assert not (tmp_path / "sprung").exists()


def test_a_file_of_an_old_torch_says_how_to_write_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.LSTM(3, 8).state_dict(), "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ImportRefused, match=r"as PyTorch wrote it before 1\.6") as refusal:
        import_torch("old.pt", "m")
    (advice,) = re.findall(r"torch\.save\(.*'new\.pt'\)", str(refusal.value))
    exec(advice, {"torch": torch})
    assert import_torch("new.pt", "m", max_batch=8, report=str).parity.relative < 1e-5


def test_files_that_are_none_or_lie(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save(nn.LSTM(3, 8).state_dict(), whole)
    data = whole.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    refused(tmp_path, "not a zip file of torch.save", import_torch, tmp_path / "cut.pt", tmp_path / "m")
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path, "got 0 bytes", import_torch, tmp_path / "empty", tmp_path / "m")
    refused(tmp_path, "no such file", import_torch, tmp_path / "nowhere", tmp_path / "m")
    refused(tmp_path, "is a folder, expected a file", import_torch, tmp_path, tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * 10_000_000)
    refused(
        tmp_path, "compressed, expected uncompressed, as torch.save", import_torch, tmp_path / "bomb.pt", tmp_path / "m"
    )
    state = nn.LSTM(3, 8).state_dict()
    torch.save({**state, "weight_ih_l0": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "wide.pt")
    refused(tmp_path, "more than the file holds", import_torch, tmp_path / "wide.pt", tmp_path / "m")
    torch.save([1, 2], tmp_path / "list.pt")
    refused(tmp_path, "holds list, expected tensors by name", import_torch, tmp_path / "list.pt", tmp_path / "m")


@pytest.mark.parametrize("model", [{}, {"rnn.weight_ih_l0": [1.0]}, [], 3], ids=str)
def test_without_torch_only_files_are_read(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(nn.LSTM(3, 4).state_dict(), tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)
    words = f"^model: got {type(model).__name__}: needs torch, which is not installed; install cellkeeper"
    refused(tmp_path, words, import_torch, model, tmp_path / "m", report=str)
    words = "^example: got one with PosixPath, expected it with a torch module only"
    refused(tmp_path, words, import_torch, tmp_path / "w.safetensors", tmp_path / "m", example=(1.0,), report=str)
    imported = import_torch(tmp_path / "w.safetensors", tmp_path / "m", report=str, max_batch=2)
    assert "torch is not installed" in imported.parity.source
