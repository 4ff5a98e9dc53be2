"""One client for each contender, imported only in the process that needs it."""

from __future__ import annotations

from typing import Protocol

from bench.load import Load
from bench.loops import Send


class Client(Protocol):
    async def prepare(self, load: Load) -> Send:
        """Sets up what the load needs, outside the measurement."""

    async def close(self) -> None: ...


async def connect(contender: str, target: str) -> Client:
    """Returns the contender's client. contender: its name, whose first word is the kind."""
    kind = contender.split()[0]
    if kind in ("cellkeeper", "websocket"):
        from .cellkeeper import CellkeeperClient

        return CellkeeperClient(*target.split())
    if kind == "echo":
        from .echo import EchoClient

        return EchoClient(target)
    if kind == "naive":
        from .naive import NaiveClient

        return NaiveClient(target)
    if kind in ("triton", "kserve"):
        from .triton import TritonClient

        return TritonClient(target, streamed="stream" in contender)
    if kind == "engine":
        from .engine import EngineCalls

        return EngineCalls(target)
    if kind == "commit":
        from .commit import StoreCommits

        return StoreCommits(target)
    raise ValueError(f"contender: got {contender!r}")
