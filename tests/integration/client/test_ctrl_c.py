"""Ctrl-C while a step or a stream of the blocking client waits: the step may count, and the session goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cellkeeper import Client, Session

from .conftest import QUICK, ServerThread
from .late_steps import sample


@contextmanager
def ctrl_c(when: Callable[[], bool]) -> Iterator[None]:
    """Interrupts the main thread once `when` holds."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if when():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("way", ["step", "stream"])
def test_ctrl_c(threaded: ServerThread, way: str) -> None:
    async def gate(opened: bool) -> None:
        (threaded.server.gate.set if opened else threaded.server.gate.clear)()

    def consume(session: Session) -> None:
        if way == "step":
            session.step(sample(1))
        else:
            for _ in session.stream([sample(number) for number in range(1, 9)], window=1):
                pass

    with Client(threaded.target, backoff=QUICK) as client:
        session = client.session("a")
        session.step(sample(0))
        threaded.do(gate(False))
        sent = threaded.server.frames
        with ctrl_c(lambda: threaded.server.frames > sent):
            consume(session)
        (late,) = session.unsettled
        threaded.do(gate(True))
        assert session.step(sample(9)).tolist() == [1 + 2 + 512, 0]
        assert (late.applied, session.unsettled) == (True, ())
        assert session.last_reply is not None
        assert session.last_reply.late_steps == (late,)
