"""Reads URLs that name Redis servers. No error quotes what may be part of a password."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from cellkeeper_service.address import address_text
from cellkeeper_service.domain.store import StoreError


class Address(NamedTuple):
    """The address of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return address_text(self.host, self.port)


def split_url(url: str, form: str) -> SplitResult:
    """Splits a URL. Raises StoreError if that is impossible, or if a password that is not percent-encoded would be cut
    in two, and its rest taken for a host, a database or a service. form: the expected one, for messages."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise StoreError(f"store: got a Redis URL whose host cannot be read; expected {form}") from None
    if "@" in parts.path + parts.fragment + parts.query.partition("=")[0]:
        raise StoreError(
            "store: got a Redis URL with a '/', '?' or '#' before its last '@'; in the user and the password, write "
            f"%2F, %3F or %23 instead; expected {form}"
        )
    return parts


def check_database(database: str, form: str) -> None:
    """Raises StoreError for a database other than a number or none."""
    if database and not (database.isascii() and database.isdigit()):
        raise StoreError(f"store: got database {database!r}, which is not a number; expected {form}")


def read_address(what: str, host: str, default_port: int, form: str) -> Address:
    """Reads "host:port" or "host". what: the kind of server, for messages. Raises StoreError."""
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port  # accessing the port checks it
    except ValueError:
        name, port = None, None
    if not name or parts.path:
        raise StoreError(f"store: got a Redis URL with the {what} {host!r}, which cannot be read; expected {form}")
    return Address(name, port or default_port)
