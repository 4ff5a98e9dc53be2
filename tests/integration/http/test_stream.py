"""Steps over a WebSocket: in order, exactly once even if the server is killed, refused with gRPC's messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cellkeeper_service.domain.position import Position, advance

from testing.bundles import token_bundle
from testing.forked_server import ForkedServer
from tests.integration.rpc.calls import Api, Chunk, numbers

from .front import TIMEOUT_S, Front, RawSocket, Session, closing, serving, sums, where


@pytest.fixture(scope="module")
def front(counting_model: Path, lstm_model: Path) -> Iterator[Front]:
    with serving([counting_model, lstm_model], options=["--max-stream-frames", "8"]) as made:
        yield made


class Line:
    """An open socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def receive(self) -> Any:
        return await self.socket.receive_json(timeout=TIMEOUT_S)

    async def ask(self, **message: Any) -> Any:
        await self.send(**message)
        return await self.receive()


@asynccontextmanager
async def line(session: Session, what: str = "/stream") -> AsyncIterator[Line]:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{session.front.url}{session.path}{what}") as socket:
        yield Line(socket)


def after(at: Any, *inputs: float) -> Any:
    """Returns the position after these inputs, as a client that sends ahead computes it."""
    position = Position(bytes.fromhex(at["generation"]), int(at["step"]), bytes.fromhex(at["head"]))
    moved = advance(position, numbers(*inputs).tobytes(), 4)
    return {"generation": moved.generation.hex(), "step": moved.step, "head": moved.head.hex()}


async def test_replies_come_in_the_order_of_the_messages(front: Front) -> None:
    """Even replies to messages that are refused at once, after steps that take a while."""
    session = front.session()
    at = session.open()
    async with line(session) as one:
        for number in range(1, 31):
            await one.send(id=number, inputs=[number], position=at)
            at = after(at, number)
            await one.send(id=f"bad {number}", inputs=["x"], position=at)
        total = 0
        for number in range(1, 31):
            reply, refused = await one.receive(), await one.receive()
            total += number
            assert (reply["id"], sums(reply)) == (number, [total])
            assert refused["id"] == f"bad {number}"
            assert refused["error"]["message"].startswith("inputs: got 'x'")
        assert reply["position"] == at == session.position()


async def test_a_chunk_a_peek_and_the_state(front: Front) -> None:
    session = front.session("lstm")
    at = session.open()
    chunk = [[1, 2, 3], [4, 5, 6]]
    async with line(session) as one:
        peeked = await one.ask(inputs=chunk, peek=True)
        reply = await one.ask(inputs=chunk, position=at, outputs=["prediction", "hidden", "state"], acked=0)
        assert peeked["outputs"]["prediction"] == reply["outputs"]["prediction"]
        assert peeked["position"] == reply["position"]
        assert "id" not in reply
        assert len(reply["outputs"]["hidden"]) == 2
        assert reply["states"] == session.ask("GET", "/state").ok["states"]
        again = await one.ask(inputs=chunk, position=at)
        assert (again["replayed"], again["outputs"]["prediction"]) == (True, reply["outputs"]["prediction"])


async def test_each_step_takes_effect_once_whatever_is_killed(counting_model: Path, tmp_path: Path) -> None:
    """The client resends what has no answer. The server is killed with steps in flight."""
    store = f"sqlite:{tmp_path / 'sessions.db'}"
    server = ForkedServer([counting_model], store, ["--http-listen", "127.0.0.1:0"])
    with server:
        session = Front(where(server), server).session()
        at = session.open()
        async with line(session) as one:
            ahead = at
            for number in range(1, 9):  # sent without waiting
                await one.send(inputs=[number], position=ahead)
                ahead = after(ahead, number)
            first = await one.receive()
            assert sums(first) == [1]
            server.kill()
        server.restart()
        session = Front(where(server), server).session(name=session.name)
        at, total = first["position"], 1
        async with line(session) as one:
            for number in range(2, 9):
                reply = await one.ask(inputs=[number], position=at)
                total += number
                assert sums(reply) == [total]
                at = reply["position"]
        assert session.position() == at == ahead


