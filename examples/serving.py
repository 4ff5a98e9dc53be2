"""A server of the example's own, on free ports, with its sessions in a folder that goes when it does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from cellkeeper import Client

from .co2.processes import CellkeeperServer


class Served(NamedTuple):
    """A client that is connected, host:port for others, and where the server's metrics are."""

    client: Client
    target: str
    metrics_url: str


@contextmanager
def served(*bundles: Path) -> Iterator[Served]:
    """Serves the bundles over gRPC while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="cellkeeper-example-") as name:
        folder = Path(name)
        server = CellkeeperServer(bundles, f"sqlite:{folder / 'sessions.db'}", folder / "server.log")
        with closing(server):
            server.start()
            with Client(server.target, timeout=600.0, attempt_timeout=120.0) as client:  # on a busy machine, too
                yield Served(client, server.target, server.metrics_url)
