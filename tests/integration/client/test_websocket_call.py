"""The client on a WebSocket whose server does as the test says: it announces its end, refuses, or is silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cellkeeper import AsyncClient, CellkeeperError, InvalidArgument
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position, advance
from websockets.asyncio.server import Server, ServerConnection, serve

from testing.forked_server import ForkedServer

from .conftest import QUICK


@pytest.fixture(scope="module")
def server(counting_model: Path) -> Iterator[ForkedServer]:
    """Serves everything but steps."""
    with ForkedServer([counting_model], "memory:") as made:
        yield made


async def test_a_server_that_is_about_to_end_answers_what_it_has_on_the_same_socket(server: ForkedServer) -> None:
    """The client announces with an empty message that it sends no more, and keeps the socket open for the replies."""
    came: list[bytes] = []

    async def drain(socket: ServerConnection) -> None:
        frame = await _frame(socket, came)
        why = pb.Error(code=14, reason=pb.DRAINING, message="the server is shutting down")
        await socket.send(pb.StepFrameReply(frame_error=why).SerializeToString())
        came.append(await asyncio.wait_for(socket.recv(decode=False), 10))
        await socket.send(_reply(frame, 7.0).SerializeToString())

    async with serve(drain, "127.0.0.1", 0) as made, client_of(server, made) as client:
        session = await client.session("drained")
        assert (await session.step([1.0])).tolist() == [7.0]
        assert client.counters.stream_reconnects == 0
    assert [bool(message) for message in came] == [True, False]


async def test_silence_is_told_as_silence(server: ForkedServer) -> None:
    async def say_nothing(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(say_nothing, "127.0.0.1", 0) as made, client_of(server, made, 1, 0.3) as client:
        session = await client.session("unheard")
        with pytest.raises(CellkeeperError, match=r"did not answer within 0\.3 s"):
            await session.step([1.0])


async def test_a_refusal_of_an_open_socket_is_the_steps_error(server: ForkedServer) -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.recv()
        error = {"code": "INVALID_ARGUMENT", "reason": "INVALID_FIELD", "message": "request: no", "details": {}}
        await socket.send(json.dumps({"error": {**error, "details": {"field": "request"}}}))

    async with serve(refuse, "127.0.0.1", 0) as made, client_of(server, made) as client:
        session = await client.session("refused")
        with pytest.raises(InvalidArgument, match="request: no") as caught:
            await session.step([1.0])
    assert caught.value.field == "request"


async def test_a_reply_that_cannot_be_read_ends_the_socket(server: ForkedServer) -> None:
    async def babble(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(b"\xff\xff")
        await socket.wait_closed()

    async with serve(babble, "127.0.0.1", 0) as made, client_of(server, made, 1) as client:
        session = await client.session("babble")
        with pytest.raises(CellkeeperError, match="sent a reply that cannot be read"):
            await session.step([1.0])


def client_of(server: ForkedServer, made: Server, timeout: float = 20, attempt_timeout: float = 10) -> AsyncClient:
    """Returns a client that sends steps to `made` and everything else to `server`."""
    url = f"ws://127.0.0.1:{next(iter(made.sockets)).getsockname()[1]}"
    return AsyncClient(server.target, timeout=timeout, attempt_timeout=attempt_timeout, backoff=QUICK, websocket=url)


async def _frame(socket: ServerConnection, came: list[bytes]) -> pb.StepFrame:
    came.append(await socket.recv(decode=False))
    return pb.StepFrame.FromString(came[-1])


def _reply(frame: pb.StepFrame, prediction: float) -> pb.StepFrameReply:
    """Returns the reply to a frame of one time step of the counting model."""
    after = advance(Position.unpack(frame.positions), frame.inputs, len(frame.inputs))
    data = np.float32(prediction).tobytes()
    column = pb.OutputColumn(name="prediction", dtype=pb.FLOAT32, shape=[1], data=data)
    return pb.StepFrameReply(
        frame_id=frame.frame_id, items=bytes(4), positions=after, flags=b"\0", outputs=[column], last=True
    )
