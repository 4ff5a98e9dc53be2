"""A stream's limits and its failures, without a network in between."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from math import inf
from typing import Any

import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.access.quotas import Allowance, Quota
from cellkeeper_service.access.rights import ANYBODY
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Reason, Rejection
from cellkeeper_service.rpc.caller import Caller
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.frame_replies import FrameReplies, refused_items
from cellkeeper_service.rpc.http.session_log import Wanted
from cellkeeper_service.rpc.http.watch import Watch, WatchAsked
from cellkeeper_service.rpc.status import to_error
from cellkeeper_service.rpc.stream import Stream

from tests.unit.core.loop import Server, play
from tests.unit.core.world import pack


def frame(number: int, **more: Any) -> pb.StepFrame:
    """Returns a frame whose only item fails, because the session does not exist."""
    position = b"g" * 16 + bytes(8) + b"h" * 8
    return pb.StepFrame(frame_id=number, sessions=["s"], dtype=pb.INT32, inputs=pack([1]), positions=position, **more)


class Left(Meter):
    """items: of all replies."""

    def __init__(self) -> None:
        self.items = 0

    def frame(self, direction: str, items: int) -> None:
        self.items += items if direction == "out" else 0


class Fixture:
    """inflight: the quota of the stream's caller; 0: none."""

    def __init__(self, inflight: int = 0) -> None:
        self.server = Server()
        self.taken = 0
        self.left = Left()
        self.allowance = Allowance(Quota(inflight=inflight), 1.0, lambda: 0.0, 200)
        catalog = Catalog(self.server.models, WireLimits(max_stream_frames=2))
        self.caller = Caller(ANYBODY, catalog, self.allowance)
        self.stream = Stream(self.caller, self.server.loop, self.left, inf)
        self.server.loop.start()

    async def frames(self, count: int, model: str = "", fails: bool = False) -> AsyncIterator[pb.StepFrame]:
        for number in range(count):
            self.taken += 1
            yield frame(number, model=model)
        if fails:
            raise OSError("the frames ended badly")

    async def replies(self, frames: AsyncIterator[pb.StepFrame]) -> AsyncGenerator[pb.StepFrameReply, None]:
        async with aclosing(self.stream.replies(frames, lambda caller: None)) as replies:
            async for ready in replies:
                for reply in ready:
                    yield reply

    async def end(self) -> None:
        await self.server.loop.drain()
        self.server.loop.store_calls.close()


@pytest.mark.parametrize("model", ["", "unknown"])
def test_replies_that_are_not_read_hold_back_the_frames(model: str) -> None:
    async def test() -> None:
        fixture = Fixture()
        replies = fixture.stream.replies(fixture.frames(20, model), lambda caller: None)
        read = 0
        async for ready in replies:
            assert all(reply.last for reply in ready)
            for _ in range(200):
                await asyncio.sleep(0)
            assert fixture.taken <= read + 4  # two in work, one that has left, one that waits for room
            read += len(ready)
        assert read == fixture.taken == 20
        await fixture.end()

    play(test)


def test_frames_that_end_badly_are_answered_first() -> None:
    async def test() -> None:
        fixture = Fixture()
        replies = fixture.replies(fixture.frames(5, fails=True))
        for _ in range(5):
            assert (await anext(replies)).last
        with pytest.raises(OSError, match="badly"):
            await anext(replies)
        await fixture.end()

    play(test)


def test_frames_that_end_badly_just_before_the_server_stops() -> None:
    async def test() -> None:
        fixture = Fixture()
        replies = fixture.replies(fixture.frames(1, fails=True))
        assert (await anext(replies)).last
        reader = fixture.stream._reader
        assert reader is not None
        await asyncio.wait([reader])
        fixture.stream.finish()
        with pytest.raises(OSError, match="badly"):
            await anext(replies)
        await fixture.end()

    play(test)


def test_a_stream_that_its_client_has_ended_ends_well_although_the_server_stops() -> None:
    async def test() -> None:
        fixture = Fixture()
        replies = fixture.replies(fixture.frames(2))
        first = await anext(replies)
        reader = fixture.stream._reader
        assert reader is not None
        await asyncio.wait([reader])
        fixture.stream.finish(Rejection(Reason.DRAINING, "the server is shutting down"))
        assert [reply.frame_id async for reply in replies] == [1 - first.frame_id]
        await fixture.end()

    play(test)


def test_a_stream_that_is_closed_lets_its_requests_go() -> None:
    async def test() -> None:
        fixture = Fixture()
        replies = fixture.replies(fixture.frames(20))
        await anext(replies)
        await replies.aclose()
        await fixture.end()
        assert fixture.server.core.unanswered == 0

    play(test)


