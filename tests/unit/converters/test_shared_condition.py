"""Graphs with an If whose condition the sessions of a call decide together, for values that no trial draws."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import import_onnx
from cellkeeper_service.engine.load import advanced, load_engine
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.server.config import Settings
from cellkeeper_service.server.versions import load
from onnx import TensorProto, helper, numpy_helper

from .leftovers import refused
from .small_graphs import FEATURES, STEP, graph, node

RARE = np.array(1e30, np.float32)
"""A client can send more; trials do not."""


def _branch(operator: str) -> Any:
    way = helper.make_tensor_value_info("way", TensorProto.FLOAT, None)
    return helper.make_graph([node(operator, "x", "way")], operator, [], [way])


GRAPH = graph(
    [
        node("Constant", "", "rare", value=numpy_helper.from_array(RARE)),
        node("ReduceMax", "x", "largest", keepdims=0),
        node("Greater", "largest rare", "is_rare"),
        node("If", "is_rare", "y", then_branch=_branch("Neg"), else_branch=_branch("Tanh")),
        *STEP,
    ],
    layout="step",
)
NAMED = r"node 'If_y' \(If\) has a condition that the sessions of a call decide together.*--batch one"
SHARED = "model m: the sessions of a call decide the condition of node 'If_y' (If) together"


def test_is_refused_unless_the_caller_says_how_it_is_called(tmp_path: Path) -> None:
    refused(tmp_path, NAMED, import_onnx, GRAPH.model, tmp_path / "m", max_batch=4, report=str)


def test_nothing_is_asked_if_calls_have_one_session_anyway(tmp_path: Path) -> None:
    import_onnx(GRAPH.model, tmp_path / "m", max_batch=1, report=str)


@pytest.mark.parametrize(("batch", "apart"), [("one", True), ("free", False)])
def test_what_the_caller_says_is_served(batch: str, apart: bool, tmp_path: Path) -> None:
    import_onnx(GRAPH.model, tmp_path / "m", batch=batch, max_batch=4, report=str)
    engine = load_engine(tmp_path / "m", "cpu", 4)
    inputs = np.ones((1, 2, FEATURES), np.float32)
    before = advanced(engine, inputs, [1])["prediction"][:, 1]
    inputs[:, 0] = 2 * RARE
    after = advanced(engine, inputs, [1])["prediction"][:, 1]
    assert np.array_equal(before, after) == apart


@pytest.mark.parametrize(("batch", "max_batch", "warned"), [("free", 4, True), ("free", 1, False), ("one", 4, False)])
def test_a_server_warns_of_a_bundle_for_which_nothing_was_asked(
    batch: str, max_batch: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import_onnx(GRAPH.model, tmp_path / "m", batch=batch, max_batch=4, report=str)
    assert not caplog.records  # an import refuses, or was told
    load(read_bundle(tmp_path / "m"), Settings(models=(str(tmp_path / "m"),), device="cpu", max_batch=max_batch), {})
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.partition(", so")[0] for text in found] == [SHARED] * warned
