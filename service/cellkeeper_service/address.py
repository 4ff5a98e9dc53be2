"""Addresses as text, and whether a server can have them."""

from __future__ import annotations

import errno
import socket
from typing import Any

LOCALHOST = "127.0.0.1", "::1"
"""What gRPC takes localhost for, whatever the system's resolver says."""


def address_text(host: str, port: int) -> str:
    """Returns "host:port", with brackets around an IPv6 address, as the settings and URLs have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_free(host: str, port: int) -> None:
    """Raises OSError if nobody can listen there, or somebody does on one of the addresses that the host stands for.

    A server that took the others would share its name with another program. host: empty for all addresses.
    """
    hosts = LOCALHOST if host == "localhost" else (host or None,)
    options: Any = {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE}
    places = [found for each in hosts for found in socket.getaddrinfo(each, port, **options)]
    unusable = [why for family, _, _, _, place in places if (why := _why_unusable(family, place)) is not None]
    if len(unusable) == len(places):
        raise unusable[0]


def _why_unusable(family: socket.AddressFamily, place: Any) -> OSError | None:
    """Returns why this process cannot have the address at all, such as one of IPv6 where there is none.

    Raises OSError if somebody listens there.
    """
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise
        return error
    return None
