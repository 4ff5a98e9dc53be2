"""The blocking client."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cellkeeper import AsyncClient, Client, Closed, DeadlineExceeded, InvalidArgument, SessionNotFound, StepReply
from cellkeeper._session.blocking_answer import BlockingAnswer
from cellkeeper._session.step_call import StepCall
from cellkeeper._transport.loop_thread import LoopThread

from .conftest import QUICK, ServerThread

ONE = [1.0, 1.0]


def test_a_session_from_end_to_end(target: str) -> None:
    with Client(target) as client:
        with client.session("pump-17") as session:
            assert session.created
            assert session.step(ONE).tolist() == [1, 1]
            assert [y.tolist() for y in session.stream([ONE] * 100)] == [[n, n] for n in range(2, 102)]
            assert session.last_reply is not None
            assert session.last_reply.position == session.position
            assert session.peek([1.0, 5.0]).tolist() == [102, 106]
            assert session.step_reply(ONE, outputs=["hidden"]).output.tolist() == [102, 102]
            branch = session.fork("pump-17/what-if")
            assert branch.step(ONE).tolist() == [103, 103]
            assert session.state()["h"].tolist() == [[102, 102]]
            session.set_state({"h": [[1.0, 2.0]]})
            assert session.position.step == 102
            assert session.reset().step == 0
            assert session.info().session == session.id == "pump-17"
        assert [info.session for info in client.sessions("pump")] == ["pump-17", "pump-17/what-if"]
        assert client.model().name == client.models()[0].name == session.model.name
        with pytest.raises(Closed):
            session.step(ONE)
        again = client.session("pump-17")
        assert not again.created
        assert again.delete()
        with pytest.raises(SessionNotFound):
            again.step(ONE)
    with pytest.raises(Closed):
        client.models()
    client.close()


def test_a_blocked_step_ends_with_its_deadline_and_with_the_client(threaded: ServerThread) -> None:
    async def gate(opened: bool) -> None:
        (threaded.server.gate.set if opened else threaded.server.gate.clear)()

    with Client(threaded.target, attempt_timeout=0.2) as client, ThreadPoolExecutor(1) as pool:
        session = client.session("a")
        threaded.do(gate(False))
        with pytest.raises(DeadlineExceeded):
            session.step(ONE, timeout=0.05)
        with pytest.raises(InvalidArgument):
            session.step([1.0])
        sent = client.counters.frames_sent
        blocked = pool.submit(session.step, ONE)
        while client.counters.frames_sent == sent:
            threaded.do(gate(False))
        client.close()
        with pytest.raises(Closed):
            blocked.result(10)
        threaded.do(gate(True))


def test_the_last_reply_is_the_latest_whichever_thread_wakes_first(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, answered, goes_on = BlockingAnswer.wait, threading.Event(), threading.Event()

    def wait_and_pause(answer: BlockingAnswer[StepReply, StepCall]) -> StepReply:
        reply = wait(answer)
        if threading.current_thread().name == "slow":
            answered.set()
            assert goes_on.wait(30)
        return reply

    monkeypatch.setattr(BlockingAnswer, "wait", wait_and_pause)
    with Client(target) as client:
        session = client.session("a")
        slow = threading.Thread(target=session.step, args=(ONE,), name="slow")
        slow.start()
        assert answered.wait(30)
        second = session.step_reply(ONE)
        goes_on.set()
        slow.join()
        assert second.position.step == 2
        assert session.last_reply is second


def test_an_interrupted_step_counts_if_it_was_sent(threaded: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: BlockingAnswer[StepReply, StepCall]) -> None:
        raise KeyboardInterrupt

    with Client(threaded.target) as client:
        session = client.session("a")
        with monkeypatch.context() as patch:
            patch.setattr(BlockingAnswer, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.step(ONE)
        assert session.position.step <= 1
        y = session.step(ONE)
        assert y.tolist() == [threaded.server.applied_steps] * 2  # once or twice, as often as it was sent
        assert session.position.step == threaded.server.applied_steps


def test_what_still_runs_when_the_client_is_closed_ends_with_closed(
    threaded: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellkeeper._transport.loop_thread.END_SECONDS", 0.05)
    started = threading.Event()

    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    with Client(threaded.target) as client, ThreadPoolExecutor(1) as pool:
        running = pool.submit(client._thread.run, endless())
        assert started.wait(10)
        client.close()
        with pytest.raises(Closed):
            running.result(10)


@pytest.mark.parametrize("call", ["step", "peek"])
def test_a_signal_handler_may_close_the_client_while_a_call_is_submitted(
    threaded: ServerThread, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The signal arrives when the call has found the client open."""
    client = Client(threaded.target)
    session, check, before = client.session("a"), LoopThread.check, signal.getsignal(signal.SIGUSR1)

    def check_before_the_signal(thread: LoopThread) -> None:
        check(thread)
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, lambda *_: client.close())
    try:
        monkeypatch.setattr(LoopThread, "check", check_before_the_signal)
        with pytest.raises(Closed):
            getattr(session, call)(ONE)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.timeout(30)