async def test_refusals_are_those_of_grpc_in_the_same_words(front: Front) -> None:
    session = front.session()
    start = session.open()
    first = session.step([1], position=start)["position"]
    second = session.step([2], position=first)["position"]
    with front.server.channel() as channel:
        api = Api(front.server.stub(channel))
        async with line(session) as one:
            asked: list[tuple[Any, list[float]]] = [
                ({**second, "step": 9}, [1]),
                ({**second, "generation": "0" * 32}, [1]),
                ({**second, "head": "0" * 16}, [1]),
                (first, [5]),
                (second, [float("1e38"), float("3e38")]),
                (second, []),
            ]
            for at, inputs in asked:
                position = Position(bytes.fromhex(at["generation"]), at["step"], bytes.fromhex(at["head"]))
                values = [[value] for value in inputs]
                expected = api.send("stream", Chunk(session.name, numbers(*inputs), position)) if inputs else None
                body = {"inputs": values or [], "position": at}
                over_socket = (await one.ask(**body))["error"]
                over_http = session.ask("POST", "/step", body).error
                assert over_socket["code"] == over_http["code"]
                if expected is not None and expected.code != "OK":
                    assert (over_socket["code"], over_socket["reason"], over_socket["message"]) == (
                        expected.code,
                        expected.reason,
                        expected.message,
                    )
                    assert over_http["message"] == expected.message
                    assert over_http["details"].get("position") == over_socket["details"].get("position")
        assert session.position() == second


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("{", "message: got text that is not JSON"),
        ("[]", "message: got a list of 0, expected an object"),
        (b"{}", "message: got 2 bytes, expected text: a JSON object"),
    ],
)
async def test_what_is_no_message_ends_the_socket(front: Front, message: str | bytes, text: str) -> None:
    session = front.session()
    at = session.open()
    async with line(session) as one:
        assert sums(await one.ask(inputs=[1], position=at)) == [1]
        await (one.socket.send_str(message) if isinstance(message, str) else one.socket.send_bytes(message))
        error = (await one.receive())["error"]
        assert error["message"].startswith(text)
        assert await closing(one.socket) == (1008, "INVALID_FIELD")


@pytest.mark.parametrize("identity", [r'"\ud800"', "1e999", "null", "[1]", "true", f"{10**400}", f'"{"é" * 129}"'])
async def test_an_id_is_a_string_or_a_number(front: Front, identity: str) -> None:
    session = front.session()
    at = session.open()
    async with line(session) as one:
        await one.socket.send_str(f'{{"id": {identity}, "inputs": [1], "position": {json.dumps(at)}}}')
        refused = await one.receive()
        assert "id" not in refused
        assert refused["error"]["message"].startswith("id: got ")
        for good in ("x", 7, 0.5, "", "é" * 128):
            reply = await one.ask(id=good, inputs=[1], position=at)
            assert reply["id"] == good
            at = reply["position"]


async def test_a_message_that_is_too_large_ends_the_socket(front: Front) -> None:
    session = front.session()
    async with line(session) as one:
        await one.socket.send_str(json.dumps({"inputs": [[1]] * 400_000}))
        assert (await closing(one.socket))[0] == 1009
    assert front.ask("GET", "/v1/server").status == 200


def test_a_client_that_reads_nothing_is_not_read_either(front: Front) -> None:
    """Once 8 of its messages have replies that have not left, further ones stay in the client's buffers."""
    session = front.session("lstm")
    at = session.open()
    with RawSocket(front, f"{session.path}/stream") as deaf:
        peek = deaf.frame(json.dumps({"inputs": [[1, 2, 3]] * 1000, "peek": True, "outputs": ["hidden"]}).encode())
        deaf.socket.settimeout(1.0)
        sent = 0
        with suppress(TimeoutError):
            while sent < 2000:
                deaf.socket.sendall(peek)
                sent += 1
        assert 8 <= sent < 2000
        assert session.position() == at


async def test_a_server_that_ends_asks_for_no_more_and_closes(counting_model: Path) -> None:
    with serving([counting_model]) as front:
        session = front.session()
        at = session.open()
        async with line(session, "/watch") as watch, line(session) as one:
            await watch.receive()
            at = (await one.ask(inputs=[1], position=at))["position"]
            await watch.receive()
            stopping = asyncio.create_task(asyncio.to_thread(front.server.stop))
            asked = (await one.receive())["error"]
            assert (asked["code"], asked["reason"]) == ("UNAVAILABLE", "DRAINING")
            reply = await one.ask(inputs=[2], position=at)  # what arrives before the server's end is answered
            assert sums(reply) == [3]
            for socket in (watch.socket, one.socket):
                assert await closing(socket) == (1001, "the server is shutting down")
            assert await stopping == 0


async def test_a_version_that_is_not_served_is_told_before_what_does_not_fit_the_served_one(
    counting_model: Path, tmp_path: Path
) -> None:
    """As over gRPC. The new version takes token ids, and has other outputs and states."""
    new = token_bundle(tmp_path / "new", "count", head=(2,))
    store = f"sqlite:{tmp_path / 'sessions.db'}"
    with serving([counting_model], store) as before:
        session = before.session()
        at = session.step([1.0])["position"]
        state = session.ask("GET", "/state").ok["states"]
    with serving([new], store) as now:
        session, fresh = now.session(name=session.name), now.session()
        fresh.open()
        for body in ({"inputs": [1.5], "position": at}, {"inputs": [1], "outputs": ["nope"], "position": at}):
            for what in ("/step", "/peek"):
                error = session.ask("POST", what, body).error
                assert (error["reason"], error["details"]["position"]) == ("MODEL_CHANGED", at)
                assert fresh.ask("POST", what, body).error["reason"] == "INVALID_FIELD"
            async with line(session) as one:
                error = (await one.ask(id=7, **body))["error"]
                assert (error["reason"], error["details"]["position"]) == ("MODEL_CHANGED", at)
        error = session.ask("POST", "/open", {"initial_state": {**state, "more": {"data": [1.0]}}}).error
        assert error["reason"] == "MODEL_CHANGED"
