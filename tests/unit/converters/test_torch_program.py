"""torch.export programs, imported through ONNX."""

from __future__ import annotations

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
