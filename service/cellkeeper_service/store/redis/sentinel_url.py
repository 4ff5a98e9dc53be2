"""The URL of a primary that Redis Sentinel monitors."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, urlencode

from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.store.redis.url import (
    OF_SERVERS,
    Address,
    check_database,
    check_options,
    read_address,
    split_url,
)

FORM = "redis+sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/SERVICE[/DB]"
DEFAULT_PORT = 26379
SENTINEL_USER, SENTINEL_PASSWORD = "sentinel_username", "sentinel_password"


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
        parts = split_url(url, FORM)
        check_options(parts, FORM, (SENTINEL_USER, SENTINEL_PASSWORD))
        service, _, database = parts.path.strip("/").partition("/")
        if not service:
            raise StoreError(f"store: got a Redis URL without the service name that the sentinels use; expected {FORM}")
        check_database(database, FORM)
        login, at, hosts = parts.netloc.rpartition("@")
        query = dict(parse_qsl(parts.query))
        user, password = query.pop(SENTINEL_USER, ""), query.pop(SENTINEL_PASSWORD, "")
        own = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
        scheme = parts.scheme.partition("+")[0]
        server = SplitResult(scheme, login + at, f"/{database or 0}", urlencode(query), "")
        common = {name: value for name, value in query.items() if name not in OF_SERVERS}
        sentinel = SplitResult(scheme, own, "", urlencode(common), "")
        sentinels = tuple(read_address("sentinel", host, DEFAULT_PORT, FORM) for host in hosts.split(","))
        return cls(sentinels, service, server, sentinel)

    def of_server(self, address: Address) -> str:
        """Returns the redis:// or rediss:// URL of the primary or replica at this address."""
        return self.server._replace(netloc=f"{self.server.netloc}{address}").geturl()

    def of_sentinel(self, address: Address) -> str:
        return self.sentinel._replace(netloc=f"{self.sentinel.netloc}{address}").geturl()
