"""docs/models.md has exactly one row for every architecture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from verification.parity.keras_cases import keras_cases
from verification.parity.onnx_cases import onnx_cases
from verification.parity.torch_cases import torch_cases

# Keras' own, on torch
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

PAGE = Path(__file__).parents[3] / "docs" / "models.md"


def test_the_table_has_every_case(keras: Any) -> None:
    rows = re.findall(r"^\| (torch|keras|onnx) \| (.+?) \|.*\| (\S+) \| exact", PAGE.read_text(), re.MULTILINE)
    cases = [*torch_cases(), *keras_cases(), *onnx_cases()]
    assert [row[:2] for row in rows] == [(case.framework, case.title) for case in cases]
    assert all(relative == "none" or float(relative) < 1e-5 for _, _, relative in rows)
    assert len(rows) >= 60


def test_the_table_says_on_which_processor_it_was_written() -> None:
    assert re.search(r"Compared with [^|]*, on \w+\+\w+", " ".join(PAGE.read_text().split()))
