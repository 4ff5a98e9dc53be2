"""Arguments besides inputs are accepted, or refused with the field's name, and the client stays usable."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, Backoff, CellkeeperError, Client, InvalidArgument, Position, first_position

from .conftest import ServerThread

X = [1.0, 2.0]
ANY: Any = object()
TEXT: Any = "00:1:00"
NO_IDS: list[Any] = [None, 7, uuid.UUID(int=1), b"pump", "", "x" * 257, "\ud800", "pump-\udcff", ["pump"]]
NO_TIMEOUTS: list[Any] = [0, -1, -0.5, float("nan"), float("-inf"), "5", True, -(10**400), timedelta(0), timedelta(-1)]
TIMEOUTS: list[Any] = [30, 2, 0.5 + 60, np.float32(9.5), np.int64(40), timedelta(minutes=1)]
LONG_TIMEOUTS: list[Any] = [4_294_968.0, 5e6, timedelta(days=60), 1e300, float("inf"), 10**400]
NO_TTLS: list[Any] = [0.0004, -1, float("nan"), float("inf"), 1e300, "60", True, 10**400, timedelta(microseconds=1)]


@pytest.fixture(scope="module")
def counting() -> Iterator[ServerThread]:
    thread = ServerThread()
    yield thread
    thread.close()


@pytest.mark.parametrize("given", NO_IDS, ids=repr)
def test_what_is_no_id_is_refused_with_its_field(target: str, given: Any) -> None:
    calls: dict[str, list[Callable[[Client], object]]] = {
        "session": [
            lambda client: client.session(given),
            lambda client: client.session_info(given),
            lambda client: client.delete(given, bytes(16)),
            lambda client: client.reset(given, bytes(16)),
        ],
        "target": [lambda client: client.session("source").fork(given)],
        "prefix": [] if isinstance(given, str) and given.isascii() else [lambda client: list(client.sessions(given))],
    }
    with Client(target) as client:
        for field, some in calls.items():
            for call in some:
                with pytest.raises(InvalidArgument) as raised:
                    call(client)
                assert raised.value.field == field
                assert field in str(raised.value)
        assert client.session("after").step(X) is not None


@pytest.mark.parametrize("given", NO_TIMEOUTS, ids=repr)
def test_what_is_no_timeout_is_refused_with_its_field(target: str, given: Any) -> None:
    with pytest.raises(InvalidArgument, match="timeout: got"):
        Client(target, timeout=given)
    with pytest.raises(InvalidArgument, match="attempt_timeout: got"):
        AsyncClient(target, attempt_timeout=given)
    with Client(target) as client:
        session, group = client.session("pump"), client.group(["pump-2"])
        calls: list[Callable[[], object]] = [
            lambda: session.step(X, timeout=given),
            lambda: list(session.stream([X], timeout=given)),
            lambda: session.peek(X, timeout=given),
            lambda: session.state(timeout=given),
            lambda: session.reset(timeout=given),
            lambda: client.session("other", timeout=given),
            lambda: client.models(timeout=given),
            lambda: client.group(["other"], timeout=given),
            lambda: group.step([X], timeout=given),
            lambda: group.peek([X], timeout=given),
            lambda: group.state(timeout=given),
            lambda: group.reset(timeout=given),
            lambda: group.add(["other"], timeout=given),
            lambda: group.remove(["pump-2"], timeout=given),
            lambda: group.settle(timeout=given),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument, match="timeout: got"):
                call()
        assert session.step(X).tolist()[0] == 1


@pytest.mark.parametrize("given", [*TIMEOUTS, *LONG_TIMEOUTS], ids=repr)
async def test_a_timeout_of_any_length_leaves_the_client_alive(target: str, given: Any) -> None:
    """The wire counts milliseconds in 32 bits: 49.7 days."""
    async with AsyncClient(target, timeout=given) as client:
        session = await client.open("pump", timeout=given)
        first = await session.step(X, timeout=given)
        second = await asyncio.wait_for(session.step(X), 20)
        assert (first.tolist()[0], second.tolist()[0]) == (1, 2)
        assert (await session.peek(X, timeout=given)).tolist()[0] == 3


@pytest.mark.parametrize("given", NO_TTLS, ids=repr)
def test_what_is_no_ttl_is_refused_and_never_becomes_for_ever(target: str, given: Any) -> None:
    with Client(target) as client:
        with pytest.raises(InvalidArgument, match="ttl: got") as raised:
            client.session("pump", ttl=given)
        assert raised.value.field == "ttl"
        with pytest.raises(CellkeeperError):
            client.session_info("pump")


@pytest.mark.parametrize(
    ("given", "ttl_ms"), [(0, 0), (60, 60_000), (0.001, 1), (2.5, 2500), (timedelta(hours=1), 3_600_000), (1e8, 10**11)]
)
def test_a_ttl(real_target: str, given: Any, ttl_ms: int) -> None:
    with Client(real_target) as client:
        session = client.session(f"ttl-{ttl_ms}", ttl=given)
        if ttl_ms != 1:
            assert client.session_info(session.id).ttl_seconds == ttl_ms / 1000


@pytest.mark.parametrize("given", [None, "aa", 5, bytearray(16)], ids=repr)
def test_what_is_no_generation_is_refused(target: str, given: Any) -> None:
    with Client(target) as client:
        for call in (client.delete, client.reset):
            with pytest.raises(InvalidArgument, match="generation: got"):
                call("pump", given)


Call = Callable[[Client], object]
WRONG: list[tuple[str, str, Call]] = [
    ("model", "session", lambda client: client.session("a", model=ANY)),
    ("model", "session_info", lambda client: client.session_info("a", model=ANY)),
    ("model", "session_state", lambda client: client.session_state("a", model=ANY)),
    ("model", "sessions", lambda client: list(client.sessions(model=ANY))),
    ("model", "delete", lambda client: client.delete("a", bytes(16), model=ANY)),
    ("model", "reset", lambda client: client.reset("a", bytes(16), model=ANY)),
    ("model", "carry_over", lambda client: client.carry_over("keep", model=ANY)),
    ("name", "model", lambda client: client.model(ANY)),
    ("fingerprint", "model", lambda client: client.model("count", ANY)),
    ("fingerprint", "carry_over", lambda client: client.carry_over("keep", fingerprint=ANY)),
    ("fingerprint", "Session.carry_over", lambda client: client.session("a").carry_over("keep", fingerprint=ANY)),
    ("policy", "carry_over", lambda client: client.carry_over(ANY)),
    ("policy", "Session.carry_over", lambda client: client.session("a").carry_over(ANY)),
    ("prefix", "carry_over", lambda client: client.carry_over("keep", prefix=ANY)),
    ("sessions", "carry_over", lambda client: client.carry_over("keep", sessions=ANY)),
    ("sessions", "carry_over, items", lambda client: client.carry_over("keep", sessions=[ANY])),
    ("sessions", "carry_over, one text", lambda client: client.carry_over("keep", sessions="pump")),
    ("expect", "session", lambda client: client.session("a", expect=ANY)),
    ("expect", "session, a text", lambda client: client.session("a", expect=TEXT)),
    ("at", "session at", lambda client: client.session("a", at=ANY)),
    ("at", "session at, a text", lambda client: client.session("a", at=TEXT)),
    ("expect.step", "session, below 0", lambda client: client.session("a", expect=Position(bytes(16), -1, bytes(8)))),
    ("at.step", "session, not whole", lambda client: client.session("a", at=Position(bytes(16), ANY, bytes(8)))),
    ("at.generation", "session", lambda client: client.session("a", at=Position(TEXT, 1, bytes(8)))),
    ("at.head", "session", lambda client: client.session("a", at=Position(bytes(16), 1, TEXT))),
    ("expect[a].step", "group", lambda client: client.group(["a"], expect={"a": Position(bytes(16), 2**64, bytes(8))})),
    (
        "position.step",
        "fork",
        lambda client: client.session("a").fork("b", position=Position(bytes(16), 2**64, bytes(8))),
    ),
    ("model", "group", lambda client: client.group(["a"], model=ANY)),
    ("ttl", "group", lambda client: client.group(["a"], ttl=ANY)),
    ("expect", "group", lambda client: client.group(["a"], expect=ANY)),
    ("expect[a]", "group, a text", lambda client: client.group(["a"], expect={"a": TEXT})),
    ("expect", "group, another id", lambda client: client.group(["a"], expect={"b": first_position(bytes(16))})),
    ("position", "fork", lambda client: client.session("a").fork("b", position=ANY)),
    ("initial_state", "session", lambda client: client.session("a", initial_state=ANY)),
    ("state", "set_state", lambda client: client.session("a").set_state(ANY)),
    ("step", "set_state", lambda client: client.session("a").set_state({"h": [[0, 0]]}, step=ANY)),
    ("step", "set_state, too high", lambda client: client.session("a").set_state({"h": [[0, 0]]}, step=2**64)),
    ("step", "set_state, below 0", lambda client: client.session("a").set_state({"h": [[0, 0]]}, step=-1)),
    ("outputs", "session", lambda client: client.session("a", outputs=ANY)),
    ("outputs", "step", lambda client: client.session("a").step(X, outputs=ANY)),
    ("outputs", "step, one text", lambda client: client.session("a").step(X, outputs="hidden")),
    ("outputs", "step, none", lambda client: client.session("a").step(X, outputs=[])),
    ("outputs", "step, items", lambda client: client.session("a").step(X, outputs=[ANY])),
    ("outputs", "peek", lambda client: client.session("a").peek(X, outputs="hidden")),
    ("outputs", "stream", lambda client: list(client.session("a").stream([X], outputs="hidden"))),
    ("outputs", "group", lambda client: client.group(["a"], outputs=ANY)),
    ("outputs", "group, one text", lambda client: client.group(["a"], outputs="hidden")),
    ("outputs", "group, none", lambda client: client.group(["a"], outputs=[])),
    ("outputs", "Group.step", lambda client: client.group(["a"]).step([X], outputs="hidden")),
    ("outputs", "Group.step, none", lambda client: client.group(["a"]).step([X], outputs=[])),
    ("outputs", "Group.peek", lambda client: client.group(["a"]).peek([X], outputs="hidden")),
    ("outputs", "Group.peek_reply, items", lambda client: client.group(["a"]).peek_reply([X], outputs=[ANY])),
    ("sessions", "group", lambda client: client.group(ANY)),
    ("sessions", "Group.add", lambda client: client.group(["a"]).add(ANY)),
    ("sessions", "Group.remove", lambda client: client.group(["a"]).remove(ANY)),
    ("sessions", "Group.reset", lambda client: client.group(["a"]).reset(ANY)),
    ("window", "stream", lambda client: list(client.session("a").stream([X], window=ANY))),
    ("window", "stream, not whole", lambda client: list(client.session("a").stream([X], window=1.5))),  # type: ignore[arg-type]
    ("chunk_steps", "stream", lambda client: list(client.session("a").stream([X], chunk_steps=ANY))),
    ("steps", "forecast", lambda client: client.session("a").forecast(X, steps=ANY)),
    ("outputs", "Client", lambda _: Client("localhost:1", outputs="hidden")),
    ("window_steps", "Client", lambda _: Client("localhost:1", window_steps=ANY)),
    ("buffer_steps", "Client", lambda _: Client("localhost:1", buffer_steps=ANY)),
    ("buffer_bytes", "Client", lambda _: Client("localhost:1", buffer_bytes=ANY)),
    ("max_frame_items", "Client", lambda _: Client("localhost:1", max_frame_items=ANY)),
    ("tls", "Client", lambda _: Client("localhost:1", tls=ANY)),
    ("tls", "Client, a path", lambda _: Client("localhost:1", tls=TEXT)),
    ("credentials", "Client", lambda _: Client("localhost:1", credentials=ANY)),
    ("backoff", "Client", lambda _: Client("localhost:1", backoff=ANY)),
    ("backoff.first_seconds", "Client, 0", lambda _: Client("localhost:1", backoff=Backoff(first_seconds=0))),
    ("backoff.first_seconds", "Client, a text", lambda _: Client("localhost:1", backoff=Backoff(first_seconds=TEXT))),
    ("backoff.max_seconds", "Client, below 0", lambda _: Client("localhost:1", backoff=Backoff(max_seconds=-1))),
    ("backoff.max_seconds", "Client, NaN", lambda _: Client("localhost:1", backoff=Backoff(max_seconds=float("nan")))),
    ("token", "Client", lambda _: Client("localhost:1", token=ANY)),
    ("connect_timeout", "Client", lambda _: Client("localhost:1", connect_timeout=ANY)),
]


@pytest.mark.parametrize(("field", "where", "call"), WRONG, ids=[f"{field}: {where}" for field, where, _ in WRONG])
def test_what_is_of_the_wrong_type_is_refused_with_its_field(
    counting: ServerThread, field: str, where: str, call: Call
) -> None:
    with Client(counting.target) as client:
        with pytest.raises(InvalidArgument, match=f"{re.escape(field)}: got") as raised:
            call(client)
        assert (raised.value.field, raised.value.reason) == (field, "INVALID_FIELD")
        assert client.session("after").step(X) is not None


def test_what_the_server_refuses_is_named_as_the_caller_knows_it(real_target: str) -> None:
    with Client(real_target) as client:
        session = client.session("named")
        calls: dict[str, Callable[[], object]] = {
            "target": lambda: session.fork("named"),
            "generation": lambda: client.delete("named", b"short"),
        }
        for field, call in calls.items():
            with pytest.raises(InvalidArgument, match=f"^{field}: got") as raised:
                call()
            assert raised.value.field == field


def test_a_connect_timeout_may_be_a_timedelta(threaded: ServerThread) -> None:
    second: Any = timedelta(seconds=1)
    with Client(threaded.target, connect_timeout=second) as client:
        assert client.session("a").step(X).tolist() == [1, 2]
