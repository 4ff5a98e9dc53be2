"""How many items a client has in flight while a server refuses some, and which steps it sends then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cellkeeper import AsyncClient, AsyncSession, DeadlineExceeded, QueueFull
from cellkeeper._transport.item_window import CUT, GROWTH, HEADROOM, LEAST_ITEMS, UNLIMITED, ItemWindow
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import until
from .counting_server import CountingServer
from .counting_wire import Refused

ONE = [1.0, 1.0]
FULL = QueueFull("the server's queue is full", reason="QUEUE_FULL")


def refused_window(in_flight: int, refused: int = 1) -> ItemWindow:
    """Returns one whose server has taken so many items, and refused others of the same frame, at 1 s."""
    window = ItemWindow()
    window.sent(in_flight + refused)
    window.refused(refused, FULL, sent_at=0.5, now=1.0)
    return window


def test_nothing_is_limited_before_the_first_refusal() -> None:
    window = ItemWindow()
    window.sent(100_000)
    assert window.room == UNLIMITED
    assert window.refusal is None


def test_a_refusal_limits_the_window_to_a_part_of_what_the_server_took() -> None:
    window = refused_window(100, refused=60)
    assert window.refusal is FULL
    assert window.room == 0
    window.ended(100)
    assert window.room == pytest.approx(CUT * 100)


def test_only_items_sent_since_reduce_it_again() -> None:
    window = refused_window(100)
    window.refused(1, FULL, sent_at=0.9, now=1.1)
    window.ended(99)
    assert window.room == pytest.approx(CUT * 100)
    window.sent(1)
    window.refused(1, FULL, sent_at=1.0, now=1.2)
    assert window.room == pytest.approx(CUT * CUT * 100)


def test_a_few_items_are_always_allowed() -> None:
    window = refused_window(1)
    for number in range(100):
        window.sent(1)
        window.refused(1, FULL, sent_at=2.0 + number, now=2.0 + number)
    window.ended(1)
    assert window.room == LEAST_ITEMS


def test_answers_widen_it() -> None:
    window = refused_window(160)
    window.applied(160, 0.1)
    assert window.room == pytest.approx(CUT * 160 + GROWTH * 160)


def test_other_results_do_not_widen_it() -> None:
    window = refused_window(160)
    window.ended(160)
    assert window.room == pytest.approx(CUT * 160)


def test_what_an_answer_takes_is_learnt() -> None:
    window = ItemWindow()
    assert window.least_seconds == 0.0
    for _ in range(200):
        window.sent(1)
        window.applied(1, 0.25)
    assert window.least_seconds == pytest.approx(HEADROOM * 0.25, rel=0.01)


async def window_of(client: AsyncClient) -> ItemWindow:
    """Returns the window of the client's only stream."""
    (endpoint,) = client._connected().endpoints.order("pump")
    await until(lambda: endpoint._stream is not None)
    window: ItemWindow = endpoint._stream._window  # type: ignore[union-attr]
    return window


async def test_a_client_holds_back_what_a_full_server_would_refuse(server: CountingServer, client: AsyncClient) -> None:
    sessions = [await client.open(f"pump {number}") for number in range(100)]
    server.refusals = [Refused("QUEUE_FULL", delay_ms=1) for _ in range(60)]
    await asyncio.gather(*(session.step(ONE) for session in sessions))
    window = await window_of(client)
    limit = int(window.room)
    assert LEAST_ITEMS <= limit < 60

    server.gate.clear()
    sent = sum(server.frame_sizes)
    steps = [asyncio.ensure_future(session.step(ONE, timeout=0.3)) for session in sessions]
    results = await asyncio.gather(*steps, return_exceptions=True)
    server.gate.set()
    assert sum(server.frame_sizes) - sent <= limit
    causes = [type(result.__cause__) for result in results if isinstance(result, DeadlineExceeded)]
    assert len(causes) == 100
    assert causes.count(QueueFull) >= 100 - limit, "those that were held back do not say why"


async def test_a_client_sends_all_again_once_the_server_answers(server: CountingServer, client: AsyncClient) -> None:
    sessions = [await client.open(f"pump {number}") for number in range(100)]
    server.refusals = [Refused("QUEUE_FULL", delay_ms=1) for _ in range(60)]
    for _ in range(100):
        await asyncio.gather(*(session.step(ONE) for session in sessions))
    window = await window_of(client)
    assert window.room > 100
    assert window.refusal is None


