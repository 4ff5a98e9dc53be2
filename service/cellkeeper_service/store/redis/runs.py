"""Notices restarts of Redis servers, because a restarted server may have come back with a truncated file."""

from __future__ import annotations

import logging
from threading import Lock

_logger = logging.getLogger(__name__)


class Runs:
    """The run id of each server, as reported on new connections. restarts: how often one has changed."""

    def __init__(self) -> None:
        self.restarts = 0
        self._lock = Lock()
        self._known: dict[str, str] = {}

    def saw(self, address: str, run_id: str) -> None:
        """Notes a server's run id. run_id: INFO's, which changes whenever the server starts; "": it did not tell."""
        with self._lock:
            before = self._known.get(address)
            if not run_id or run_id == before:
                return
            self._known[address] = run_id
            if before is None:
                return
            self.restarts += 1
        _logger.warning(
            "Redis at %s has restarted. If its log says that the append-only file was truncated, a power cut left "
            "part of a transaction in it: run BGREWRITEAOF, which removes that part (docs/operations.md)",
            address,
        )
