"""The handshake that opens a WebSocket: what the client must send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from cellkeeper_service.errors import Rejection, invalid

from .call import PROTOCOL

PROTOCOLS = "Sec-WebSocket-Protocol"
HEARTBEAT_SECONDS = 30.0
"""A client that does not answer a ping within half of this time has gone, or does not read."""
CLOSE_SECONDS = 2.0  # for the client's half of the closing handshake
VERSIONS = ("13", "8", "7")


def unopened_socket(request: web.Request, most_bytes: int) -> web.WebSocketResponse:
    """Returns the socket that `prepare` opens. Raises a Rejection if the request is not a valid handshake.

    most_bytes: of one message of the client.
    """
    _check_protocols(request.headers.getall(PROTOCOLS, ()))
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,),
        autoping=False,  # socket_call.next_message answers pings
        compress=False,  # a small message could expand to a huge one
        max_msg_size=most_bytes + 1,  # aiohttp refuses messages of exactly this size
        heartbeat=HEARTBEAT_SECONDS,
        timeout=CLOSE_SECONDS,
    )
    if not socket.can_prepare(request).ok:
        raise _fault(request.headers)
    return socket


def _check_protocols(sent: Sequence[str]) -> None:
    """Raises a Rejection, which never shows what was sent: it contains a token.

    Of several headers aiohttp reads only the first, and logs it if it does not name our protocol.
    """
    if len(sent) > 1:
        raise invalid(PROTOCOLS, f"{len(sent)} headers", "one with all protocols, separated by commas")
    if sent and PROTOCOL not in [name.strip() for name in sent[0].split(",")]:
        raise invalid(PROTOCOLS, "others", f"{PROTOCOL} among them")


def _fault(headers: Mapping[str, str]) -> Rejection:
    """Returns the refusal of a request that is not a handshake."""
    upgrade, version = headers.get("Upgrade", ""), headers.get("Sec-WebSocket-Version", "")
    if upgrade.strip().lower() != "websocket":
        return invalid("Upgrade", repr(upgrade[:80]), "a WebSocket handshake")
    if version not in VERSIONS:
        return invalid("Sec-WebSocket-Version", repr(version[:80]), VERSIONS[0])
    if "upgrade" not in headers.get("Connection", "").lower():
        return invalid("Connection", repr(headers.get("Connection", "")[:80]), "Upgrade")
    return invalid("Sec-WebSocket-Key", repr(headers.get("Sec-WebSocket-Key", "")[:80]), "16 bytes in base64")
