"""A free port that nobody else gets while a test needs it: before its server starts, and between two runs of it."""

from __future__ import annotations

import os
import socket
import weakref
from types import TracebackType


class HeldPort:
    """A loopback port; close it, or use it as a context manager, which yields its number. At the latest it ends with
    the object, as of a server that a test has stopped for good.

    A socket is bound to it and does not listen. So the kernel gives the port to nobody who asks for any, and refuses
    connections to it. A server that is told its number can listen on it nevertheless, since servers set SO_REUSEADDR,
    or SO_REUSEPORT if several processes share the port.
    """

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(("127.0.0.1", 0))
            self.number = int(held.getsockname()[1])
            self.close = weakref.finalize(self, os.close, held.detach())

    def __enter__(self) -> int:
        return self.number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
