"""However a WebSocket ends, a step that was applied is never taken for one that was not. As test_endings over gRPC."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from cellkeeper import AsyncClient, CellkeeperError, ResourceExhausted
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from .conftest import QUICK, until
from .counting_server import CountingServer
from .test_endings import LARGE, MOMENTS, ONE, SHAPES, Outcomes, check_next, outcome, outcome_of_group

Close = Callable[[ServerConnection], Awaitable[None]]
STATUSES = [401, 403, 404, 413, 429, 500, 502, 503, 504]


def frame(code: int | None) -> Close:
    """Returns what sends a close frame, also with a code that must not be sent."""

    async def close(socket: ServerConnection) -> None:
        payload = b"" if code is None else struct.pack(">H", code) + b"ended"
        socket.transport.write(bytes([0x88, len(payload)]) + payload)
        socket.transport.close()

    return close


async def abort(socket: ServerConnection) -> None:
    socket.transport.abort()


def text(code: str, reason: str) -> Close:
    """Returns what sends an error as the server does, and closes the socket."""

    async def close(socket: ServerConnection) -> None:
        error = {"code": code, "reason": reason, "message": "ended", "details": {}}
        await socket.send(json.dumps({"error": error}))
        await socket.close(1008)

    return close


ENDINGS = {
    **{str(code): frame(code) for code in (*range(1000, 1016), 4000)},
    "no code": frame(None),
    "abrupt": abort,
    "PERMISSION_DENIED": text("PERMISSION_DENIED", "PERMISSION_DENIED"),
    "RESOURCE_EXHAUSTED": text("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    "no reason": text("PERMISSION_DENIED", ""),
}
CASES = [
    (ending, moment)
    for ending in ENDINGS
    for moment in MOMENTS
    if not ("applied" in moment and ending in ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED"))  # as over gRPC
]


class SocketServer:
    """Serves the frames of a counting server over a WebSocket.

    close: how the next socket ends; None: it does not. moment, frames: as of Ending. status: of the next handshakes, so
    many `times`. most_bytes: of a message; larger ones close the socket with 1009.
    """

    def __init__(self, counting: CountingServer) -> None:
        self.counting = counting
        self.url = ""
        self.close: Close | None = None
        self.moment = "applied"
        self.frames = 1
        self.status = 0
        self.times = 0
        self.most_bytes = 1 << 20

    def refuse(self, socket: ServerConnection, request: Request) -> Response | None:
        if not self.times:
            return None
        self.times -= 1
        return socket.respond(HTTPStatus(self.status), "ended\n")

    async def serve(self, socket: ServerConnection) -> None:
        unanswered = 0
        if await self.ends(socket, "unread"):
            return
        async for message in socket:
            if not message:
                return
            if len(message) > self.most_bytes:
                await socket.close(1009, "too large")
                return
            asked = pb.StepFrame.FromString(message)  # type: ignore[arg-type]
            await self.counting.gate.wait()
            unanswered += 1
            if await self.ends(socket, "read", unanswered):
                return
            reply = self.counting.answer(asked)
            if await self.ends(socket, "applied", unanswered):
                return
            if self.close is None:
                unanswered = 0
                await socket.send(reply.SerializeToString())

    async def ends(self, socket: ServerConnection, moment: str, frames: int = 1) -> bool:
        if self.close is None or (self.moment, self.frames) != (moment, frames):
            return False
        close, self.close = self.close, None
        await close(socket)
        return True


@pytest.fixture
async def sockets(server: CountingServer) -> AsyncIterator[SocketServer]:
    made = SocketServer(server)
    async with serve(made.serve, "127.0.0.1", 0, process_request=made.refuse) as listener:
        made.url = f"ws://127.0.0.1:{next(iter(listener.sockets)).getsockname()[1]}"
        yield made


@asynccontextmanager
async def connected(sockets: SocketServer) -> AsyncIterator[AsyncClient]:
    target = f"127.0.0.1:{sockets.counting.port}"
    async with AsyncClient(target, timeout=20, backoff=QUICK, websocket=sockets.url) as client:
        yield client


async def one_ending(sockets: SocketServer, shape: str, moment: str, begin: Callable[[], None]) -> None:
    """Makes a step of each session that meets what `begin` sets, and another one."""
    server, outcomes, before = sockets.counting, Outcomes(), 0
    names = [f"{shape} {number}" for number in range(1 if shape == "single" else 2)]
    async with connected(sockets) as client:
        group = await client.group(names) if shape == "group" else None
        sessions = [] if group else [await client.open(name) for name in names]
        if moment.startswith("answered"):
            before = 1
            if group:
                await group.step([ONE, ONE])
            await asyncio.gather(*(session.step(ONE) for session in sessions))
        begin()
        if group:
            await outcome_of_group(outcomes, group)
        elif shape == "in flight" and "applied" in moment:
            sockets.frames = 2
            server.gate.clear()
            tasks = []
            for number, session in enumerate(sessions, client.counters.frames_sent + 1):
                tasks.append(asyncio.ensure_future(outcome(outcomes, session)))
                await until_sent(client, number)
            server.gate.set()
            await asyncio.gather(*tasks)
        else:
            await asyncio.gather(*(outcome(outcomes, session) for session in sessions))
        outcomes.check(server, before)
        await check_next(server, outcomes, names, sessions, group, before)


async def until_sent(client: AsyncClient, frames: int) -> None:
    await until(lambda: client.counters.frames_sent == frames)


@pytest.mark.parametrize(("ending", "moment"), CASES)
async def test_a_socket_that_ends(sockets: SocketServer, ending: str, moment: str) -> None:
    for shape in SHAPES:

        def begin() -> None:
            sockets.close, sockets.moment, sockets.frames = ENDINGS[ending], moment.removeprefix("answered, "), 1

        await one_ending(sockets, shape, moment, begin)
        assert sockets.close is None


@pytest.mark.parametrize("status", STATUSES)
async def test_a_handshake_that_is_refused(sockets: SocketServer, status: int) -> None:
    for shape in SHAPES:

        def begin() -> None:
            sockets.status, sockets.times = status, 1

        await one_ending(sockets, shape, "unread", begin)
        assert not sockets.times


@pytest.mark.parametrize("status", [401, 403, 404, 413])
async def test_a_step_whose_socket_was_never_open_does_not_count(sockets: SocketServer, status: int) -> None:
    async with connected(sockets) as client:
        session = await client.open("a")
        sockets.status, sockets.times = status, 1
        with pytest.raises(CellkeeperError) as caught:
            await session.step(ONE)
        assert (caught.value.late_step, session.unsettled) == (None, ())


async def test_a_chunk_that_never_gets_through_is_left_behind_by_opening_the_session_again(
    sockets: SocketServer,
) -> None:
    sockets.most_bytes = 250
    async with connected(sockets) as client:
        session = await client.open("a")
        with pytest.raises(ResourceExhausted, match="does not accept a message of this size") as caught:
            await session.step(LARGE)
        assert session.unsettled == (caught.value.late_step,)
        assert (await (await client.open("a")).step(ONE)).tolist() == [1, 1]
