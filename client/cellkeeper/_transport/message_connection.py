"""A WebSocket connection that passes on each message in the event loop's turn in which it arrives.

The library's `recv` puts messages into a queue for a task that waits, and its `send` enters an asynchronous context for
each. Both together take a tenth of what a step costs the client (docs/adr/453).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import Event, State


class MessageConnection(ClientConnection):
    """`deliver` takes the place of `recv`, and `write` that of `send`. Their errors are the library's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._take: Callable[[bytes, bool], None] | None = None
        self._early: list[tuple[bytes, bool]] = []  # arrived before `deliver` was called
        self._parts: list[bytes] = []  # of a message in several frames
        self._is_text = False
        self._error: Exception | None = None  # raised by `take`

    async def deliver(self, take: Callable[[bytes, bool], None]) -> NoReturn:
        """Calls `take` with each message, and with True if it is text, until the connection is closed.

        Raises ConnectionClosed, or what `take` raises, which also closes the connection.
        """
        self._take = take
        early, self._early = self._early, []
        for message, is_text in early:
            self._pass_on(message, is_text)
        try:
            while True:
                await self.recv()  # ends with the connection: no message enters its queue
        except ConnectionClosed:
            if self._error is not None:
                raise self._error from None
            raise

    async def write(self, message: bytes) -> None:
        """Sends a binary message; waits only while the socket does not accept all of the earlier ones."""
        if self.state is State.OPEN and not self.transport.get_write_buffer_size():
            broadcast((self,), message)
        else:
            await self.send(message)

    def process_event(self, event: Event) -> None:
        """Takes an event from the library: a message, or a part of one, is passed on."""
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        if event.opcode is not Opcode.CONT:
            self._is_text = event.opcode is Opcode.TEXT
        self._parts.append(bytes(event.data))
        if event.fin:
            message = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts = []
            self._pass_on(message, self._is_text)

    def _pass_on(self, message: bytes, is_text: bool) -> None:
        if self._take is None:
            self._early.append((message, is_text))
        elif self._error is None:
            try:
                self._take(message, is_text)
            except Exception as error:  # noqa: BLE001 - `deliver` raises it; here it would end the library's callback
                self._error = error
                self.transport.abort()
