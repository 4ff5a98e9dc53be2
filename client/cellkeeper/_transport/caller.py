"""The parts of a client that its sessions, groups and administration use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..position import Position
from ..types import Model, SessionInfo
from .calls import itself
from .connection import Connection


class Caller(Protocol):
    """An AsyncClient, as seen by what cannot import it. timeout: default seconds for calls."""

    timeout: float

    async def _call(
        self, method: str, request: Any, session: str, timeout: float | None, read: Callable[[Any], Any] = itself
    ) -> Any: ...

    async def _served(self, session: str, name: str, fingerprint: bytes, timeout: float | None) -> Model: ...

    def _connected(self) -> Connection: ...

    async def model(self, name: str = "", fingerprint: bytes = b"", *, timeout: float | None = None) -> Model: ...

    async def session_info(self, session: str, *, model: str = "", timeout: float | None = None) -> SessionInfo: ...

    async def reset(
        self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None
    ) -> Position: ...

    async def delete(
        self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None
    ) -> bool: ...
