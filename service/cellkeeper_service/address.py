"""Addresses as text."""

from __future__ import annotations


def address_text(host: str, port: int) -> str:
    """Returns "host:port", with brackets around an IPv6 address, as the settings and URLs have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
