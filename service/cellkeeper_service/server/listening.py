"""Checks who can reach the addresses that the server listens on, and if that requires authentication."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from cellkeeper_service.errors import StartError
from cellkeeper_service.server.config import Settings, split_address


def check_access(settings: Settings) -> None:
    """Raises StartError if the settings would expose the server by mistake, or contradict each other."""
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise StartError("tls_cert, tls_key: got one without the other; give both, or neither for plain text")
    if settings.tls_client_ca and not settings.tls_cert:
        raise StartError("tls_client_ca: got it without tls_cert, which client certificates need; give tls_cert too")
    if settings.max_ttl_ms and settings.default_ttl_ms > settings.max_ttl_ms:
        raise StartError(
            f"default_ttl_ms: got {settings.default_ttl_ms}, expected at most max_ttl_ms ({settings.max_ttl_ms})"
        )
    if settings.tenant_sessions and not settings.max_ttl_ms:
        raise StartError(
            f"tenant_sessions: got {settings.tenant_sessions} without max_ttl_ms, which says how long a used "
            "session counts; give --max-ttl-ms too"
        )
    if settings.http_listen:
        _check_http(settings)
    host, _ = split_address(settings.listen, "--listen")
    if settings.tokens or settings.tls_client_ca or settings.insecure_listen or is_loopback(host):
        return
    raise StartError(
        f"--listen: {settings.listen} can be reached from other machines, and authentication is disabled; give "
        "--tokens FILE (docs/security.md), or --tls-client-ca FILE, or --insecure-listen if that is intended"
    )


def _check_http(settings: Settings) -> None:
    host, _ = split_address(settings.http_listen, "--http-listen")
    if settings.max_http_body_bytes > settings.max_message_bytes:
        raise StartError(
            f"max_http_body_bytes: got {settings.max_http_body_bytes}, expected at most max_message_bytes "
            f"({settings.max_message_bytes})"
        )
    if settings.tokens or settings.tls_client_ca or is_loopback(host):
        return
    raise StartError(
        f"--http-listen: {settings.http_listen} can be reached from other machines, and authentication is disabled; "
        "give --tokens FILE (docs/security.md), or --tls-client-ca FILE"
    )


def is_loopback(host: str) -> bool:
    """Returns True if only this machine can reach every address of the host. An empty host means all addresses."""
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ip_address(str(place[0]).partition("%")[0]).is_loopback for *_, place in found)