def test_a_frame_that_is_answered_leaves_no_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its requests, hundreds per frame, would stay until the next garbage collection."""
    seen: list[weakref.ref[FrameReplies]] = []

    class Watched(FrameReplies):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            seen.append(weakref.ref(self))

    monkeypatch.setattr("cellkeeper_service.rpc.stream.FrameReplies", Watched)

    async def test() -> None:
        fixture = Fixture()
        position = await fixture.server.open()

        async def frames() -> AsyncIterator[pb.StepFrame]:
            yield frame(1)  # refused
            yield pb.StepFrame(frame_id=2, sessions=["s"], dtype=pb.INT32, inputs=pack([1]), positions=position)

        replies = {reply.frame_id: reply async for reply in fixture.replies(frames())}
        assert [len(replies[number].errors) for number in (1, 2)] == [1, 0]
        assert [one() for one in seen] == [None, None]
        await fixture.end()

    gc.collect()
    gc.disable()
    try:
        play(test)
    finally:
        gc.enable()


def test_an_error_that_cannot_be_told_is_the_only_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items of a frame that are refused at the same time are reported together."""
    whys: list[Rejection] = []

    def breaks_at_first(why: Rejection) -> Any:
        whys.append(why)
        if len(whys) == 1:
            raise ZeroDivisionError
        return to_error(why)

    monkeypatch.setattr("cellkeeper_service.rpc.frame_replies.to_error", breaks_at_first)

    async def test() -> None:
        fixture = Fixture()
        items = frame(1)
        items.sessions.append("r")
        items.inputs, items.positions = 2 * items.inputs, 2 * items.positions

        async def frames() -> AsyncIterator[pb.StepFrame]:
            yield items

        replies = [reply async for reply in fixture.replies(frames())]
        reasons = {error.item: error.error.reason for reply in replies for error in reply.errors}
        assert reasons == {0: pb.INTERNAL_ERROR, 1: pb.SESSION_NOT_FOUND}
        await fixture.end()

    play(test)


def test_a_refused_frame_is_charged_until_it_is_answered() -> None:
    """Its sessions' records are read, because one of another version may be the reason."""

    async def test() -> None:
        fixture = Fixture(inflight=1)
        await fixture.server.open()
        answered = asyncio.Event()
        read: list[int] = []
        submit = fixture.server.loop.submit

        def counted(request: Any) -> None:
            read.append(fixture.allowance.inflight)
            submit(request)

        fixture.server.loop.submit = counted  # type: ignore[method-assign]

        async def frames() -> AsyncIterator[pb.StepFrame]:
            yield frame(1, step_shape=[7])
            await answered.wait()
            assert fixture.allowance.inflight == 0
            fixture.allowance.take(1, 0)
            yield frame(2, step_shape=[7])  # beyond the quota: nothing is read for it

        async for reply in fixture.replies(frames()):
            assert reply.frame_error.reason == pb.INVALID_FIELD
            answered.set()
        assert (read, fixture.allowance.inflight) == ([1], 1)
        await fixture.end()

    play(test)


def test_the_items_of_a_frame_beyond_the_quota_are_refused_and_counted() -> None:
    async def test() -> None:
        fixture = Fixture(inflight=1)
        fixture.allowance.take(1, 0)
        (reply,) = [reply async for reply in fixture.replies(fixture.frames(1))]
        assert [(error.item, error.error.reason) for error in reply.errors] == [(0, pb.QUOTA_EXCEEDED)]
        assert (reply.last, fixture.left.items, fixture.allowance.inflight) == (True, 1, 1)
        await fixture.end()

    play(test)


def test_a_session_is_not_read_again_before_its_watch_has_sent_what_was_read() -> None:
    async def test() -> None:
        fixture = Fixture()
        await fixture.server.open()
        watch = Watch(fixture.caller, fixture.server.loop, Meter(), inf)

        async def asked() -> AsyncIterator[WatchAsked]:
            yield WatchAsked("m", "s", 10**9, Wanted(frozenset(), False, 8))
            await asyncio.Event().wait()

        async with aclosing(watch.replies(asked(), lambda caller: None)) as replies:
            (first,) = await anext(replies)
            for value in range(3):
                await fixture.server.step(value)
                for _ in range(200):
                    await asyncio.sleep(0)
            (second,) = await anext(replies)
        assert (first["position"]["step"], second["position"]["step"]) == (0, 3)
        await fixture.end()

    play(test)


def test_the_one_reason_to_refuse_a_whole_frame_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant beyond its quota may send thousands of items a second, and the loop serves everybody."""
    written: list[Rejection] = []

    def counted(why: Rejection) -> pb.Error:
        written.append(why)
        return to_error(why)

    monkeypatch.setattr("cellkeeper_service.rpc.frame_replies.to_error", counted)
    over, other = (Rejection(Reason.QUOTA_EXCEEDED, text, retry_delay_ms=9) for text in ("too many", "others"))
    reply = refused_items(7, [over, other, *[over] * 1000], Meter())
    assert sorted(why.message for why in written) == ["others", "too many"]
    assert [(error.item, error.error.message) for error in reply.errors[:3]] == [
        (0, "too many"),
        (1, "others"),
        (2, "too many"),
    ]
    assert len(reply.errors) == 1002
    assert (reply.frame_id, reply.last) == (7, True)
