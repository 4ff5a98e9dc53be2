"""torch.export programs, imported through ONNX."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from cellkeeper_service.converters import import_torch

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
