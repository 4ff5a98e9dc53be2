"""Redis over TLS and behind sentinels, as ACL users that may only do what the store does: docs/security.md."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from cellkeeper_service.domain.non_blocking import NonBlockingStore
from cellkeeper_service.domain.store import Delete, Load, Outcome, StoreError
from cellkeeper_service.store.open import open_store

from testing.held_port import HeldPort
from testing.redis_sentinel import RedisSentinels
from testing.redis_server import RedisServer, redis_program
from tests.integration.access.certificates import Authority

from .acl_page import PASSWORD, acl_line
from .records import append, committed, create, inputs, key, replace


def tls_options(authority: Authority, *, days: int = 1) -> dict[str, str]:
    """Returns the options of a Redis with a certificate. days below 0: expired."""
    cert, key_file = authority.issue("redis", days=days)
    return {
        "tls-cert-file": str(cert),
        "tls-key-file": str(key_file),
        "tls-ca-cert-file": str(authority.file),
        "tls-auth-clients": "no",
    }


def has_tls() -> bool:
    """Returns True if this redis-server was built with TLS."""
    with HeldPort() as port:
        command = [redis_program(), "--port", "0", "--tls-port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return "tls-port" not in done.stdout.replace("--tls-port", "") or "Failed to configure TLS" in done.stdout


@dataclass
class Place:
    """url: for the user with the fewest rights. ca_file: verifies the server's certificate."""

    url: str
    ca_file: Path
    port: int


@pytest.fixture(scope="module", params=["rediss", "rediss+cluster"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if not has_tls():
        pytest.skip("this redis-server was built without TLS")
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    options = tls_options(authority)
    if request.param == "rediss+cluster":
        options |= {"cluster-enabled": "yes", "tls-cluster": "yes"}
    with HeldPort() as port, RedisServer({**options, "tls-port": str(port)}) as server, server.client() as admin:
        if request.param == "rediss+cluster":
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in _raw(admin):
                pass
        admin.execute_command("ACL", "SETUSER", "cellkeeper", *acl_line())
        admin.execute_command("ACL", "SETUSER", "default", "off")
        path = "/0" if request.param == "rediss" else ""
        url = f"{request.param}://cellkeeper:{PASSWORD}@127.0.0.1:{port}{path}?ssl_ca_certs={authority.file}"
        yield Place(url, authority.file, port)


def _raw(admin: redis.Redis) -> bytes:
    found = admin.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    return found if isinstance(found, bytes) else str(found).replace("'", "").replace(": ", ":").encode()


def test_a_record_from_its_creation_to_its_deletion(place: Place) -> None:
    store = open_store(place.url)
    try:
        store.check()
        at = key("a")
        first = committed(store, create(at))
        later = committed(store, append(at, first, inputs(1), ttl_ms=60_000))
        later = committed(store, append(at, later, inputs(2), ttl_ms=0))
        later = committed(store, replace(at, later, b"another state", inputs(3)))
        found = store.load_many([Load(at, True)])
        assert [getattr(record, "header", record) for record in found] == [later]
        assert [where.session for where, _ in store.scan("", "weather", "", "", 10).sessions] == ["a"]
        gone = store.delete_many([Delete(at, first.position.generation)])
        assert [result.outcome for result in gone] == [Outcome.COMMITTED]
        assert isinstance(store, NonBlockingStore)
        assert store.begin_commit([create(at)]) is None  # with TLS, a thread does it
    finally:
        store.close()


@pytest.fixture(scope="module")
def sentinels() -> Iterator[RedisSentinels]:
    """Sentinels and servers, each with the user that the page states."""
    with RedisSentinels(quick=True) as world:
        world.wait_until_whole()
        for servers, user in ((world.servers, "cellkeeper"), (world.sentinels, "cellkeeper-watch")):
            for server in servers:
                with server.client() as admin:
                    admin.execute_command("ACL", "SETUSER", user, *acl_line(user))
        yield world


def sentinel_url(world: RedisSentinels) -> str:
    url = world.url.replace("://", f"://cellkeeper:{PASSWORD}@")
    return f"{url}?sentinel_username=cellkeeper-watch&sentinel_password={PASSWORD}"


@pytest.mark.parametrize("wait_replicas", [0, 1])
def test_the_users_behind_sentinels(sentinels: RedisSentinels, wait_replicas: int) -> None:
    store = open_store(sentinel_url(sentinels), wait_replicas=wait_replicas)
    try:
        store.check()
        at = key(f"behind sentinels, {wait_replicas}")
        header = committed(store, append(at, committed(store, create(at)), inputs(1)))
        found = store.load_many([Load(at, True)])
        assert [getattr(record, "header", record) for record in found] == [header]
        assert [where.session for where, _ in store.scan("", "weather", at.session, "", 10).sessions] == [at.session]
        gone = store.delete_many([Delete(at, header.position.generation)])
        assert [result.outcome for result in gone] == [Outcome.COMMITTED]
    finally:
        store.close()


def test_a_sentinels_user_without_a_right(sentinels: RedisSentinels) -> None:
    for sentinel in sentinels.sentinels:
        with sentinel.client() as admin:
            admin.execute_command("ACL", "SETUSER", "weak", *acl_line("cellkeeper-watch"), "-sentinel|master")
    store = open_store(sentinel_url(sentinels).replace("cellkeeper-watch", "weak"))
    try:
        with pytest.raises(StoreError, match=r"it refused: NoPermissionError.*give its user this right") as failed:
            store.check()
        assert "does not know" not in str(failed.value)
    finally:
        store.close()


def test_the_user_may_do_nothing_else(place: Place) -> None:
    options = {"ssl": True, "ssl_ca_certs": str(place.ca_file), "username": "cellkeeper", "password": PASSWORD}
    with redis.Redis(port=place.port, host="127.0.0.1", **options) as client:  # type: ignore[arg-type]
        for command in (["FLUSHALL"], ["CONFIG", "GET", "*"], ["KEYS", "*"], ["ACL", "LIST"], ["GET", "ck1:x"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command("LINDEX", "someone:else", 0)


@pytest.mark.parametrize(
    ("wrong", "what_to_do"),
    [
        ("password", "name its present password in the store's URL"),
        ("authority", "name Redis's authority as ssl_ca_certs"),
        ("no file", "name files that are there as ssl_ca_certs"),
        ("plain text", "if it serves TLS, its URL begins with rediss"),
    ],
)
def test_what_is_not_let_in(place: Place, wrong: str, what_to_do: str, tmp_path: Path) -> None:
    url = place.url
    if wrong == "password":
        url = url.replace(PASSWORD, "guess")
    elif wrong == "authority":
        url = url.replace(str(place.ca_file), str(Authority(tmp_path).file))
    elif wrong == "no file":
        url = url.replace(str(place.ca_file), str(tmp_path / "none"))
    else:
        url = url.replace("rediss", "redis").partition("?")[0]
    store = open_store(url, timeout_ms=500)
    try:
        with pytest.raises(StoreError, match=what_to_do):
            store.check()
    finally:
        store.close()


def test_an_expired_certificate_is_said_to_have_expired(tmp_path: Path) -> None:
    """The advice is not the one for a wrong authority, which is right."""
    if not has_tls():
        pytest.skip("this redis-server was built without TLS")
    authority = Authority(tmp_path)
    with HeldPort() as port, RedisServer({**tls_options(authority, days=-1), "tls-port": str(port)}):
        store = open_store(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.file}", timeout_ms=500)
        try:
            with pytest.raises(StoreError, match=r"certificate has expired.*; renew Redis's certificate, or set this"):
                store.check()
        finally:
            store.close()
