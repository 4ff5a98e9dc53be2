"""An unexpected error while sending or reading fails the steps in flight, and the client continues."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from cellkeeper import AsyncClient, CellkeeperError, Unavailable
from cellkeeper._transport.endpoint import Endpoint
from cellkeeper._transport.frame_codec import Frame
from cellkeeper._transport.inflight_frames import InflightFrames
from cellkeeper._transport.stream import Stream
from cellkeeper._transport.stream_call import StreamCall

X = [1.0, 2.0]


def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Makes the method fail at its next call only."""
    original = getattr(owner, name)

    def fail(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        raise RuntimeError("planted")

    monkeypatch.setattr(owner, name, fail)


@pytest.mark.parametrize(("owner", "name"), [(Frame, "message"), (InflightFrames, "heard")])
async def test_steps_on_their_way_fail_and_later_ones_are_served(
    target: str, owner: type, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncClient(target, timeout=20) as client:
        session, other = await client.open("pump"), await client.open("other")
        await session.step(X)
        once(monkeypatch, owner, name)
        with caplog.at_level(logging.ERROR), pytest.raises(CellkeeperError, match="planted"):
            await asyncio.wait_for(session.step(X), 10)
        assert "planted" in caplog.text
        assert (await asyncio.wait_for(other.step(X), 10)).tolist()[0] == 1
        for _ in range(2):
            await asyncio.wait_for(session.step(X), 10)
        assert session.position.step in (3, 4)  # the one that failed was applied, or not sent


@pytest.mark.parametrize("name", ["_serve", "_reconnected", "_on_up"])
async def test_an_endpoint_that_fails_is_made_anew(
    target: str, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def lost(self: Endpoint, stream: Stream) -> CellkeeperError:
        monkeypatch.setattr(Endpoint, "_serve", serve)
        return Unavailable("lost", reason="LOST")

    serve = Endpoint._serve
    async with AsyncClient(target, timeout=20) as client:
        session = await client.open("pump")
        if name != "_serve":
            monkeypatch.setattr(Endpoint, "_serve", lost)
        if name == "_on_up":
            endpoints = client._connected().endpoints
            (endpoint,) = endpoints.order("pump")
            monkeypatch.setattr(endpoint, "_on_up", lambda _: 1 / 0 if not caplog.records else None)
        else:
            once(monkeypatch, Endpoint, name)
        with caplog.at_level(logging.ERROR):
            for step in range(1, 4):
                assert (await asyncio.wait_for(session.step(X), 15)).tolist()[0] == step
        assert "failed in the client; reconnecting" in caplog.text


@pytest.mark.parametrize(("owner", "name"), [(Frame, "message"), (InflightFrames, "heard")])
async def test_a_step_on_its_way_is_late(
    target: str, owner: type, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answer may have been the one that could not be read."""
    async with AsyncClient(target, timeout=20) as client:
        session = await client.open("pump")
        await session.step(X)
        once(monkeypatch, owner, name)
        with caplog.at_level(logging.ERROR), pytest.raises(CellkeeperError, match="planted") as told:
            await session.step([10.0, 10.0])
        assert told.value.late_step is not None
        assert (await session.step(X)).tolist() == [12.0, 14.0]
        assert told.value.late_step.applied


async def test_steps_of_a_stream_that_fails_are_sent_again(
    target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody answers what it had in flight, so that the session would wait for ever."""
    own = Stream.serve

    async def fail(self: Stream, call: StreamCall) -> CellkeeperError:
        monkeypatch.setattr(Stream, "serve", own)
        self._next_message()
        call.cancel()
        raise RuntimeError("planted")

    async with AsyncClient(target, timeout=20) as client:
        session = await client.open("pump")
        monkeypatch.setattr(Stream, "serve", fail)
        with caplog.at_level(logging.ERROR):
            for step in range(1, 4):
                assert (await asyncio.wait_for(session.step(X), 15)).tolist()[0] == step
        assert "failed in the client; reconnecting" in caplog.text
