"""An address on which nobody listens, reserved so that nobody can start to during a test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refusing_address() -> Iterator[str]:
    """Yields a host:port on the loopback address.

    It is bound, so that no other test's server gets it, and refuses every connection, since nobody listens.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
