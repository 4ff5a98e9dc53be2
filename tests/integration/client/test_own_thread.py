"""A blocking call in the thread of its own client, which would wait for itself, raises at once."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cellkeeper import CellkeeperError, Client, Group, Session, SessionInfo, WrongThread, first_position

from .conftest import ServerThread

pytestmark = pytest.mark.timeout(60)
X = [1.0, 1.0]
INFO = SessionInfo("a", first_position(bytes(16)), bytes(32), 0, 0.0, 0.0, 0.0, False)

CLIENT: dict[str, Callable[[Client], object]] = {
    "session": lambda client: client.session("b"),
    "open": lambda client: client.open("b"),
    "group": lambda client: client.group(["b"]),
    "session_info": lambda client: client.session_info("a"),
    "session_state": lambda client: client.session_state("a"),
    "sessions": lambda client: list(client.sessions()),
    "delete": lambda client: client.delete("a", bytes(16)),
    "delete_many": lambda client: client.delete_many([INFO]),
    "reset": lambda client: client.reset("a", bytes(16)),
    "carry_over": lambda client: client.carry_over("reset"),
    "models": lambda client: client.models(),
    "model": lambda client: client.model(),
    "wait_ready": lambda client: client.wait_ready(),
    "close": lambda client: client.close(),
}
SESSION: dict[str, Callable[[Session], object]] = {
    "unsettled": lambda session: session.unsettled,
    "settle": lambda session: session.settle(),
    "step": lambda session: session.step(X),
    "step_reply": lambda session: session.step_reply(X),
    "stream": lambda session: list(session.stream([X])),
    "stream_replies": lambda session: list(session.stream_replies([X])),
    "peek": lambda session: session.peek(X),
    "peek_reply": lambda session: session.peek_reply(X),
    "forecast": lambda session: session.forecast(X, steps=1),
    "forecast_reply": lambda session: session.forecast_reply(X, steps=1),
    "reset": lambda session: session.reset(),
    "set_state": lambda session: session.set_state({"h": [[0.0, 0.0]]}),
    "carry_over": lambda session: session.carry_over("reset"),
    "fork": lambda session: session.fork("b"),
    "delete": lambda session: session.delete(),
    "state": lambda session: session.state(),
    "state_reply": lambda session: session.state_reply(),
    "info": lambda session: session.info(),
    "close": lambda session: session.close(),
}
GROUP: dict[str, Callable[[Group], object]] = {
    "unsettled": lambda group: group.unsettled,
    "settle": lambda group: group.settle(),
    "step": lambda group: group.step([X]),
    "step_reply": lambda group: group.step_reply([X]),
    "peek": lambda group: group.peek([X]),
    "peek_reply": lambda group: group.peek_reply([X]),
    "forecast": lambda group: group.forecast([X], steps=1),
    "forecast_reply": lambda group: group.forecast_reply([X], steps=1),
    "add": lambda group: group.add(["b"]),
    "remove": lambda group: group.remove(["member"]),
    "reset": lambda group: group.reset(),
    "delete": lambda group: group.delete(),
    "state": lambda group: group.state(),
    "close": lambda group: group.close(),
}
CALLS: dict[type, dict[str, Callable[[Any], object]]] = {Client: CLIENT, Session: SESSION, Group: GROUP}
EACH = [(kind, name) for kind, calls in CALLS.items() for name in calls]


class Callback:
    """A token callable that makes a call of its own when it is told to, and keeps what came of it."""

    def __init__(self) -> None:
        self.call: Callable[[], object] | None = None
        self.error: CellkeeperError | None = None

    def __call__(self) -> str:
        call, self.call = self.call, None
        if call is not None:
            try:
                call()
            except CellkeeperError as error:
                self.error = error
        return "token"


@pytest.fixture(scope="module")
def counting() -> Iterator[ServerThread]:
    thread = ServerThread()
    yield thread
    thread.close()


@pytest.mark.parametrize(("kind", "name"), EACH, ids=[f"{kind.__name__}.{name}" for kind, name in EACH])
def test_a_call_from_a_callback_of_its_own_client_raises(counting: ServerThread, kind: type, name: str) -> None:
    callback = Callback()
    with Client(counting.target, token=callback) as client:
        used = {Client: client, Session: client.session("a"), Group: client.group(["member"])}[kind]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of coroutines that were never awaited
            callback.call = lambda: CALLS[kind][name](used)
            client.models()
            gc.collect()
        assert isinstance(callback.error, WrongThread)
        told = {"open": "session", "stream_replies": "stream"}.get(name, name.removesuffix("_reply"))
        assert str(callback.error).startswith(told)
        assert "use another Client" in str(callback.error)
        assert client.session("a").step(X) is not None, "the client is not usable any more"


@pytest.mark.parametrize("kind", CALLS)
def test_these_are_all_calls_that_block(kind: type) -> None:
    """Of the other properties none asks the client's thread."""
    methods = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
    assert set(CALLS[kind]) - {"unsettled"} == methods


def test_a_callback_may_use_another_client(counting: ServerThread) -> None:
    callback = Callback()
    with Client(counting.target) as other, Client(counting.target, token=callback) as client:
        callback.call = lambda: other.session("another").step(X)
        client.models()
        assert callback.error is None
        assert other.session_info("another").position.step == 1


def test_a_stream_that_is_collected_while_a_call_is_submitted_holds_nothing_up(
    counting: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(counting.target) as client:
        session = client.session("collected")
        loop, stream = client._thread._loop, session.stream([X] * 9)
        next(stream)
        own, cycle = loop.call_soon_threadsafe, [stream]
        cycle.append(cycle)  # type: ignore[arg-type]
        del cycle, stream

        def collecting(*arguments: Any, **more: Any) -> Any:
            monkeypatch.setattr(loop, "call_soon_threadsafe", own)
            gc.collect()  # as Python may at any time
            return own(*arguments, **more)

        monkeypatch.setattr(loop, "call_soon_threadsafe", collecting)
        assert session.step(X) is not None
