"""The addresses of a client's WebSockets."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from .._session.arguments import invalid
from ..errors import InvalidArgument
from .credentials import Tls
from .target import is_loopback

PATH = "/v1/frames"
EXPECTED = 'ws://host:port or wss://host:port, the address of --http-listen, as in "ws://localhost:8080"'
INSTALL = "pip install 'cellkeeper[websocket]'"


@dataclass(frozen=True, slots=True)
class WebSocketAddress:
    """Where a WebSocket connects. url: with the path. context, server_name: for TLS; None: plain text."""

    url: str
    is_loopback: bool
    context: ssl.SSLContext | None = None
    server_name: str | None = None


def checked_addresses(given: object, targets: tuple[str, ...], tls: Tls | None) -> tuple[WebSocketAddress, ...]:
    """Returns one address for each target, in the same order; empty if none is given. Raises InvalidArgument."""
    if given is None:
        return ()
    urls = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    if len(urls) != len(targets):
        raise invalid("websocket", f"{len(urls)} for {len(targets)} targets", "one for each, in their order")
    if find_spec("websockets") is None:
        text = f"websocket: the package websockets is not installed; {INSTALL}"
        raise InvalidArgument(text, reason="INVALID_FIELD", field="websocket")
    return tuple(_checked(url, tls) for url in urls)


def _checked(url: object, tls: Tls | None) -> WebSocketAddress:
    wrong = invalid("websocket", repr(url), EXPECTED)
    if not isinstance(url, str):
        raise wrong
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("ws", "wss") or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong
    encrypted = parts.scheme == "wss"
    if encrypted != (tls is not None):
        raise invalid("websocket", f"{parts.scheme}://", "wss:// if the client has tls, ws:// if not")
    made = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{PATH}"
    if tls is None:
        return WebSocketAddress(made, is_loopback(host))
    return WebSocketAddress(made, is_loopback(host), tls.context(), tls.server_name or host)
