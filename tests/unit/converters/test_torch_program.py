"""torch.export programs, imported through ONNX."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cellkeeper_service.converters import import_torch
from cellkeeper_service.converters.torch.program import rename
from cellkeeper_service.engine.load import offline
from onnx import parser
from torch import Tensor, nn

from verification.parity.torch_cases import Step, torch_cases

from .leftovers import refused


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_a_program_with_a_path_around_its_cell(tmp_path: Path) -> None:
    (case,) = [case for case in torch_cases() if case.title.startswith("torch.export program")]
    imported = case.run(tmp_path / "m", 8)
    assert imported.parity.source.endswith("(exported program)")
    assert imported.parity.relative < 1e-5
    assert imported.parity.exact
    assert [state.name for state in imported.bundle.spec.states] == ["h", "c"]


@pytest.mark.filterwarnings("ignore")
def test_states_that_are_not_the_programs(tmp_path: Path) -> None:
    example = (torch.randn(2, 3), torch.zeros(2, 16), torch.zeros(2, 16))
    program = torch.export.export(Step().eval(), example)
    words = "got 3 inputs, 3 outputs and the states .*, expected"
    refused(tmp_path, words, import_torch, program, tmp_path / "m", states=("h",))
    refused(tmp_path, words, import_torch, program, tmp_path / "m")


CODE = """
import torch


class Step(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.GRUCell(3, 4)
        self.head = torch.nn.Linear(4, 1)

    def forward(self, x, h):
        h = self.cell(x.clamp(-3, 3), h)
        return self.head(h), h
"""


@pytest.mark.filterwarnings("ignore")
def test_a_model_is_the_same_wherever_its_code_is(tmp_path: Path) -> None:
    """The fingerprint, by which sessions know their model, must not depend on the folder."""
    bundles = []
    for name in ("one", "another"):
        (folder := tmp_path / name).mkdir()
        (folder / "code.py").write_text(CODE)
        made = runpy.run_path(str(folder / "code.py"), run_name=name)["Step"]()
        made.load_state_dict({key: torch.full_like(value, 0.1) for key, value in made.state_dict().items()})
        batch = torch.export.Dim("batch", min=1, max=64)
        example = (torch.randn(2, 3), torch.zeros(2, 4))
        program = torch.export.export(made.eval(), example, dynamic_shapes=({0: batch}, {0: batch}))
        bundles.append(import_torch(program, folder / "m", states=("h",)).bundle)
        assert str(tmp_path).encode() not in (folder / "m" / "model.onnx").read_bytes()
    assert bundles[0].spec.fingerprint == bundles[1].spec.fingerprint


class Called(nn.Module):
    """Its arguments have the names that the exporter gives to the results of operators."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.GRUCell(4, 8), nn.Linear(8, 2)

    def forward(self, cat: Tensor, mul: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
        linear = self.cell(torch.cat([cat * 2, mul], 1), linear)
        return self.head(linear), linear


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_arguments_that_are_called_like_operators(tmp_path: Path) -> None:
    model, x = Called(), np.random.default_rng(0).standard_normal((2, 5, 2)).astype(np.float32)
    example = (torch.zeros(1, 2), torch.zeros(1, 2))
    import_torch(model, tmp_path / "m", example=example, states=torch.zeros(1, 8), max_batch=4, report=str)
    h, expected = torch.zeros(1, 8), []
    with torch.no_grad():
        for cat, mul in zip(torch.from_numpy(x[0]), torch.from_numpy(x[1]), strict=True):
            y, h = model(cat[None], mul[None], h)
            expected.append(y[0].numpy())
    np.testing.assert_allclose(offline(tmp_path / "m", {"cat": x[0], "mul": x[1]})["prediction"], expected, atol=1e-5)


class Fed(Called):
    def forward(self, x: Tensor, prediction: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x, prediction, h)


@pytest.mark.filterwarnings("ignore")
def test_an_argument_that_is_called_like_an_output(tmp_path: Path) -> None:
    options: dict[str, Any] = {"example": (torch.zeros(1, 2), torch.zeros(1, 2)), "states": torch.zeros(1, 8)}
    words = "Fed: prediction: the name of two inputs, states or outputs; rename that argument"
    refused(tmp_path, words, import_torch, Fed(), tmp_path / "m", **options)


def test_names_reach_into_branches() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[2] a, bool b) => (float[2] c) <float[2] h = {1, 2}> {
            cat = Add(a, h)
            c = If (b) <then_branch = t () => (float[2] u) { u = Add(cat, a) }, else_branch = e () => (float[2] v) {
                v = Identity(cat)
            }>
        }"""
    )
    rename(model, {"a": "cat", "c": "h"})
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["cat", "b", "h"]


class Projected(nn.Module):
    """Layers of an encoder for speech: LSTMs with projections, each with a LayerNorm."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.LSTM(3, 16, 2, proj_size=5, bias=bias, batch_first=True)
        self.norm, self.second = nn.LayerNorm(5), nn.GRU(5, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.norm(self.first(x)[0]))[0]
        return y


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bias", [True, False])
def test_projections_beside_other_layers(bias: bool, tmp_path: Path) -> None:
    imported = import_torch(Projected(bias), tmp_path / "m", example=torch.zeros(1, 6, 3), max_batch=4, report=str)
    assert imported.parity.relative < 1e-5
    assert [(state.name, state.shape) for state in imported.bundle.spec.states] == [
        ("first_h", (2, 5)),
        ("first_c", (2, 16)),
        ("second_h", (1, 8)),
    ]
