"""A free port that nobody else gets while a test needs it: before its server starts, and between two runs of it."""

from __future__ import annotations

import socket
from types import TracebackType


class HeldPort:
    """A loopback port; close it, or use it as a context manager, which yields its number.

    A socket is bound to it and does not listen. So the kernel gives the port to nobody who asks for any, and refuses
    connections to it. A server that is told its number can listen on it nevertheless, since servers set SO_REUSEADDR,
    or SO_REUSEPORT if several processes share the port.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number = int(self._socket.getsockname()[1])

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> int:
        return self.number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
