"""However a stream, a call or a connection ends, a step that was applied is never taken for one that was not.

Proxies, gateways and gRPC itself end streams at any moment and with any status. Every sample here is 1, so the sum that
the next step returns says how many steps count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
from cellkeeper import (
    AsyncClient,
    AsyncGroup,
    AsyncSession,
    CellkeeperError,
    GroupError,
    LateStep,
    Position,
    ResourceExhausted,
)
from cellkeeper._transport.stream_call import REFUSED

from .conftest import QUICK, until
from .counting_server import CountingServer
from .counting_wire import Ending

ONE = [1.0, 1.0]
MOMENTS = ["unread", "read", "applied", "answered, read", "answered, applied"]
"""Those of Ending; "answered": another frame of the stream was answered before."""
SHAPES = ["single", "together", "in flight", "group"]
REASONS = {
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "PERMISSION_DENIED",
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_FIELD",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "QUOTA_EXCEEDED",
    grpc.StatusCode.UNAVAILABLE: "DRAINING",
    grpc.StatusCode.CANCELLED: "CALLER_GONE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_PASSED",
    grpc.StatusCode.INTERNAL: "INTERNAL_ERROR",
}
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
CASES = [
    pytest.param(code, reason, moment, id=f"{code.name} {reason} {moment}".replace("  ", " "))
    for code, reason in [*((code, "") for code in CODES), *REASONS.items()]
    for moment in MOMENTS
    if not (reason and "applied" in moment and code in REFUSED)  # a server answers what it has read before it refuses
]


@dataclass
class Outcomes:
    """What the callers of a step of each of some sessions were told, by id."""

    answered: set[str] = field(default_factory=set)
    late: dict[str, LateStep] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def tell(self, name: str, error: CellkeeperError) -> None:
        if error.late_step is None:
            self.failed.add(name)
        else:
            self.late[name] = error.late_step

    def counts(self, name: str) -> int:
        """Returns how many steps count, once late ones are settled."""
        if name in self.late:
            assert self.late[name].applied is not None
            return int(self.late[name].applied or False)
        return int(name in self.answered)

    def check(self, server: CountingServer, before: int) -> None:
        """Checks that none is taken for refused that was applied. before: the step at which the sessions were."""
        for name in self.failed:
            assert server.records[name].position.step == before


async def outcome(outcomes: Outcomes, session: AsyncSession) -> None:
    try:
        await session.step(ONE)
        outcomes.answered.add(session.id)
    except CellkeeperError as error:
        outcomes.tell(session.id, error)


async def outcome_of_group(outcomes: Outcomes, group: AsyncGroup) -> None:
    try:
        await group.step([ONE] * len(group.ids))
        outcomes.answered.update(group.ids)
    except GroupError as error:
        outcomes.answered.update(error.ids)
        for name, failed in error.errors.items():
            outcomes.tell(name, failed)


async def steps(
    client: AsyncClient, server: CountingServer, shape: str, sessions: list[AsyncSession], ending: Ending
) -> Outcomes:
    """Makes a step of each session that meets the ending."""
    outcomes = Outcomes()
    if shape == "in flight":
        ending.frames = 2 if ending.moment == "applied" else 1
        server.gate.clear()
        server.ending = ending
        sent = client.counters.frames_sent
        tasks = []
        for number, session in enumerate(sessions, 1):
            tasks.append(asyncio.ensure_future(outcome(outcomes, session)))
            if ending.moment != "unread":
                await until(lambda number=number: client.counters.frames_sent == sent + number)  # type: ignore[misc]
        server.gate.set()
        await asyncio.gather(*tasks)
    else:
        server.ending = ending
        await asyncio.gather(*(outcome(outcomes, session) for session in sessions))
    return outcomes


@pytest.mark.parametrize(("code", "reason", "moment"), CASES)
async def test_a_stream_that_ends(server: CountingServer, code: grpc.StatusCode, reason: str, moment: str) -> None:
    for shape in SHAPES:
        async with AsyncClient(f"127.0.0.1:{server.port}", timeout=20, backoff=QUICK) as client:  # with a new stream
            await one_ending(client, server, shape, Ending(code, reason, moment))


async def one_ending(client: AsyncClient, server: CountingServer, shape: str, ending: Ending) -> None:
    names = [f"{shape} {number}" for number in range(1 if shape == "single" else 2)]
    group = await client.group(names) if shape == "group" else None
    sessions = [] if group else [await client.open(name) for name in names]
    before = 0
    if ending.moment.startswith("answered"):
        before, ending.moment = 1, ending.moment.removeprefix("answered, ")
        if group:
            await group.step([ONE, ONE])
        await asyncio.gather(*(session.step(ONE) for session in sessions))
    if group:
        outcomes = Outcomes()
        server.ending = ending
        await outcome_of_group(outcomes, group)
    else:
        outcomes = await steps(client, server, shape, sessions, ending)
    assert server.ending is None
    outcomes.check(server, before)
    await check_next(server, outcomes, names, sessions, group, before)


async def check_next(
    server: CountingServer,
    outcomes: Outcomes,
    names: Iterable[str],
    sessions: list[AsyncSession],
    group: AsyncGroup | None,
    before: int,
) -> None:
    """Makes the next step of each session, and checks that everything counts as the callers know."""
    if group:
        totals = {name: float(row[0]) for name, row in zip(group.ids, await group.step([ONE, ONE]), strict=True)}
        assert all(not group.unsettled.get(name) for name in names)
    else:
        totals = {session.id: float((await session.step(ONE))[0]) for session in sessions}
        assert [session.unsettled for session in sessions] == [()] * len(sessions)
    for name in names:
        assert totals[name] == before + outcomes.counts(name) + 1
        assert server.records[name].position.step == int(totals[name])


@pytest.mark.parametrize("code", sorted(REFUSED & REASONS.keys(), key=str), ids=lambda code: code.name)
async def test_a_stream_that_the_server_refuses(
    client: AsyncClient, server: CountingServer, code: grpc.StatusCode
) -> None:
    """The server says for what reason, so nothing of it counts."""
    session = await client.open("a")
    server.ending = Ending(code, REASONS[code], "unread")
    with pytest.raises(CellkeeperError) as caught:
        await session.step(ONE)
    assert (caught.value.late_step, session.unsettled) == (None, ())


@pytest.mark.parametrize("code", CODES)
async def test_a_peek_that_ends(client: AsyncClient, server: CountingServer, code: grpc.StatusCode) -> None:
    """It keeps nothing, and leaves the steps alone."""
    session, group = await client.open("a"), await client.group(["b", "c"])
    await session.step(ONE)
    await group.step([ONE, ONE])
    for peek in (session.peek(ONE), group.peek([ONE, ONE])):
        server.ending = Ending(code)
        with suppress(CellkeeperError):
            await peek
        assert server.ending is None
    assert (await session.step(ONE)).tolist() == [2, 2]
    assert (await group.step([ONE, ONE])).tolist() == [[2, 2], [2, 2]]
    assert (session.unsettled, group.unsettled) == ((), {})


@pytest.mark.parametrize("code", sorted(REFUSED, key=str))
async def test_a_status_that_lasts(client: AsyncClient, server: CountingServer, code: grpc.StatusCode) -> None:
    """Each step raises it meanwhile; the first of them, which may have been applied, is settled when it is over."""
    session = await client.open("a")
    late = []
    server.ending = Ending(code, moment="read", times=5)
    while server.ending is not None:
        with pytest.raises(CellkeeperError) as caught:
            await session.step(ONE)
        late += [caught.value.late_step] if caught.value.late_step else []
    assert session.unsettled == tuple(late)
    assert len(late) == 1
    assert (await session.step(ONE)).tolist() == [2, 2]
    assert (late[0].applied, session.unsettled) == (True, ())


# ------------------------------------------------------------------------------------------ too large in between


class SmallServer(CountingServer):
    """Something before it takes no frame of more than `most_bytes`; the status says nothing else.

    may_refuse: such a frame waits for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most_bytes = 250
        self.may_refuse = asyncio.Event()
        self.may_refuse.set()

    async def StepStream(self, frames: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async def passed() -> AsyncIterator[Any]:
            async for frame in frames:
                if frame.ByteSize() > self.most_bytes:
                    await self.may_refuse.wait()
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max")
                yield frame

        async for reply in super().StepStream(passed(), context):
            yield reply


LARGE = [ONE] * 30
STATE = {"h": np.zeros((1, 2), np.float32)}


@pytest.fixture
async def small() -> AsyncIterator[SmallServer]:
    made = SmallServer()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def through(small: SmallServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{small.port}", timeout=20, backoff=QUICK) as made:
        yield made


async def refused(session: AsyncSession) -> LateStep:
    with pytest.raises(ResourceExhausted, match="larger than max") as caught:
        await session.step(LARGE)
    late = caught.value.late_step
    assert late is not None
    assert session.unsettled == (late,)
    return late


async def test_a_chunk_that_never_gets_through_keeps_its_handle_until_the_session_is_opened_again(
    through: AsyncClient, small: SmallServer
) -> None:
    session = await through.open("a")
    await session.step(ONE)
    late = await refused(session)
    for call in (lambda: session.step(ONE), session.settle, session.state, lambda: session.peek(ONE)):
        with pytest.raises(ResourceExhausted, match="larger than max"):
            await call()
    assert (late.applied, session.unsettled) == (None, (late,))
    again = await through.open("a")
    assert (await again.step(ONE)).tolist() == [2, 2]


async def test_its_neighbours_go_on(through: AsyncClient, small: SmallServer) -> None:
    session, other = await through.open("a"), await through.open("b")
    small.may_refuse.clear()
    sent = through.counters.frames_sent
    stuck = asyncio.ensure_future(session.step(LARGE))
    await until(lambda: through.counters.frames_sent == sent + 1)
    stepping = asyncio.ensure_future(other.step(ONE))
    await until(lambda: through.counters.frames_sent == sent + 2)
    small.may_refuse.set()
    with pytest.raises(ResourceExhausted):
        await stuck
    answers = await asyncio.gather(stepping, return_exceptions=True)
    assert isinstance(answers[0], ResourceExhausted)
    assert answers[0].late_step is not None
    assert (await other.step(ONE)).tolist() == [2, 2]
    assert answers[0].late_step.applied


async def test_it_is_settled_once_it_gets_through(through: AsyncClient, small: SmallServer) -> None:
    session = await through.open("a")
    late = await refused(session)
    with pytest.raises(ResourceExhausted):
        await session.settle()
    small.most_bytes = 1 << 20
    assert await session.settle() == (late,)
    assert (late.applied, len(late.outputs["prediction"])) == (True, 30)
    assert (await session.step(ONE)).tolist() == [31, 31]


@pytest.mark.parametrize("restart", [AsyncSession.reset, partial(AsyncSession.set_state, state=STATE)])
async def test_a_new_generation_goes_ahead_without_it(
    restart: Callable[[AsyncSession], Awaitable[Position]], through: AsyncClient, small: SmallServer
) -> None:
    session = await through.open("a")
    late = await refused(session)
    assert (await restart(session)).step == 0
    assert (late.applied, session.unsettled) == (None, ())
    assert (await session.step(ONE)).tolist() == [1, 1]
