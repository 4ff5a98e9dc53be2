"""Calls with many items, to servers that do not serve the version which these need: each is asked once for all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cellkeeper import AsyncClient, DeadlineExceeded, GroupError, ModelChanged
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK
from .counting_record import fresh
from .counting_server import CountingServer
from .counting_sessions import OTHER_FINGERPRINT
from .counting_wire import Refused, message_of

NAMES = [f"s{number}" for number in range(40)]


class Unserving(CountingServer):
    """Refuses items of the sessions in `unserved`. asked: the sessions in each CarryOver and OpenMany."""

    def __init__(self) -> None:
        super().__init__()
        self.unserved = set(NAMES)
        self.asked: list[list[str]] = []
        self.records.update({name: fresh(b"") for name in NAMES})

    def refused(self, item: Any) -> Any:
        return Refused("MODEL_CHANGED").wire() if item.session in self.unserved else None

    async def CarryOver(self, request: Any, context: Any) -> Any:
        self.asked.append([item.session for item in request.items])
        results = []
        for item in request.items:
            if (error := self.refused(item)) is not None:
                results.append(pb.SessionResult(error=error))
            else:
                record = self.records[item.session] = fresh(item.request_id)
                results.append(pb.SessionResult(position=message_of(record.position)))
        return pb.SessionResults(results=results)

    async def OpenMany(self, request: Any, context: Any) -> Any:
        self.asked.append([item.session for item in request.items])
        results = [self.refused(item) for item in request.items]
        return pb.OpenManyResponse(
            results=[
                pb.OpenManyResponse.Result(opened=self._opened(item))
                if error is None
                else pb.OpenManyResponse.Result(error=error)
                for item, error in zip(request.items, results, strict=True)
            ]
        )


@pytest.fixture
async def servers() -> AsyncIterator[list[Unserving]]:
    servers = [Unserving() for _ in range(3)]
    for server in servers:
        await server.start()
    yield servers
    for server in servers:
        await server.stop()


@pytest.fixture
async def client(servers: list[Unserving]) -> AsyncIterator[AsyncClient]:
    async with AsyncClient([f"127.0.0.1:{server.port}" for server in servers], backoff=QUICK, timeout=20) as made:
        yield made


def carry_over(client: AsyncClient, **more: Any) -> Any:
    return client.carry_over("keep", sessions=NAMES, fingerprint=OTHER_FINGERPRINT, **more)


async def test_no_server_serves_it(client: AsyncClient, servers: list[Unserving]) -> None:
    done = await carry_over(client)
    assert done.counts == {"MODEL_CHANGED": len(NAMES)}
    assert [server.asked for server in servers] == [[NAMES]] * 3


async def test_each_server_serves_some(client: AsyncClient, servers: list[Unserving]) -> None:
    for server, served in zip(servers, (NAMES[:10], NAMES[10:20], NAMES[20:39]), strict=True):
        server.unserved -= set(served)
    done = await carry_over(client)
    assert done.counts == {"carried": 39, "MODEL_CHANGED": 1}
    assert all(len(server.asked) == 1 for server in servers)
    assert sorted(len(names) for server in servers for names in server.asked)[-1] == len(NAMES)


async def test_a_server_that_cannot_be_asked(client: AsyncClient, servers: list[Unserving]) -> None:
    """What the others have answered counts. The rest may be served there."""
    for server in servers:
        server.unserved -= set(NAMES[:10])
    await client.models()
    last = client._connected().endpoints.order(NAMES[0])[-1].target
    (at,) = [server for server in servers if last.endswith(f":{server.port}")]
    await at.stop()
    done = await carry_over(client, timeout=0.5)
    assert done.counts["carried"] == 10
    assert {type(error) for error in done.failures.values()} == {DeadlineExceeded}


async def test_members_of_a_group(client: AsyncClient, servers: list[Unserving]) -> None:
    """Their calls are as many as the servers that they prefer."""
    servers[0].unserved.remove("s0")
    with pytest.raises(GroupError) as caught:
        await client.group(NAMES)
    assert {type(error) for error in caught.value.errors.values()} == {ModelChanged}
    assert len(caught.value.errors) == len(NAMES) - 1
    assert caught.value.group.ids == ("s0",)
    assert all(len(server.asked) <= 3 for server in servers)
