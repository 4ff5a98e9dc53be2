"""A server that leaves out what was requested: each call names it, instead of returning what else there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from cellkeeper import (
    AsyncClient,
    AsyncGroup,
    AsyncSession,
    GenerationChanged,
    GroupError,
    ServerError,
)
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK
from .counting_record import fresh
from .counting_server import CountingServer

ONE = [1.0, 1.0]
BOTH = ("hidden", "prediction")
LACKS_HIDDEN = r"outputs: the server sent \['prediction'.*\], expected 'hidden'"


class Forgetful(CountingServer):
    """Leaves these outputs and state tensors out of its replies."""

    def __init__(self) -> None:
        super().__init__()
        self.omitted = {"hidden"}

    def answer(self, frame: Any) -> Any:
        return self._without(super().answer(frame), "outputs")

    async def StepBatch(self, frame: Any, context: Any) -> Any:
        return self.answer(frame)

    async def Step(self, request: Any, context: Any) -> Any:
        return self._without(await super().Step(request, context), "outputs")

    async def GetState(self, request: Any, context: Any) -> Any:
        return self._without(await super().GetState(request, context), "state")

    def _without(self, reply: Any, field: str) -> Any:
        kept = [one for one in getattr(reply, field) if one.name not in self.omitted]
        reply.ClearField(field)
        getattr(reply, field).extend(kept)
        return reply

    def _model(self, fingerprint: bytes = bytes(range(32))) -> Any:
        info = super()._model(fingerprint)
        info.feedback.CopyFrom(pb.Feedback(sources=[0, 1]))
        return info


@pytest.fixture
async def forgetful() -> AsyncIterator[Forgetful]:
    server = Forgetful()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(forgetful: Forgetful) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{forgetful.port}", timeout=20, backoff=QUICK, outputs=BOTH) as made:
        yield made


async def streamed(session: AsyncSession) -> list[Any]:
    return [y async for y in session.stream([ONE, ONE])]


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.peek(ONE),
        lambda session: session.peek_reply(ONE),
        lambda session: session.forecast(ONE, steps=2),
        lambda session: session.step(ONE),
        lambda session: session.step_reply([ONE, ONE]),
        streamed,
    ],
    ids=["peek", "peek_reply", "forecast", "step", "step_reply", "stream"],
)
async def test_of_a_session(client: AsyncClient, call: Callable[[AsyncSession], Awaitable[Any]]) -> None:
    session = await client.session("a")
    with pytest.raises(ServerError, match=LACKS_HIDDEN) as raised:
        await call(session)
    assert (raised.value.reason, raised.value.field) == ("INTERNAL_ERROR", "outputs")


async def test_a_step_whose_reply_lacks_an_output_counts(client: AsyncClient, forgetful: Forgetful) -> None:
    session = await client.session("a")
    with pytest.raises(ServerError) as raised:
        await session.step(ONE)
    late = raised.value.late_step
    assert late is not None
    assert (late.applied, late.position) == (True, forgetful.records["a"].position)
    assert session.unsettled == ()
    reply = await session.step_reply(ONE, outputs=["prediction"])
    assert reply.output.tolist() == [2, 2]
    assert reply.late_steps == (late,)
    assert (forgetful.streams, forgetful.applied_steps) == (1, 2)  # nobody else's stream ended, nothing was sent again


@pytest.mark.parametrize(
    "call",
    [
        lambda group: group.peek([ONE, ONE]),
        lambda group: group.forecast([ONE, ONE], steps=2),
        lambda group: group.step([ONE, ONE]),
        lambda group: group.step([[ONE, ONE]] * 2),
    ],
    ids=["peek", "forecast", "step", "step in chunks"],
)
async def test_of_a_group(client: AsyncClient, call: Callable[[AsyncGroup], Awaitable[Any]]) -> None:
    group = await client.group(["a", "b"])
    with pytest.raises(GroupError, match=LACKS_HIDDEN) as raised:
        await call(group)
    assert {name: type(error) for name, error in raised.value.errors.items()} == {"a": ServerError, "b": ServerError}


async def test_steps_of_a_group_whose_replies_lack_an_output_count(client: AsyncClient, forgetful: Forgetful) -> None:
    group = await client.group(["a", "b"])
    with pytest.raises(GroupError) as raised:
        await group.step([ONE, ONE])
    for name, error in raised.value.errors.items():
        assert error.late_step is not None
        assert (error.late_step.applied, error.late_step.position) == (True, forgetful.records[name].position)
    assert (await group.step([ONE, ONE], outputs=["prediction"])).tolist() == [[2, 2], [2, 2]]
    assert (forgetful.streams, forgetful.applied_steps) == (1, 4)


async def test_state_tensors_among_the_outputs(client: AsyncClient, forgetful: Forgetful) -> None:
    forgetful.omitted = {"state.h"}
    session, group = await client.session("a"), await client.group(["b", "c"])
    lacks = r"outputs: the server sent \['prediction'\], expected 'state\.h'"
    with pytest.raises(ServerError, match=lacks):
        await session.step(ONE, outputs=["state", "prediction"])
    with pytest.raises(GroupError, match=lacks):
        await group.step([ONE, ONE], outputs=["state", "prediction"])


async def test_a_state_that_lacks_a_tensor(client: AsyncClient, forgetful: Forgetful) -> None:
    forgetful.omitted = {"h"}
    session, group = await client.session("a"), await client.group(["b"])
    lacks = r"state: the server sent \{\}, expected \{'h': \(1, 2\)\}"
    with pytest.raises(ServerError, match=lacks) as raised:
        await session.state()
    assert raised.value.field == "state"
    with pytest.raises(GroupError, match=lacks):
        await group.state()


async def test_the_state_of_a_version_with_other_tensors(client: AsyncClient, forgetful: Forgetful) -> None:
    """Another client has carried the session over."""
    forgetful.omitted = {"h"}
    session = await client.session("a")
    forgetful.records["a"] = fresh(b"")
    with pytest.raises(GenerationChanged, match="open it again") as raised:
        await session.state()
    assert raised.value.position == forgetful.records["a"].position


async def test_a_replay_wants_no_outputs(client: AsyncClient, forgetful: Forgetful) -> None:
    forgetful.omitted = set()
    session = await client.session("a")
    await session.step(ONE)
    forgetful.records["a"].cut(1)
    forgetful.omitted = {"prediction"}
    reply = await session.step_reply(ONE, outputs=["hidden"])
    assert reply.output.tolist() == [2, 2]
