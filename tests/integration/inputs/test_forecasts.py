"""Forecasts of a model with several inputs: the prediction becomes some of them, and the caller supplies the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper import Client, InvalidArgument
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.engine.load import offline

from testing.server_process import ServerProcess
from testing.two_inputs import Array, part, random_steps
from tests.integration.rpc.calls import Api

from .test_wire import tensors

GIVEN, ROLLED = 3, 4
INPUTS = random_steps(GIVEN, 11)
KNOWN = {"ids": np.array([4, 0, 2, 1])}


@pytest.fixture(scope="module")
def expected(two_inputs: Path) -> Array:
    """The outputs with (prediction[2], prediction[0], prediction[1]) fed back as audio by hand."""
    inputs = {name: list(values) for name, values in INPUTS.items()}
    for ids in KNOWN["ids"]:
        last = offline(two_inputs, {name: np.array(values) for name, values in inputs.items()})["prediction"][-1]
        inputs["audio"].append(last[[2, 0, 1]])
        inputs["ids"].append(ids)
    return offline(two_inputs, {name: np.array(values) for name, values in inputs.items()})["prediction"]


def test_a_session_forecasts_and_stays_where_it_is(client: Client, session: str, expected: Array) -> None:
    opened = client.session(session, model="fed")
    assert opened.model.input_feedback == (("audio", (2, 0, 1)),)
    got = opened.forecast(part(INPUTS, slice(0, GIVEN)), steps=ROLLED, known=KNOWN)
    np.testing.assert_array_equal(got, expected, strict=True)
    assert opened.position.step == 0


def test_a_group_forecasts(client: Client, session: str, expected: Array) -> None:
    ids = [f"{session}-{number}" for number in range(2)]
    group = client.group(ids, model="fed")
    got = group.forecast([INPUTS, INPUTS], steps=ROLLED, known=dict.fromkeys(ids, KNOWN))
    np.testing.assert_array_equal(got, np.stack([expected, expected]), strict=True)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (None, "known: got none, expected 4 time steps of each of ids"),
        ({"ids": [1, 2]}, "known: got 2 time steps, expected 4 time steps of each of ids"),
        ({"ids": 1}, "known: got a single time step without a time axis, expected 4 time steps"),
        ({"ids": [1, 2, 3, 9]}, r"known\[ids\]: got token id 9, expected 0\.\.4"),
        (
            {"ids": [0] * 4, "audio": np.zeros((4, 3))},
            "known: got 'audio', which is not one of them, expected a dict with each of ids",
        ),
        ([1, 2, 3, 4], "known: got list, expected a dict with each of ids"),
    ],
)
def test_what_the_caller_supplies_is_checked_by_name(client: Client, session: str, known: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        client.session(session, model="fed").forecast(INPUTS, steps=ROLLED, known=known)


Change = Callable[[pb.StepRequest], object]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda m: m.ClearField("rollout_named_inputs"),
            "rollout_named_inputs: got none; ids is missing, expected each of",
        ),
        (lambda m: m.rollout_named_inputs.add(name="audio"), "'audio' is unknown, expected each of ids once"),
        (lambda m: setattr(m, "rollout_inputs", b"1"), "rollout_inputs: got 1 bytes, expected `rollout_named_inputs`"),
        (lambda m: setattr(m, "rollout_steps", 3), "rollout_named_inputs[ids].shape: got [4], expected 3 time steps"),
        (
            lambda m: setattr(m, "rollout_steps", 0),
            "rollout_inputs: got 0 bytes, 1 tensors, expected none: nothing is forecast",
        ),
        (
            lambda m: setattr(m.rollout_named_inputs[0], "data", b"\5" + bytes(31)),
            "rollout_named_inputs[ids]: got 5 at time step 0, expected integers of 0 to 4",
        ),
    ],
)
def test_fields_of_a_forecast_are_refused_by_name(
    served: ServerProcess, session: str, change: Change, says: str
) -> None:
    message = pb.StepRequest(
        model="fed",
        session=session,
        named_inputs=tensors(INPUTS),
        peek=True,
        rollout_steps=ROLLED,
        rollout_named_inputs=tensors(KNOWN),
    )
    with served.channel() as channel:
        api = Api(served.stub(channel), "fed")
        api.open(session)
        assert api.send_step(message).code == "OK"
        change(message)
        refused = api.send_step(message)
    assert refused.code == "INVALID_ARGUMENT"
    assert says in refused.message, refused.message