def test_what_goes_wrong_in_the_clients_thread_is_raised(threaded: ServerThread) -> None:
    def outputs() -> Iterator[str]:
        raise KeyError("mine")
        yield "prediction"

    lazy: Any = outputs
    with Client(threaded.target) as client:
        session, group = client.session("a"), client.group(["b"])
        for call in (session.step, session.peek, lambda x, outputs: group.step([x], outputs=outputs)):
            with pytest.raises(KeyError, match="mine"):
                call(ONE, outputs=lazy())
        assert session.step(ONE).tolist() == [1, 1]


def test_several_threads_share_a_client(threaded: ServerThread) -> None:
    with Client(threaded.target) as client:

        def walk(index: int) -> list[float]:
            session = client.session(f"s{index}")
            for _ in range(30):
                last = session.step(ONE)
            return [float(value) for value in last]

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(walk, range(8))) == [[30.0, 30.0]] * 8
        assert threaded.server.applied_steps == 240


def test_several_threads_share_a_session(threaded: ServerThread) -> None:
    with Client(threaded.target) as client:
        session = client.session("a")
        with ThreadPoolExecutor(8) as pool:
            ys = list(pool.map(lambda _: float(session.step(ONE)[0]), range(100)))
        assert sorted(ys) == [float(n) for n in range(1, 101)]


def test_a_stream_reads_in_the_callers_thread_and_stops_early(threaded: ServerThread) -> None:
    readers = set()

    def source() -> object:
        for _ in range(100):
            readers.add(threading.get_ident())
            yield ONE

    with Client(threaded.target, backoff=QUICK) as client:
        session = client.session("a")
        for y in session.stream(source(), window=10):  # type: ignore[arg-type]
            if y[0] == 20:
                break
        assert readers == {threading.get_ident()}
        y = session.step(ONE)
        assert 21 <= y[0] <= 31
        with pytest.raises(InvalidArgument):
            list(session.stream([ONE, [1.0]]))
        threaded.server.lose_replies = 2
        assert len(list(session.stream([ONE] * 50, chunk_steps=7))) == 50
        assert session.position.step == threaded.server.applied_steps


@pytest.mark.timeout(30)
@pytest.mark.timeout(30)
def test_ids_may_come_from_the_client_that_takes_them(real_target: str) -> None:
    with Client(real_target) as client:
        for name in ("ids/a", "ids/b"):
            client.session(name).step(ONE)

        def ids() -> Iterator[str]:
            return (info.session for info in client.sessions("ids/"))

        group = client.group(ids())
        assert set(group.ids) == {"ids/a", "ids/b"}
        group.remove(ids())
        assert len(group) == 0
        assert group.add(ids()) == {"ids/a": False, "ids/b": False}
        assert group.state(ids())["h"].tolist() == [[[1, 1]], [[1, 1]]]
        assert client.carry_over("reset", sessions=ids()).counts == {"already": 2}
        assert {name: position.step for name, position in group.reset(ids()).items()} == {"ids/a": 0, "ids/b": 0}
        assert group.delete(ids()) == {"ids/a": True, "ids/b": True}


def test_closing_a_session_after_its_client_does_nothing(threaded: ServerThread) -> None:
    with Client(threaded.target) as client:
        session, group = client.session("a"), client.group(["b"])
    session.close()
    group.close()


def test_a_loop_that_ends_with_an_open_client_in_it_ends(threaded: ServerThread) -> None:
    """The client is not closed: whatever ends the program cancels what is left of it."""

    async def leave_it_open() -> list[float]:
        client = AsyncClient(threaded.target)
        session = await client.open("a")
        return [float(value) for value in await session.step(ONE)]

    with pytest.warns(ResourceWarning, match="AsyncClient was not closed"):
        assert asyncio.run(leave_it_open()) == [1, 1]


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_the_thread_of_a_client_that_was_left_open_ends_where_warnings_are_errors(
    threaded: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: unraisable.append(what.exc_value))
    client = Client(threaded.target)
    client.session("a").step(ONE)
    thread = client._thread._thread
    del client
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    assert [str(error) for error in unraisable] == ["a Client was not closed: use `with`, or call its close()"]


def test_a_finalizer_may_close_a_client_that_is_garbage_too(
    threaded: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client, which is collected together with the object that closes it, is ending by then."""
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    told: list[str] = []

    class Holder:
        def __init__(self) -> None:
            self.client = Client(threaded.target)
            self.session = self.client.session("a")
            self.itself = self

        def __del__(self) -> None:
            try:
                self.session.step(ONE)
            except Closed as error:
                told.append(str(error))
            self.client.close()

    holder = Holder()
    thread = holder.client._thread._thread
    del holder
    with pytest.warns(ResourceWarning, match="a Client was not closed"):
        gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    assert failed == []
    assert told == ["the client was closed"]