async def limited(server: CountingServer, client: AsyncClient, count: int) -> tuple[list[AsyncSession], ItemWindow]:
    """Returns so many sessions whose client holds some of them back."""
    sessions = [await client.open(f"pump {number}") for number in range(count)]
    server.refusals = [Refused("QUEUE_FULL", delay_ms=1) for _ in range(count // 2)]
    await asyncio.gather(*(session.step(ONE) for session in sessions))
    window = await window_of(client)
    assert window.room < count
    return sessions, window


async def test_steps_that_would_be_late_let_the_others_go_first(server: CountingServer, client: AsyncClient) -> None:
    sessions, window = await limited(server, client, 100)
    window.applied(0, 200.0)  # an answer that took long: a step needs 40 s now
    server.gate.clear()
    held = [asyncio.ensure_future(session.step(ONE, timeout=200)) for session in sessions[:60]]
    await until(lambda: window.room < 1)
    impatient = [asyncio.ensure_future(session.step(ONE, timeout=8)) for session in sessions[60:80]]
    patient = [asyncio.ensure_future(session.step(ONE, timeout=100)) for session in sessions[80:]]
    await asyncio.sleep(0)
    server.gate.set()
    await asyncio.gather(*held, *patient, *impatient)
    names = [name for name, _, _ in server.seen]
    last = [len(names) - 1 - names[::-1].index(f"pump {number}") for number in range(60, 100)]
    assert max(last[20:]) < min(last[:20])


async def test_items_that_the_server_leaves_unanswered_are_not_in_flight_any_more(
    server: CountingServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, window = await limited(server, client, 100)
    room, own = window.room, server.answer

    def nothing(frame: Any) -> Any:
        monkeypatch.setattr(server, "answer", own)
        return pb.StepFrameReply(frame_id=frame.frame_id, last=True)

    monkeypatch.setattr(server, "answer", nothing)
    await asyncio.gather(*(session.step(ONE) for session in sessions[:20]))
    assert window.room > room


async def test_a_frame_that_is_refused_as_a_whole_limits_as_its_items_do(
    server: CountingServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [await client.open(f"pump {number}") for number in range(100)]
    own = server.answer

    def full(frame: Any) -> Any:
        monkeypatch.setattr(server, "answer", own)
        return pb.StepFrameReply(frame_id=frame.frame_id, frame_error=Refused("QUEUE_FULL", delay_ms=1).wire())

    monkeypatch.setattr(server, "answer", full)
    await asyncio.gather(*(session.step(ONE) for session in sessions))
    assert LEAST_ITEMS <= (await window_of(client)).room < 100


async def test_another_refusal_limits_nothing(server: CountingServer, client: AsyncClient) -> None:
    sessions = [await client.open(f"pump {number}") for number in range(20)]
    server.refusals = [Refused("STORE_UNAVAILABLE", delay_ms=1) for _ in range(20)]
    await asyncio.gather(*(session.step(ONE) for session in sessions))
    assert (await window_of(client)).room == UNLIMITED


async def test_a_session_whose_own_queue_is_full_limits_no_others(server: CountingServer, client: AsyncClient) -> None:
    sessions = [await client.open(f"pump {number}") for number in range(20)]
    server.refusals = [Refused("QUEUE_FULL", delay_ms=1, field="session") for _ in range(20)]
    await asyncio.gather(*(session.step(ONE) for session in sessions))
    window = await window_of(client)
    assert (window.room, window.refusal) == (UNLIMITED, None)


async def test_a_writer_without_room_sleeps(server: CountingServer, client: AsyncClient) -> None:
    """It makes no frame until an answer gives it room. Otherwise it would never give way to the other tasks."""
    sessions, window = await limited(server, client, 100)
    (endpoint,) = client._connected().endpoints.order("pump")
    stream = endpoint._stream
    assert stream is not None
    server.gate.clear()
    held = [asyncio.ensure_future(session.step(ONE)) for session in sessions[:60]]
    await until(lambda: window.room < 1 and stream._inflight.room())  # only the window holds it back

    own, tries = stream._next_message, 0

    def counted() -> Any:
        nonlocal tries
        tries += 1
        assert tries < 100, "the writer goes round without room"
        return own()

    stream._next_message = counted  # type: ignore[method-assign]
    more = [asyncio.ensure_future(session.step(ONE)) for session in sessions[60:]]
    for _ in range(50):
        await asyncio.sleep(0)
        stream.wake()  # as an answer that leaves no room does
    assert tries == 0
    server.gate.set()
    await asyncio.gather(*held, *more)
    assert tries > 0
