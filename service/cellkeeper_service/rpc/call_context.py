"""What handlers need to know about a call, whichever protocol it uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

from cellkeeper_service.errors import Rejection


class _End:
    def __repr__(self) -> str:
        return "EOF"


EOF: Final = _End()
"""What `CallContext.read` returns after a call's last message."""


class CallContext(Protocol):
    """A call in flight. Implemented by gRPC calls (grpc_call.py) and by HTTP requests (http/call.py)."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Returns the call's metadata, by lower-case name: `authorization`, `x-request-id` ..."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Returns the names in the client's certificate, by gRPC's keys; empty if it presented none."""

    def time_remaining(self) -> float | None:
        """Returns the seconds until the caller's deadline, or None if there is none."""

    def peer(self) -> str:
        """Returns the peer's address as gRPC writes it: "ipv4:127.0.0.1:4711"."""

    async def read(self) -> Any:
        """Returns the call's next message, or EOF. Raises a Rejection for an unacceptable message."""

    async def sent(self) -> None:
        """Returns once the replies that were written have left, which a client that reads none of them prevents."""

    def cancel(self) -> None:
        """Ends the call at once and without a status, so that its client need not read anything for it to end."""

    async def refuse(self, why: Rejection) -> NoReturn:
        """Ends the call with the rejection's status, by raising an exception."""
