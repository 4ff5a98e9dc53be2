"""What the answering of a call needs to know of it, whichever protocol it came by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import grpc


class CallContext(Protocol):
    """A call that is under way. `grpc.aio.ServicerContext` is one; so is a request over HTTP (http/call.py)."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """What came beside the message, by lower-case name: `authorization`, `x-request-id` ..."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The names in the client's certificate, as gRPC calls them; empty where it showed none."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where it set none."""

    def peer(self) -> str:
        """The other end of the connection, as gRPC writes it: "ipv4:127.0.0.1:4711"."""

    async def read(self) -> Any:
        """The call's next message, or grpc.aio.EOF. Raises a Rejection for a message that cannot be taken."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        """Ends the call with that status, by an exception."""
