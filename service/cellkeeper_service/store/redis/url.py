"""Reads URLs that name Redis servers. No error quotes what may be part of a password."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from cellkeeper_service.address import address_text
from cellkeeper_service.domain.store import StoreError

TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_ca_data",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ciphers",
)
OF_SERVERS = "db", "username", "password"
OPTIONS = *OF_SERVERS, "client_name", "socket_keepalive"
"""TLS_OPTIONS and these are what the query of a URL may set in redis-py. It has many more, of which some would undo
what the store sets (retries, time-outs, how replies are read), and raises TypeError for one that it does not know."""

SENTINEL_FORM = "redis+sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/SERVICE[/DB]"
SENTINEL_PORT = 26379
SENTINEL_USER, SENTINEL_PASSWORD = "sentinel_username", "sentinel_password"


class Address(NamedTuple):
    """The address of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return address_text(self.host, self.port)


def split_url(url: str, form: str) -> SplitResult:
    """Splits a URL. Raises StoreError if that is impossible, or if a password that is not percent-encoded would be cut
    in two, and its rest taken for a host, a database or a service. form: the expected one, for messages."""
    scheme, slashes, rest = url.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    login, at, hosts = netloc.rpartition("@")
    try:
        # Each host by itself: of several, of which one has brackets, urllib accepts only some, since Python 3.14 fewer.
        first, *others = [urlsplit(f"//{login}{at}{host}").netloc for host in hosts.split(",")]
        parts = urlsplit(f"{scheme}{slashes}{rest[len(netloc) :]}")
    except ValueError:
        raise StoreError(
            "store: got a Redis URL whose host cannot be read; in the user and the password, write %5B or %5D instead "
            f"of '[' or ']'; expected {form}"
        ) from None
    parts = parts._replace(netloc=",".join([first, *(other.rpartition("@")[2] for other in others)]))
    if "@" in parts.path + parts.fragment + parts.query.partition("=")[0]:
        raise StoreError(
            "store: got a Redis URL with a '/', '?' or '#' before its last '@'; in the user and the password, write "
            f"%2F, %3F or %23 instead; expected {form}"
        )
    return parts


def check_options(parts: SplitResult, form: str, further: Sequence[str] = ()) -> None:
    """Raises StoreError for a query with other options than those that the URL may have, or with a database that is not
    a number. further: options of this kind of URL.

    An unknown one is not quoted: it may be what follows an & in a password.
    """
    query = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in query]
    with_tls = parts.scheme.startswith("rediss")
    for name in names:
        if name in TLS_OPTIONS and not with_tls:
            raise StoreError(
                f"store: got {parts.scheme}:// with {name}, which needs TLS; expected rediss://, rediss+cluster:// or "
                "rediss+sentinel://"
            )
    own = OPTIONS if parts.scheme != "unix" else [name for name in OPTIONS if name != "socket_keepalive"]
    known = [*own, *further, *(TLS_OPTIONS if with_tls else ())]
    if not set(names) <= set(known):
        raise StoreError(
            f"store: got a Redis URL with another option in its query than {', '.join(known)} (time-outs are set by "
            "store_timeout_ms); in a user or password, write %26 instead of '&'"
        )
    for name, value in query:
        if name == "db":
            check_database(value, form)


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


class SentinelUrl(NamedTuple):
    """A parsed URL. sentinels: their addresses. service: their name for the primary and its replicas.

    USER:PASSWORD are those of the Redis servers. If the sentinels need a login of their own, the query has it as
    sentinel_username and sentinel_password. The rest of the query goes to redis-py: OF_SERVERS for the servers alone,
    the others for the sentinels, too.
    """

    sentinels: tuple[Address, ...]
    service: str
    server: SplitResult  # a server's URL, whose host is still to be filled in
    sentinel: SplitResult

    @classmethod
    def read(cls, url: str) -> SentinelUrl:
        """Parses a URL. Raises StoreError."""
        parts = split_url(url, SENTINEL_FORM)
        check_options(parts, SENTINEL_FORM, (SENTINEL_USER, SENTINEL_PASSWORD))
        service, _, database = parts.path.strip("/").partition("/")
        if not service:
            raise StoreError(
                f"store: got a Redis URL without the service name that the sentinels use; expected {SENTINEL_FORM}"
            )
        check_database(database, SENTINEL_FORM)
        login, at, hosts = parts.netloc.rpartition("@")
        query = dict(parse_qsl(parts.query))
        user, password = query.pop(SENTINEL_USER, ""), query.pop(SENTINEL_PASSWORD, "")
        own = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
        scheme = parts.scheme.partition("+")[0]
        server = SplitResult(scheme, login + at, f"/{database or 0}", urlencode(query), "")
        common = {name: value for name, value in query.items() if name not in OF_SERVERS}
        sentinel = SplitResult(scheme, own, "", urlencode(common), "")
        sentinels = tuple(read_address("sentinel", host, SENTINEL_PORT, SENTINEL_FORM) for host in hosts.split(","))
        return cls(sentinels, service, server, sentinel)

    def of_server(self, address: Address) -> str:
        """Returns the redis:// or rediss:// URL of the primary or replica at this address."""
        return self.server._replace(netloc=f"{self.server.netloc}{address}").geturl()

    def of_sentinel(self, address: Address) -> str:
        return self.sentinel._replace(netloc=f"{self.sentinel.netloc}{address}").geturl()
