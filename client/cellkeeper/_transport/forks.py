"""Detects processes that were forked from one that uses a client.

gRPC's threads do not exist in such a process, and its locks may be held for ever, so that any use of it hangs. A child
therefore marks what it inherited as unusable, right after the fork.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

from ..errors import ForkedProcess

_ADVICE = "start processes that use a client with spawn or forkserver, or fork before the first client connects"
INHERITED = f"this client belongs to the process that this one was forked from; {_ADVICE}"
NO_GRPC = f"this process was forked from one in which a client had connected, and gRPC does not work in it; {_ADVICE}"


class Inherited(Protocol):
    """Something that a forked process must not use."""

    def disown(self) -> None: ...


class _Process:
    """What is known about this process. connected: it has used gRPC. broken: gRPC was used before the fork."""

    def __init__(self) -> None:
        self.connected = False
        self.broken = False
        self.clients: WeakSet[Inherited] = WeakSet()
        self.inherited: list[Inherited] = []  # never collected: that would close the parent's connections

    def forked(self) -> None:
        """Runs in a child, right after the fork."""
        self.broken = self.broken or self.connected
        self.inherited += list(self.clients)
        self.clients = WeakSet()
        for client in self.inherited:
            client.disown()


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forked)


def check_process() -> None:
    """Raises ForkedProcess if gRPC cannot work in this process."""
    if _process.broken:
        raise ForkedProcess(NO_GRPC)


def connects() -> None:
    """Notes that this process uses gRPC from now on."""
    _process.connected = True


def disown_after_fork(client: Inherited) -> None:
    """Makes the client unusable in children that are forked from now on."""
    _process.clients.add(client)
