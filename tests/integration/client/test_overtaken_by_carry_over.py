"""Calls of a session, while other tasks of the same client carry it over to a version with other inputs and states."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from cellkeeper import AsyncClient, AsyncSession, DeadlineExceeded
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import until
from .counting_record import fresh
from .counting_server import CountingServer
from .counting_sessions import FINGERPRINT, OTHER_FINGERPRINT
from .counting_wire import message_of

NAMES = {FINGERPRINT: ("a", "b"), OTHER_FINGERPRINT: ("b", "a")}
STATES = {FINGERPRINT: "h", OTHER_FINGERPRINT: "c"}


class HoldingServer(CountingServer):
    """Its other version has the features in another order, and a state of another name.

    held: calls of this name wait until `go`, before they are decided or (after) before they are answered. waiting,
    states_read: how many calls wait so, and how many have read a state.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = ""
        self.after = False
        self.waiting = 0
        self.states_read = 0
        self.go = asyncio.Event()

    def _model(self, fingerprint: bytes = FINGERPRINT) -> Any:
        model = super()._model(fingerprint)
        model.feature_names.extend(NAMES[fingerprint])
        model.states[0].name = STATES[fingerprint]
        return model

    async def hold(self, call: str, after: bool) -> None:
        if (call, after) == (self.held, self.after):
            self.waiting += 1
            await self.go.wait()

    async def Step(self, request: Any, context: Any) -> Any:
        await self.hold("Step", False)
        return await super().Step(request, context)

    async def Fork(self, request: Any, context: Any) -> Any:
        answer = await super().Fork(request, context)
        await self.hold("Fork", True)
        return answer

    async def GetState(self, request: Any, context: Any) -> Any:
        answer = await super().GetState(request, context)
        name = STATES[OTHER_FINGERPRINT if request.session in self.of_other_version else FINGERPRINT]
        answer.state[0].name = name
        self.states_read += 1
        await self.hold("GetState", True)
        return answer

    async def CarryOver(self, request: Any, context: Any) -> Any:
        (item,) = request.items
        record = self.records[item.session] = fresh(item.request_id)
        self.of_other_version.add(item.session)
        await self.hold("CarryOver", True)
        return pb.SessionResults(results=[pb.SessionResult(position=message_of(record.position))])


@pytest.fixture
async def server() -> AsyncIterator[HoldingServer]:
    server = HoldingServer()
    await server.start()
    yield server
    server.go.set()
    await server.stop()


@pytest.fixture
async def session(client: AsyncClient, server: HoldingServer) -> AsyncSession:
    session = await client.session("s")
    await session.step({"a": 1.0, "b": 10.0})
    return session


async def overtaken(
    server: HoldingServer, session: AsyncSession, call: Awaitable[Any], name: str, after: bool = True
) -> Any:
    """Returns what `call` returns, which is held back until the session is carried over."""
    server.held, server.after = name, after
    calling = asyncio.ensure_future(call)
    await until(lambda: server.waiting == 1)
    await session.carry_over("reset", fingerprint=OTHER_FINGERPRINT)
    server.go.set()
    return await calling


async def test_a_fork_belongs_to_the_version_that_it_was_made_from(
    session: AsyncSession, server: HoldingServer
) -> None:
    branch = await overtaken(server, session, session.fork("branch"), "Fork")
    assert (session.model.fingerprint, branch.model.fingerprint) == (OTHER_FINGERPRINT, FINGERPRINT)
    assert (await branch.step({"a": 1.0, "b": 10.0})).tolist() == [2, 20]


async def test_a_peek_is_made_again_with_the_inputs_of_the_new_version(
    session: AsyncSession, server: HoldingServer
) -> None:
    peeked = await overtaken(server, session, session.peek({"a": 1.0, "b": 10.0}), "Step", after=False)
    assert peeked.tolist() == [10, 1]


async def test_a_state_that_was_read_before(session: AsyncSession, server: HoldingServer) -> None:
    state = await overtaken(server, session, session.state(), "GetState")
    assert {name: values.tolist() for name, values in state.items()} == {"h": [[1, 10]]}


async def test_a_state_that_is_read_before_the_carry_over_is_answered(
    session: AsyncSession, server: HoldingServer
) -> None:
    server.held, server.after = "CarryOver", True
    moving = asyncio.ensure_future(session.carry_over("reset", fingerprint=OTHER_FINGERPRINT))
    await until(lambda: server.waiting == 1)
    reading = asyncio.ensure_future(session.state())
    await until(lambda: server.states_read == 1)
    server.go.set()
    assert {name: values.tolist() for name, values in (await reading).items()} == {"c": [[0, 0]]}
    await moving


async def test_a_state_that_is_read_between_two_restarts(session: AsyncSession, server: HoldingServer) -> None:
    """It belongs to a generation that this client learns of and ends before the state arrives: it is read again."""
    server.held, server.after = "CarryOver", True
    moving = asyncio.ensure_future(session.carry_over("reset", fingerprint=OTHER_FINGERPRINT))
    await until(lambda: server.waiting == 1)
    carried, server.go, server.held = server.go, asyncio.Event(), "GetState"
    reading = asyncio.ensure_future(session.state())
    await until(lambda: server.waiting == 2)
    carried.set()
    await moving
    server.held = ""
    await session.carry_over("reset", fingerprint=OTHER_FINGERPRINT)
    await session.step({"a": 1.0, "b": 10.0})
    server.go.set()
    assert {name: values.tolist() for name, values in (await reading).items()} == {"c": [[10, 1]]}
    assert server.states_read == 2


async def test_a_state_whose_deadline_passes_while_the_carry_over_is_unanswered(
    session: AsyncSession, server: HoldingServer
) -> None:
    """The session has not been changed by others, which GenerationChanged would say."""
    server.held, server.after = "CarryOver", True
    moving = asyncio.ensure_future(session.carry_over("reset", fingerprint=OTHER_FINGERPRINT))
    await until(lambda: server.waiting == 1)
    with pytest.raises(DeadlineExceeded):
        await session.state(timeout=0.3)
    assert server.states_read >= 1
    server.go.set()
    await moving
