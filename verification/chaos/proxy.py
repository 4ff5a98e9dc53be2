"""A TCP proxy between two parts of the system that can disturb their connection."""

from __future__ import annotations

import asyncio
from types import TracebackType

PIECE_BYTES = 1 << 16


class Proxy:
    """Listens on its own port and forwards bytes to `target` (host, port).

    The target may change at any time: new connections go to the new one. delay_s: every piece of bytes waits this long
    before it is forwarded. bytes_per_s: a throttle for each direction; 0: none. black_hole: connections stay open, but
    no byte passes until it is lifted. drop_replies: requests pass; the first bytes of an answer are discarded and the
    connection is reset. hold_replies: requests pass; answers wait until it is lifted, and are lost if their connection
    is cut before. refusing: new connections are reset at once.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.drop_replies = False
        self.refusing = False
        self.connections = 0  # total accepted
        self.cuts = 0  # connections reset by `cut` or by a dropped reply
        self._passing = asyncio.Event()
        self._passing.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    @property
    def black_hole(self) -> bool:
        return not self._passing.is_set()

    @black_hole.setter
    def black_hole(self, value: bool) -> None:
        if value:
            self._passing.clear()
        else:
            self._passing.set()

    @property
    def hold_replies(self) -> bool:
        return not self._answering.is_set()

    @hold_replies.setter
    def hold_replies(self, value: bool) -> None:
        if value:
            self._answering.clear()
        else:
            self._answering.set()

    async def start(self) -> None:
        """Starts on a free port of the loopback address."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Resets every connection."""
        for link in list(self._links):
            self.cuts += 1
            link.abort()

    def clear(self) -> None:
        """Ends every disturbance."""
        self.delay_s, self.bytes_per_s = 0.0, 0
        self.drop_replies = self.refusing = self.black_hole = self.hold_replies = False

    async def close(self) -> None:
        self.clear()
        if self._server is not None:
            self._server.close()
        self.cut()
        tasks = [link.task for link in self._links if link.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            writer.transport.abort()
            return
        link = _Link(self, reader, writer)
        self._links.add(link)
        link.task = asyncio.current_task()
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        """Forwards one direction of one connection, until one end closes or a reply is dropped."""
        try:
            while piece := await reader.read(PIECE_BYTES):
                if replies and self.drop_replies:
                    self.cuts += 1
                    return
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.bytes_per_s:
                    await asyncio.sleep(len(piece) / self.bytes_per_s)
                await self._let_through(replies=replies)
                writer.write(piece)
                await writer.drain()
        except OSError:
            return

    async def _let_through(self, *, replies: bool) -> None:
        """Waits until nothing holds the piece, even if it is held again before one that waits runs."""
        while self.black_hole or (replies and self.hold_replies):
            await self._passing.wait()
            if replies:
                await self._answering.wait()

    async def __aenter__(self) -> Proxy:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.task: asyncio.Task[None] | None = None
        self._proxy = proxy
        self._reader = reader
        self._writers = [writer]
        self._ways: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._proxy.target)
        except OSError:
            self.abort()
            return
        self._writers.append(upstream_writer)
        self._ways = [
            asyncio.ensure_future(self._proxy.pass_on(self._reader, upstream_writer, replies=False)),
            asyncio.ensure_future(self._proxy.pass_on(upstream_reader, self._writers[0], replies=True)),
        ]
        await asyncio.wait(self._ways, return_when=asyncio.FIRST_COMPLETED)
        self.abort()
        await asyncio.wait(self._ways)

    def abort(self) -> None:
        for way in self._ways:
            way.cancel()
        for writer in self._writers:
            writer.transport.abort()
