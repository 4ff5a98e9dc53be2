"""Objects that an import does not take: one line says what it got, and what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cellkeeper_service.converters import import_keras, import_onnx, import_torch
from torch import Tensor, nn

from .leftovers import refused

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK: dict[str, Any] = {"max_batch": 4, "report": str}
LAYERS = "lstm=rnn dense=head"


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.rnn(x)[0])
        return result


class Residual(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.skip = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(x) + self.skip(x)
        return result


def renamed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in Plain().state_dict().items()}


def weight_norm(module: Any, name: str = "weight") -> Any:
    return nn.utils.weight_norm(module, name)


def normed_weights(norm: Callable[..., Any]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = nn.Sequential(nn.LSTM(3, 8), norm(nn.Linear(8, 1))).state_dict()
    return weights


NORMED = "merge it into one tensor first, with torch.nn.utils.remove_weight_norm"
PARAMETRIZED = nn.utils.parametrizations.weight_norm

OBJECTS: list[tuple[str, Callable[[], Any], dict[str, Any], str]] = [
    ("weight_norm", lambda: [weight_norm(nn.LSTM(3, 8), "weight_hh_l0")], {}, f"LSTM: WeightNorm .*{NORMED}"),
    ("parametrized", lambda: [nn.LSTM(3, 8), PARAMETRIZED(nn.Linear(8, 1))], {}, f"a parametrization .*{NORMED}"),
    ("spectral", lambda: [nn.LSTM(3, 8), nn.utils.spectral_norm(nn.Linear(8, 1))], {}, f"SpectralNorm .*{NORMED}"),
    (
        "in two parts",
        lambda: normed_weights(weight_norm),
        {"layers": "lstm=0 dense=1"},
        f"a part of 1.weight .*{NORMED}",
    ),
    ("original0", lambda: normed_weights(PARAMETRIZED), {"layers": "lstm=0 dense=1"}, f"a part of 1.weight .*{NORMED}"),
    ("module.", lambda: renamed("module."), {"layers": LAYERS}, r"nn.DataParallel.*save model.module.state_dict\(\)"),
    ("_orig_mod.", lambda: renamed("_orig_mod."), {"layers": LAYERS}, "torch.compile.*lstm=_orig_mod.rnn"),
    ("residual", Residual, {}, "Residual: dense=skip: .*does forward bypass some of them.*torch.export"),
    (
        "scripted",
        lambda: torch.jit.script(nn.Sequential(nn.Linear(3, 3))),
        {},
        "a TorchScript module.*pass its state_dict",
    ),
    ("no values", lambda: nn.LSTM(3, 8, device="meta"), {}, "weight_ih_l0: got no values"),
    ("complex", lambda: [nn.LSTM(3, 8), nn.Linear(8, 1, dtype=torch.complex64)], {}, "weight: got torch.complex64"),
    ("normalization", Plain, {"normalization": {"offset": [0.0]}}, "normalization: got dict, expected Normalization"),
    ("missing", Plain, {"missing": "hold"}, "missing: got str, expected Missing"),
    ("output", Plain, {"output": [{"op": "exp"}]}, r"output\[0\]: got dict, expected a list of Transform"),
    ("one output", Plain, {"output": 5}, r"output\[0\]: got int, expected a list of Transform"),
    ("initial_state", Plain, {"initial_state": np.zeros((1, 8))}, "initial_state: got ndarray, expected a tensor h"),
    ("feedback", Plain, {"feedback": [0, 1]}, r"^Plain: config.json: feedback: got \[0, 1\], expected 3 entries"),
    ("name", Plain, {"name": 3}, "name: got '3', expected a string"),
    ("tolerance", Plain, {"tolerance": "1e-4"}, "tolerance: got '1e-4', expected a number"),
]


@pytest.mark.parametrize(("model", "options", "words"), [case[1:] for case in OBJECTS], ids=[c[0] for c in OBJECTS])
def test_objects_for_torch(model: Callable[[], Any], options: dict[str, Any], words: str, tmp_path: Path) -> None:
    refusal = refused(tmp_path, words, import_torch, model(), tmp_path / "m", **options, **QUICK)
    assert str(tmp_path) not in str(refusal)


def test_objects_where_a_file_is_expected(tmp_path: Path) -> None:
    class Keras:
        def get_config(self) -> None: ...

        def named_parameters(self) -> None: ...  # a Keras model on torch is also a torch module

    words = r"got .*Keras, expected a .keras or .h5 file; save it with model.save\('model.keras'\)"
    refused(tmp_path, words, import_keras, Keras(), tmp_path / "m")
    refused(
        tmp_path, "LSTM, expected .*pass a torch module to import_torch", import_onnx, nn.LSTM(3, 8), tmp_path / "m"
    )
    refused(tmp_path, r"pass model.SerializeToString\(\)", import_onnx, onnx.ModelProto(), tmp_path / "m")
    refused(tmp_path, "NoneType, expected", import_keras, None, tmp_path / "m")
    refused(tmp_path, "is a folder, expected a file", import_keras, tmp_path, tmp_path / "m")
    refused(tmp_path, "cannot be written .*too long", import_torch, nn.LSTM(3, 8), tmp_path / ("n" * 300))
    refused(
        tmp_path, "missing: got dict, expected Missing", import_onnx, b"", tmp_path / "m", missing={"policy": "hold"}
    )


def test_files_of_torch_that_are_no_weights(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(3, 3))), tmp_path / "scripted.pt")
    torch.save(nn.LSTM(3, 8), tmp_path / "whole.pt")
    torch.save({"model": Plain(), "epoch": 3}, tmp_path / "checkpoint.pt")
    (tmp_path / "old.pt").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    told = {
        "scripted.pt": r"a TorchScript archive.*torch.jit.load, and save its state_dict\(\)",
        "whole.pt": r"it holds an object of torch.nn.modules.rnn.LSTM, .*save model.state_dict\(\)",
        "checkpoint.pt": r"an object of tests.unit.converters.test_told_apart.Plain, .*save model.state_dict\(\)",
        "old.pt": r"before 1\.6, expected a zip file; write it again, .*torch\.load\('old\.pt'",
    }
    for name, words in told.items():
        refusal = refused(tmp_path, words, import_torch, tmp_path / name, tmp_path / "m", layers=LAYERS, **QUICK)
        assert "\x1b" not in str(refusal)
        assert not str(refusal).endswith("...")


def test_programs_of_torch_export_with_nested_arguments(tmp_path: Path) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 8)

        def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            h = self.cell(x, state["h"])
            return h, {"h": h}

    class Flat(Nested):
        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor]]:  # type: ignore[override]
            h = self.cell(x, h)
            return h, (h,)

    batch = torch.export.Dim("batch", min=2, max=512)
    x, h = torch.zeros(2, 3), torch.zeros(2, 8)
    nested = torch.export.export(Nested(), (x, {"h": h}), dynamic_shapes=({0: batch}, {"h": {0: batch}}))
    flat = torch.export.export(Flat(), (x, h), dynamic_shapes=({0: batch}, {0: batch}))
    for program in (nested, flat):
        words = r"within tuples or dicts.*takes \(x, h, c\) and returns"
        refused(tmp_path, words, import_torch, program, tmp_path / "m", states=("h",), **QUICK)


def test_a_backend_of_keras_that_is_not_there(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    keras.Sequential([layers.Input((None, 2)), layers.GRU(4)]).save(tmp_path / "model.keras")
    for backend in ("tensorflow", "nonsense"):
        words = ["import", "keras", str(tmp_path / "model.keras"), str(tmp_path / backend)]
        program = [sys.executable, "-m", "cellkeeper_service", *words]
        ran = subprocess.run(
            program,
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert re.search(f"float64 reference .keras does not start with the backend {backend}: ", ran.stdout), (
            ran.stdout
        )


def test_serving_a_model_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_here: Callable[[list[str]], int]
) -> None:
    (tmp_path / "pump.keras").touch()
    assert run_here(["serve", str(tmp_path / "pump.keras")]) == 1
    told = capsys.readouterr().err
    assert "a file, expected the folder of a bundle; `cellkeeper-server import keras" in told
    assert len(told.splitlines()) == 1
