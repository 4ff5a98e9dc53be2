"""Opens the store that a URL names."""

from __future__ import annotations

from collections.abc import Callable

from cellkeeper_service.domain.store import Store, StoreError

from .memory import MemoryStore
from .redis.url import check_database, check_options, read_address, split_url
from .sqlite.store import SqliteStore

DEFAULT_PORT = 6379
REDIS_SCHEMES = "redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"
FORMS = (
    "memory:, sqlite:PATH, redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix:///PATH?db=DB, "
    "redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE[/DB] (rediss+... with TLS)"
)


def open_store(url: str, *, timeout_ms: int = 1000, wait_replicas: int = 0) -> Store:
    """Opens the store that `url` names.

    url: "memory:"; "sqlite:PATH" or "sqlite:///PATH" (absolute); "redis://...", "rediss://..." or
        "unix:///..." for a socket file; "redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT" or
        "rediss+cluster://..." for a Redis Cluster, with any of its nodes: the others are discovered.
        "redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DB" or "rediss+sentinel://..." with the sentinels
        of a primary and its replicas (store/redis/url.py).
    timeout_ms: for Redis, to connect, and for each wait for a reply; for SQLite, to wait for other writers.
    wait_replicas: Redis only: how many replicas must have a commit.

    URLs without a known scheme are refused, so that a mistyped URL does not become a local file of that name. SQLite
    opens its file here; Redis is not contacted before check(). Raises StoreError, with what to do.
    """
    if timeout_ms < 1:
        raise StoreError(f"timeout_ms: got {timeout_ms}, expected at least 1")
    if wait_replicas < 0:
        raise StoreError(f"wait_replicas: got {wait_replicas}, expected at least 0")
    scheme, colon, rest = url.partition(":")
    if scheme in REDIS_SCHEMES and rest.startswith("//"):
        if scheme in ("redis", "rediss"):
            _check_redis_url(url)
        elif scheme == "unix":
            _check_unix_url(url)
        return _redis_store(url, scheme.partition("+")[2], timeout_ms, wait_replicas)
    if wait_replicas:
        raise StoreError(f"wait_replicas: got {wait_replicas} with a store that has no replicas, expected 0")
    if url == "memory:":
        return MemoryStore()
    if scheme == "sqlite" and colon:
        return SqliteStore(_sqlite_path(rest), timeout_ms=timeout_ms)
    raise StoreError(f"store: got {url!r}, expected {FORMS}{_meant(url)}")


def _redis_store(url: str, kind: str, timeout_ms: int, wait_replicas: int) -> Store:
    """kind: what follows the plus of the scheme."""
    # Imported here because only a service that keeps its records in Redis needs redis-py.
    from .redis.cluster import Cluster
    from .redis.sentinel import Sentinel
    from .redis.servers import OneServer, Servers
    from .redis.store import RedisStore

    kinds: dict[str, Callable[[str, int], Servers]] = {"": OneServer, "cluster": Cluster, "sentinel": Sentinel}
    return RedisStore(kinds[kind](url, timeout_ms), wait_replicas)


def _sqlite_path(rest: str) -> str:
    """Returns the path after "sqlite:". Raises StoreError for one that cannot be meant as a file name."""
    path = "/" + rest[3:].lstrip("/") if rest.startswith("///") else rest
    if not path:
        why = "no path"
    elif path.startswith("//"):
        why = "a host; write sqlite:PATH or sqlite:///ABSOLUTE/PATH"
    elif path == ":memory:":
        why = "':memory:'; write memory: to keep records in memory only"
    elif "://" in path or path.startswith("file:"):
        why = "a URL instead of a path"
    elif "?" in path:
        why = "a query ('?'), which is not supported"
    elif "$" in path:
        why = "a '$', which looks like an unexpanded variable"
    elif path.startswith("~"):
        why = "a '~', which shells do not expand there; write the full path"
    elif path != path.strip() or not path.isprintable():
        why = "leading or trailing spaces, or unprintable characters"
    else:
        return path
    raise StoreError(f"store: got {'sqlite:' + rest!r} with {why}; expected {FORMS}")


def _check_redis_url(url: str) -> None:
    """Raises StoreError where redis-py would guess: localhost for a missing host, database 0 for a word."""
    form = f"{url.partition(':')[0]}://[USER:PASSWORD@]HOST[:PORT][/DB]"
    parts = split_url(url, form)
    host = parts.netloc.rpartition("@")[2]
    if not host:
        raise StoreError(f"store: got a Redis URL without a host; expected {form}")
    read_address("host", host, DEFAULT_PORT, form)
    check_database(parts.path.removeprefix("/"), form)
    check_options(parts, form)


def _check_unix_url(url: str) -> None:
    """Raises StoreError for a URL without a path: with two slashes, what follows them is a host."""
    form = "unix:///PATH[?db=DB]"
    parts = split_url(url, form)
    if not parts.path.strip("/") or parts.netloc.rpartition("@")[2]:
        raise StoreError(f"store: got a unix URL without an absolute path; expected {form}")
    check_options(parts, form)


def _meant(url: str) -> str:
    """Returns a hint at what a URL without a scheme may have been meant to be."""
    if "$" in url:
        return "; the '$' looks like an unexpanded variable"
    if not url or ":" in url or url.startswith(("redis", "rediss", "unix")):
        return ""
    return "; did you mean memory:?" if url == "memory" else f"; a SQLite file of that name is sqlite:{url}"
