"""A handler or an event that fails ends its own call, and no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from cellkeeper_service.rpc import grpc_core

from .listening_servers import SECONDS, ask, on_listener


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("replies_before", [0, 3])
async def test_a_handler_that_fails_is_an_internal_error_and_is_logged_once(
    caplog: pytest.LogCaptureFixture, replies_before: int
) -> None:
    async def fail(call: Any) -> AsyncIterator[list[bytes]]:
        yield [b"reply"] * replies_before
        raise ValueError("a secret")

    async with on_listener(fail, streams=True) as served, served.call() as start:
        call = start(timeout=SECONDS)
        assert [await call.read() for _ in range(replies_before)] == [b"reply"] * replies_before
        assert await call.code() is grpc.StatusCode.INTERNAL
        assert await call.details() == "internal error"
    assert failures(caplog) == ["a call failed"]


async def test_a_handler_that_cancels_itself_ends_its_call_with_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def leave(call: Any) -> bytes:
        raise asyncio.CancelledError

    async with on_listener(leave) as served, served.call() as start:
        call = start(timeout=SECONDS)
        assert await call.code() is grpc.StatusCode.CANCELLED
    assert failures(caplog) == []


async def test_a_status_that_gRPC_cannot_send_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    """And not a call that never ends."""

    async def abort(call: Any) -> bytes:
        await call.abort(grpc.StatusCode.ABORTED, "\ud800")
        return b""

    async with on_listener(abort) as served, served.call() as start:
        call = start(timeout=SECONDS)
        assert await call.code() is grpc.StatusCode.INTERNAL
    assert failures(caplog) == ["a call's status could not be sent"]


@pytest.mark.parametrize("quiet", [True, False])
async def test_an_event_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture, quiet: bool) -> None:
    """quiet: it fails on the thread that waits for events, as long as nothing else goes on."""

    def fail(event: Any) -> Any:
        raise ValueError("a fault")

    async def answer(call: Any) -> bytes:
        data = bytes(await call.read())
        if data == b"fail":
            tag: Any = grpc_core.Quiet(fail, fail) if quiet else fail
            grpc_core.receive_message(call._call, tag)
        return data

    async with on_listener(answer) as served, served.call() as start:
        for data in (b"fail", b"a", b"fail", b"b"):
            assert await ask(start, data) == [data]
        for data in [b"fail", b"c"] * 50:  # some of it in a burst
            assert await asyncio.gather(*(ask(start, data) for _ in range(5))) == [[data]] * 5
    assert set(failures(caplog)) == {"an event of a call failed"}
    assert len(failures(caplog)) == 252
