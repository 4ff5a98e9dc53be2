"""The reprs of the client's objects: one short line that says what the object is and where."""

from __future__ import annotations

import re

import numpy as np
import pytest
from cellkeeper import (
    AsyncClient,
    CarriedOver,
    CellkeeperError,
    Client,
    GroupReply,
    LateStep,
    Model,
    Position,
    SessionInfo,
    StepReply,
    TensorSpec,
)
from cellkeeper._session.group_call import GroupCall, GroupPart
from cellkeeper._session.group_history import GroupChunk
from cellkeeper._session.step_call import StepCall
from cellkeeper._transport.frame_codec import Frame

AT = Position(bytes(range(16)), 7, bytes(range(8)))
SPEC = TensorSpec("input", "float32", (2,))


def test_clients_and_sessions(target: str) -> None:
    with Client(target) as client:
        session = client.session("pump-17")
        session.step([[1.0, 1.0]] * 3)
        assert repr(client) == f"<Client {target}>"
        assert repr(session) == "<Session 'pump-17' of model 'count' at step 3>"
        assert re.fullmatch(
            r"SessionInfo\('pump-17', step 3, idle \d+\.\d s, (hot|cold)\)", repr(client.session_info("pump-17"))
        )
        assert re.fullmatch(r"Model\('count', [0-9a-f]{8}, input float32\[2\], exact, \w+\)", repr(client.model()))
    assert repr(client) == f"<Client {target}, closed>"


async def test_those_of_asyncio(target: str) -> None:
    async with AsyncClient([target, "localhost:1"]) as client:
        assert repr(client) == f"<AsyncClient {target}, localhost:1>"
        session = await client.session("pump-17")
        assert repr(session) == "<AsyncSession 'pump-17' of model 'count' at step 0>"
    assert repr(client) == f"<AsyncClient {target}, localhost:1, closed>"


def test_values() -> None:
    reply = StepReply({"prediction": np.zeros((3, 2), np.float32)}, AT)
    assert repr(AT) == "Position(00010203 at step 7, head 00010203)"
    assert Position.parse(str(AT)) == AT
    assert repr(reply) == "StepReply(prediction float32[3, 2], step 7)"
    late = LateStep(AT, 2)
    assert repr(late) == "LateStep(to step 7, unsettled)"
    assert repr(LateStep(AT, 2, applied=True)) == "LateStep(to step 7, applied)"
    assert repr(LateStep(AT, 2, applied=False)) == "LateStep(to step 7, not applied)"
    some = {"prediction": np.zeros((2, 3), np.float32)}
    assert repr(GroupReply(("a", "b"), some, {})) == "GroupReply(ids 2, prediction float32[2, 3])"
    failed = GroupReply((), {}, {"a": CellkeeperError("x")}, {"b": (late,)})
    assert repr(failed) == "GroupReply(ids 0, errors 1, late_steps 1)"
    again = StepReply({}, AT, created=True, replayed=True, late_steps=(late,))
    assert repr(again) == "StepReply(step 7, created, replayed, late_steps 1)"
    model = Model("m", b"\xab" * 32, "", False, 0.001, "torch", "", SPEC, 0, False, (), (), 8, 0, 0)
    assert repr(model) == "Model('m', abababab, input float32[2], within 0.001, torch)"
    damaged = SessionInfo("a", AT, b"", 0, 0, 0, 0, False, "its header is cut")
    assert repr(damaged) == "SessionInfo('a', damaged: its header is cut)"
    assert repr(CarriedOver({"carried": 3, "already": 1})) == "CarriedOver(already 1, carried 3)"
    assert repr(SPEC) == "TensorSpec('input', float32[2])"


@pytest.mark.parametrize("kind", [StepCall, GroupPart, GroupCall, GroupChunk, Frame])
def test_what_is_under_way_does_not_print_its_inputs(kind: type) -> None:
    """asyncio's debug mode logs the arguments of callbacks."""
    assert "__repr__" not in vars(kind)
