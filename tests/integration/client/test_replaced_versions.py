"""Versions that are replaced while a client carries a session over to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cellkeeper import AsyncClient, Closed, DeadlineExceeded, GroupError, InvalidArgument, ModelChanged
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import until
from .counting_record import fresh
from .counting_server import CountingServer
from .counting_sessions import FINGERPRINT, OTHER_FINGERPRINT
from .counting_wire import Refused, message_of


class ReplacingServer(CountingServer):
    """Serves one version at a time. current: their fingerprints, one for each time that a client reads the model."""

    current: tuple[bytes, ...] = (FINGERPRINT,)
    reads = 0
    refuses_all = False
    forgets = False  # the versions that were replaced

    def __init__(self) -> None:
        super().__init__()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.asked_for: list[bytes] = []

    @property
    def served(self) -> bytes:
        """The version that replaces the one that was read last."""
        return self.current[min(self.reads, len(self.current) - 1)]

    async def GetModel(self, request: Any, context: Any) -> Any:
        self.asked_for.append(request.fingerprint)
        await self.may_read.wait()
        if self.forgets and request.fingerprint not in (b"", self.served):
            await self._refuse(request, context)
        model = self._model(request.fingerprint or self.served)
        self.reads += 1
        return model

    async def CarryOver(self, request: Any, context: Any) -> Any:
        if self.refuses_all or request.fingerprint != self.served:
            await self._refuse(request, context)
        (item,) = request.items
        record = self.records[item.session] = fresh(item.request_id)
        return pb.SessionResults(results=[pb.SessionResult(position=message_of(record.position))])

    async def _refuse(self, request: Any, context: Any) -> None:
        text = f"fingerprint: got {request.fingerprint.hex()[:12]}, expected {self.served.hex()[:12]}"
        await self._abort(context, Refused("INVALID_FIELD", None, text, field="fingerprint"))


@pytest.fixture
async def server() -> AsyncIterator[ReplacingServer]:
    server = ReplacingServer()
    await server.start()
    yield server
    await server.stop()


async def test_a_session_moves_to_the_version_that_takes_new_sessions(
    client: AsyncClient, server: ReplacingServer
) -> None:
    session = await client.session("a")
    server.reads, server.current = 0, (FINGERPRINT, OTHER_FINGERPRINT)
    await session.carry_over("reset")
    assert session.model.fingerprint == OTHER_FINGERPRINT
    assert (await session.step([1.0, 1.0])).tolist() == [1, 1]


async def test_a_version_that_goes_while_its_session_is_opened(client: AsyncClient, server: ReplacingServer) -> None:
    """The caller has chosen no version: an error of the argument `fingerprint` would not tell what has happened."""
    server.current = (OTHER_FINGERPRINT,)
    server.forgets = True
    with pytest.raises(
        ModelChanged, match=f"'a' belongs to model version {FINGERPRINT.hex()[:12]}, which is not served"
    ):
        await client.session("a")
    server.forgets = False
    assert (await (await client.session("a")).step([1.0, 1.0])).tolist() == [1, 1]


@pytest.mark.parametrize("member", ["a", "b"])
async def test_a_version_that_goes_while_a_group_is_opened_is_that_members_error(
    member: str, client: AsyncClient, server: ReplacingServer
) -> None:
    server.of_other_version = {member}
    server.forgets = True
    with pytest.raises(GroupError) as caught:
        await client.group(["a", "b", "c"])
    assert [(name, type(error)) for name, error in caught.value.errors.items()] == [(member, ModelChanged)]
    assert caught.value.group.ids == tuple(name for name in ("a", "b", "c") if name != member)


async def test_a_group_that_is_closed_while_it_reads_a_version_stays_closed(
    client: AsyncClient, server: ReplacingServer
) -> None:
    group = await client.group([])
    server.of_other_version = {"a"}
    server.may_read.clear()
    adding = asyncio.ensure_future(group.add(["a"]))
    await until(lambda: OTHER_FINGERPRINT in server.asked_for)
    await group.close()
    server.may_read.set()
    for call in (adding, group.add(["b"])):
        with pytest.raises(Closed):
            await call


async def test_late_steps_of_a_group_that_takes_another_version(client: AsyncClient, server: ReplacingServer) -> None:
    group = await client.group(["a"])
    server.gate.clear()
    with pytest.raises(GroupError) as caught:
        await group.step([[1.0, 1.0]], timeout=0.03)
    assert isinstance(caught.value.errors["a"], DeadlineExceeded)
    server.gate.set()
    await group.remove(["a"])
    server.of_other_version = {"b"}
    await group.add(["b"])
    assert group.model.fingerprint == OTHER_FINGERPRINT
    assert [late.applied for late in (await group.settle())["a"]] == [True]


async def test_a_version_that_the_caller_chose_is_not_exchanged(client: AsyncClient, server: ReplacingServer) -> None:
    session = await client.session("a")
    server.reads, server.current = 0, (FINGERPRINT, OTHER_FINGERPRINT)
    with pytest.raises(InvalidArgument, match="fingerprint"):
        await session.carry_over("reset", fingerprint=FINGERPRINT)


async def test_a_server_that_refuses_what_it_names_is_believed(client: AsyncClient, server: ReplacingServer) -> None:
    session = await client.session("a")
    server.refuses_all = True
    reads = server.reads
    with pytest.raises(InvalidArgument, match="fingerprint"):
        await session.carry_over("reset")
    assert server.reads == reads + 2
