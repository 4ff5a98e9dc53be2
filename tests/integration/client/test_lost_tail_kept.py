"""A client carries a session over, with its state, after the server has lost the session's last steps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cellkeeper import AsyncClient, HistoryChanged, HistoryLost
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK
from .counting_record import fresh
from .counting_server import CountingServer
from .counting_wire import Refused, message_of, position_of
from .ones import ONE, counted, take


class KeepingServer(CountingServer):
    """Carries sessions over as they are, if the caller knows no later step. named: the positions in the requests.

    knows_positions: False for a server of 0.1.0, which does not read them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.named: list[int | None] = []
        self.knows_positions = True

    async def CarryOver(self, request: Any, context: Any) -> Any:
        (item,) = request.items
        record = self.records[item.session]
        self.named.append(item.position.step if item.HasField("position") else None)
        if item.policy == pb.CarryOverRequest.KEEP and self.knows_positions:
            try:
                record.decide(position_of(item.position).pack(), b"", peek=True)
            except Refused as refused:
                return pb.SessionResults(results=[pb.SessionResult(error=refused.wire())])
        moved = self.records[item.session] = fresh(item.request_id, record.position.step, record.totals[-1])
        self.of_other_version.add(item.session)
        return pb.SessionResults(results=[pb.SessionResult(position=message_of(moved.position))])


@pytest.fixture
async def server() -> AsyncIterator[KeepingServer]:
    server = KeepingServer()
    await server.start()
    yield server
    await server.stop()


async def test_a_lost_tail_is_replayed_before_the_state_is_kept(client: AsyncClient, server: KeepingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 20)
    server.records["a"].cut(12)
    assert (await session.carry_over("keep")).step == 20
    assert client.counters.replayed_steps == 12
    assert server.named == [20, 20]
    assert await take(session, [ONE] * 2) == counted(21, 22)


async def test_a_tail_that_cannot_be_replayed_is_reported(server: KeepingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", window_steps=5, buffer_steps=5, backoff=QUICK) as client:
        session = await client.open("a")
        await take(session, [ONE] * 30)
        server.records["a"].cut(12)
        with pytest.raises(HistoryLost):
            await session.carry_over("keep")
        assert server.records["a"].position.step == 18
        assert (await session.carry_over("reset")).step == 18  # of this server, which keeps it all the same
        assert server.named == [30, None]


async def test_a_tail_that_others_overwrote_is_reported(client: AsyncClient, server: KeepingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 10)
    server.records["a"].cut(4)
    other = await client.open("a")
    await take(other, [[1.0, 9.0]] * 4)
    with pytest.raises(HistoryChanged):
        await session.carry_over("keep")
    assert server.records["a"].position == other.position


async def test_a_server_of_an_earlier_release_keeps_it_and_the_caller_is_told(
    client: AsyncClient, server: KeepingServer
) -> None:
    server.knows_positions = False
    session = await client.open("a")
    await take(session, [ONE] * 20)
    server.records["a"].cut(12)
    with pytest.raises(HistoryLost, match="lost steps 8 to 19 of this session before it carried it over") as caught:
        await session.carry_over("keep")
    assert caught.value.position == session.position == server.records["a"].position
    assert await take(session, [ONE] * 2) == counted(9, 10)
