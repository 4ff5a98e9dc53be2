"""A server for an example, on free ports, with its sessions in a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from cellkeeper import Client

from .co2.processes import CellkeeperServer


class Served(NamedTuple):
    """A connected client, host:port for other clients, and the URL of the server's metrics."""

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
            with Client(server.target, timeout=600.0, attempt_timeout=120.0) as client:  # for busy machines
                yield Served(client, server.target, server.metrics_url)
