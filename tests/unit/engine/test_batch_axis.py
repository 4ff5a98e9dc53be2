"""The rules that follow the batch axis through a graph.

onnxruntime has the last word: if the analysis says that a graph keeps sessions apart, no value of another session
changes a row; if it says that the graph couples them, one does.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cellkeeper_service.engine.batch_axis.analysis import Independence, independence
from cellkeeper_service.model.config import Features, GraphConfig, GraphState
from onnx import helper, numpy_helper

from .batch_axis_cases import APART, BOOL, FLOAT, INT, Case, body, node
from .batch_axis_coupled import COUPLED, SHARED_CONDITION, UNDECIDED

SESSIONS = 3


def made(case: Case) -> Any:
    shape, axis, nodes = case
    draw = np.random.default_rng(5)
    known: dict[str, Any] = {
        "bias4": draw.standard_normal(4),
        "scale4": draw.uniform(0.5, 1, 4),
        "scale4_of2": draw.uniform(0.5, 1, 4),
        "bias4_of2": draw.standard_normal(4),
        "square4": draw.standard_normal((4, 4)),
        "table1": draw.standard_normal((1, 4)),
        "table3": draw.standard_normal((3, 3)),
        "table4": draw.standard_normal((4, 6)),
        "kernel4": draw.standard_normal((4, 4, 3)),
        "kernel3": draw.standard_normal((3, 3, 1)),
        "w": draw.standard_normal((1, 8, 4)),
        "r": draw.standard_normal((1, 8, 2)),
        "w3": draw.standard_normal((1, 6, 4)),
        "r3": draw.standard_normal((1, 6, 2)),
        "scales": [1.0, 1.0, 2.0],
        "halves2": [0.5, 1.5],
        "half": 0.5,
        "one_float": draw.uniform(0.5, 1, (SESSIONS, 4)),
    }
    constants = {name: np.asarray(value, np.float32) for name, value in known.items()}
    whole = {"one": 1, "zero": 0, "few": 3}
    constants |= {name: np.asarray(value, np.int64) for name, value in whole.items()}
    constants["yes"] = np.array(True)
    for each in nodes:
        constants |= {name: np.array(json.loads(name), np.int64) for name in each.input if name.startswith("[")}
    used = {name for each in nodes for name in _names(each)}
    batch: list[int | str] = [*shape[:axis], "B", *shape[axis:]]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["B", 1]), helper.make_tensor_value_info("h", FLOAT, batch)],
        [helper.make_tensor_value_info("out", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _names(each: Any) -> set[str]:
    bodies = [attribute.g for attribute in each.attribute if attribute.HasField("g")]
    return {*each.input, *(name for inner in bodies for one in inner.node for name in _names(one))}


def found(case: Case) -> Independence:
    shape, axis, _ = case
    state = GraphState("h", "h", "out", shape, axis)
    config = GraphConfig("m", "model.onnx", "step", "x", Features(1), (state,), (), ())
    return independence(made(case), config)


def reaches_another_row(case: Case) -> bool:
    """Returns True if changing one session's values changes another's row, for any pair of sessions."""
    shape, axis, _ = case
    session = onnxruntime.InferenceSession(made(case).SerializeToString(), providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(6)
    h = draw.standard_normal((*shape[:axis], SESSIONS, *shape[axis:])).astype(np.float32)

    def rows(values: Any) -> Any:
        feeds = {"x": np.zeros((SESSIONS, 1), np.float32), "h": values}
        given = {value.name: feeds[value.name] for value in session.get_inputs()}
        return np.moveaxis(session.run(["out"], given)[0], axis, 0)

    before = rows(h)
    for changed in range(SESSIONS):
        other = h.copy()
        np.moveaxis(other, axis, 0)[changed] *= -3.5
        after = rows(other)
        if any(not np.array_equal(before[row], after[row]) for row in range(SESSIONS) if row != changed):
            return True
    return False


@pytest.mark.parametrize("title", APART)
def test_a_graph_that_keeps_sessions_apart_is_proved(title: str) -> None:
    assert found(APART[title]) == Independence(True)
    assert not reaches_another_row(APART[title])


@pytest.mark.parametrize("title", COUPLED)
def test_a_graph_that_couples_sessions_is_found_with_its_node(title: str) -> None:
    case, words = COUPLED[title]
    verdict = found(case)
    assert not verdict.proved
    assert verdict.coupled is not None
    assert words in verdict.coupled.why
    assert verdict.output == "out"
    assert reaches_another_row(case)


@pytest.mark.parametrize("title", UNDECIDED)
def test_what_no_rule_decides_is_left_to_the_trial(title: str) -> None:
    assert found(UNDECIDED[title]) == Independence(False)


@pytest.mark.parametrize("title", SHARED_CONDITION)
def test_a_condition_that_sessions_decide_together_is_named(title: str) -> None:
    case = SHARED_CONDITION[title]
    operator = case[2][-1].op_type
    assert found(case) == Independence(False, shared_condition=f"'{operator}_out' ({operator})")


def test_without_a_batch_axis_in_the_output_nothing_is_proved() -> None:
    case = ((4,), 0, [node("Transpose", "h")])
    assert found(case) == Independence(False)


def test_the_reading_of_nested_loops_ends() -> None:
    """The analysis goes twice through each loop, and so through the loops inside it."""
    inner = [node("Tanh", "v", "u"), node("Exp", "w", "t")]
    for _ in range(30):
        turn = body(
            [("i", INT), ("go", BOOL), ("v", FLOAT), ("w", FLOAT)], [("go", BOOL), ("t", FLOAT), ("u", FLOAT)], *inner
        )
        inner = [node("Loop", "few - v w", "u t", body=turn)]
    outer = [node("Identity", "h", "v"), node("Identity", "one_float", "w"), *inner, node("Identity", "u")]
    assert found(((4,), 0, outer)) == Independence(False)
