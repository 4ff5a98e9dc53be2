"""Errors travel: to another process (multiprocessing, concurrent.futures), and through copy."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import cellkeeper
import numpy as np
import pytest
from cellkeeper import CellkeeperError, GroupError, GroupReply, LateStep, Position, StepGap

AT = Position(bytes(16), 7, bytes(8))
KINDS = [kind for name in cellkeeper.__all__ if isinstance(kind := getattr(cellkeeper, name), type)]
ERRORS = [kind for kind in KINDS if issubclass(kind, CellkeeperError) and kind is not GroupError]
COPIES = [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("copied", COPIES)
def test_an_error_keeps_everything(kind: type[CellkeeperError], copied: Any) -> None:
    error = kind("what happened", reason="STEP_GAP", field="inputs", position=AT, retry_delay_ms=5)
    error.late_step = LateStep(AT, 1)
    other: CellkeeperError = copied(error)
    assert type(other) is kind
    assert str(other) == str(error)
    assert (other.reason, other.field, other.position, other.retry_delay_ms) == ("STEP_GAP", "inputs", AT, 5)
    assert other.late_step is not None
    assert other.late_step.position == AT


@pytest.mark.parametrize("copied", COPIES)
def test_that_of_a_group_too(copied: Any) -> None:
    outputs = {"prediction": np.ones((1, 2), np.float32)}
    errors = {"a": StepGap("lost", reason="STEP_GAP", position=AT)}
    reply = GroupReply(("b",), outputs, errors)
    error = GroupError("step", errors, ["b"], outputs=outputs, reply=reply, group=object())
    other = copied(error)
    assert type(other) is GroupError
    assert (str(other), other.message, other.ids) == (str(error), error.message, ("b",))
    assert other.errors["a"].position == AT
    assert other.outputs["prediction"].tolist() == [[1, 1]]
    assert other.reply.ids == ("b",)
    assert other.group is (error.group if copied is copy.copy else None)
