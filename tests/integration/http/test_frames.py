"""The WebSocket of frames, as a client in another language uses it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position
from cellkeeper_service.rpc.call_context import EOF
from cellkeeper_service.rpc.http.socket_call import FrameCall

from testing.forked_server import ForkedServer
from tests.integration.access.tenants import entry
from tests.integration.rpc.calls import Chunk, frame_message, numbers

from .front import TIMEOUT_S, Front, closing, serving, where

MESSAGE_BYTES = 20_000


@pytest.fixture(scope="module")
def front(counting_model: Path) -> Iterator[Front]:
    options = ["--max-message-bytes", str(MESSAGE_BYTES), "--max-http-body-bytes", "10000"]
    with serving([counting_model], options=options) as made:
        yield made


class Frames:
    """An open socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, frame: pb.StepFrame) -> None:
        await self.socket.send_bytes(frame.SerializeToString())

    async def receive(self) -> pb.StepFrameReply:
        return pb.StepFrameReply.FromString(await self.socket.receive_bytes(timeout=TIMEOUT_S))


@asynccontextmanager
async def frames(front: Front, **headers: str) -> AsyncIterator[Frames]:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{front.url}/v1/frames", headers=headers, max_msg_size=0) as socket,
    ):
        yield Frames(socket)


def frame(number: int, at: Any, *inputs: float) -> pb.StepFrame:
    """Returns a frame of one item. at: the session's position, as in JSON."""
    position = Position(bytes.fromhex(at["generation"]), int(at["step"]), bytes.fromhex(at["head"]))
    made = frame_message("count", [Chunk(at["session"], numbers(*inputs), position)])
    made.frame_id = number
    return made


def opened(front: Front) -> Any:
    session = front.session()
    return {**session.open(), "session": session.name}


def sums(reply: pb.StepFrameReply) -> list[float]:
    (column,) = reply.outputs
    return [float(value) for value in np.frombuffer(column.data, "<f4")]


async def test_an_empty_message_says_that_no_frame_follows(front: Front) -> None:
    """The server answers each earlier frame, then closes the socket."""
    sessions = [opened(front) for _ in range(30)]
    async with frames(front) as one:
        for number, at in enumerate(sessions, 1):
            await one.send(frame(number, at, 1, 2))
        await one.socket.send_bytes(b"")
        replies = [await one.receive() for _ in sessions]
        assert await closing(one.socket) == (1000, "")
    assert sorted(reply.frame_id for reply in replies) == list(range(1, 31))
    assert all(reply.last and sums(reply) == [1, 3] for reply in replies)


async def test_errors_of_many_items_fit_into_a_message(front: Front) -> None:
    """Each quotes the session's id, and would have 500 bytes of text."""
    at, items = opened(front), MESSAGE_BYTES // 512
    position = Position(bytes.fromhex(at["generation"]), int(at["step"]), bytes.fromhex(at["head"]))
    async with frames(front) as one:
        await one.send(frame_message("count", [Chunk("\x01" * 256, numbers(1), position)] * items))
        errors: list[pb.ItemError] = []
        while len(errors) < items:
            message = await one.socket.receive_bytes(timeout=TIMEOUT_S)
            assert len(message) <= MESSAGE_BYTES
            errors += pb.StepFrameReply.FromString(message).errors
        assert [error.error.field for error in sorted(errors, key=lambda error: error.item)[1:]] == [
            f"sessions[{item}]" for item in range(1, items)
        ]


async def test_a_frame_that_is_refused_leaves_the_socket_open(front: Front) -> None:
    at = opened(front)
    async with frames(front) as one:
        await one.send(pb.StepFrame(frame_id=1, model="nobody", sessions=["s"]))
        assert (await one.receive()).frame_error.field == "model"
        await one.send(frame(2, at, 5))
        assert sums(await one.receive()) == [5]


@pytest.mark.parametrize("text", [False, True])
async def test_what_is_no_frame_ends_the_socket_behind_the_replies_before(front: Front, text: bool) -> None:
    at = opened(front)
    async with frames(front) as one:
        await one.send(frame(1, at, 5))
        await (one.socket.send_str("{}") if text else one.socket.send_bytes(b"\xff\xff"))
        assert sums(await one.receive()) == [5]
        error = (await one.socket.receive_json(timeout=TIMEOUT_S))["error"]
        assert error["code"] == "INVALID_ARGUMENT"
        assert "cellkeeper.v1.StepFrame" in error["message"]
        assert await closing(one.socket) == (1008, "INVALID_FIELD")


async def test_a_message_beyond_the_limit_is_not_read(front: Front) -> None:
    async with frames(front) as one:
        await one.socket.send_bytes(bytes(MESSAGE_BYTES + 1))
        code, _ = await closing(one.socket)
        assert code == 1009
    async with frames(front) as one:  # a message of exactly that size is read, but is not a frame
        await one.socket.send_bytes(bytes(MESSAGE_BYTES))
        assert "error" in await one.socket.receive_json(timeout=TIMEOUT_S)


async def test_another_page_may_not_open_it(front: Front) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with frames(front, Origin="http://evil.example"):
            pass
    assert refused.value.status == 403


def test_a_request_that_is_no_handshake(front: Front) -> None:
    answer = front.ask("GET", "/v1/frames")
    assert answer.status == 400
    assert answer.error["message"].startswith("Upgrade: got ''")


async def test_who_may_not_go_on_is_refused_before_the_socket_is_open(counting_model: Path, tmp_path: Path) -> None:
    """So the server reads nothing from such a caller, whereas it would from an open WebSocket."""
    token, line = entry("acme", "step")
    reader, reading = entry("acme", "read")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{line}\n{reading}\n")
    with serving([counting_model], options=["--tokens", str(tokens)]) as front:
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {reader}"}, 403)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with frames(front, **headers):
                    pass
            assert refused.value.status == status
        at = {**front.of(token).session(name="s").open(), "session": "s"}
        async with frames(front, Authorization=f"Bearer {token}") as one:
            await one.send(frame(1, at, 5))
            assert sums(await one.receive()) == [5]


async def test_a_client_that_is_gone_before_the_handshake_has_sent_nothing() -> None:
    read: list[object] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.close()
        read.append(await FrameCall(request, web.WebSocketResponse(), bytes, bytes).read())
        return web.Response()

    app = web.Application()
    app.router.add_get("/v1/frames", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/frames"
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.ws_connect(url)
    await runner.cleanup()
    assert set(read) == {EOF}  # aiohttp's client tries twice


async def test_a_server_that_ends_says_so_and_waits_for_the_client(counting_model: Path) -> None:
    with ForkedServer([counting_model], "memory:", ["--http-listen", "127.0.0.1:0"]) as server:
        front = Front(where(server), server)
        at = opened(front)
        async with frames(front) as one:
            await one.send(frame(1, at, 5))
            assert sums(await one.receive()) == [5]
            server.send_signal(signal.SIGTERM)
            assert (await one.receive()).frame_error.reason == pb.DRAINING
            await one.socket.send_bytes(b"")
            assert await closing(one.socket) == (1001, "the server is shutting down")
