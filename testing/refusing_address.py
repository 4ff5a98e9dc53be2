"""An address at which nobody listens, and nobody else can begin to while a test counts on that."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refusing_address() -> Iterator[str]:
    """host:port on the loopback address. It is bound, so that no server of another test gets it, and refuses every
    connection, as nobody accepts any."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
