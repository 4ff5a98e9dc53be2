"""Protects browsers: pages of other sites may change nothing and read nothing here."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from cellkeeper_service.errors import Reason, Rejection

SAFE = frozenset({"GET", "HEAD"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Sent with every response."""


class Guard:
    """Decides which requests browsers may send.

    own_host: the host of --http-listen. checks_host: accept only this machine's names in Host. Without tokens, a page
    could otherwise read everything by pointing a name of its own at this server (DNS rebinding).
    """

    def __init__(self, own_host: str, *, checks_host: bool) -> None:
        self._own_host = own_host.lower()
        self._checks_host = checks_host

    def check(self, request: web.Request, *, changes: bool) -> None:
        """Raises PERMISSION_DENIED. changes: a GET request that may change something nevertheless (a WebSocket)."""
        host = request.headers.get("Host", "")
        if self._checks_host and not self._is_own(host):
            text = f"Host: got {host[:80]!r}, expected the address that this server listens on, or localhost"
            raise Rejection(Reason.PERMISSION_DENIED, text, field="Host")
        origins = request.headers.getall("Origin", ())
        if not origins or (request.method in SAFE and not changes):
            return
        if len(origins) > 1 or not _same(origins[0], host):
            text = f"Origin: got {', '.join(origins)[:80]!r}, expected this server's own pages, or none (docs/http.md)"
            raise Rejection(Reason.PERMISSION_DENIED, text, field="Origin")

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in ("localhost", self._own_host):
            return bool(name)
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return False


def _same(origin: str, host: str) -> bool:
    """Compares the hosts. The scheme may differ, because TLS may end at a proxy."""
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and bool(rest) and rest.lower() == host.lower()
