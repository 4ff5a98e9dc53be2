from __future__ import annotations

from pathlib import Path

import pytest
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.server.opening import without_secrets
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis.url import TLS_OPTIONS


def test_memory() -> None:
    assert open_store("memory:").name == "memory"


@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite://{}"])
def test_sqlite(form: str, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = open_store(form.format(path))
    assert store.name == "sqlite"
    assert path.exists()
    store.close()


def test_sqlite_beside_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:data/sessions.db").close()
    assert (tmp_path / "data" / "sessions.db").exists()


@pytest.mark.parametrize("url", ["redis://localhost:1/0", "rediss://localhost:1", "unix:///nowhere.sock?db=1"])
def test_redis_is_not_asked_yet(url: str) -> None:
    store = open_store(url)
    assert store.name == "redis"
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        *("", "sqlite:", "memory:x", "postgres://host/db", "redis:host", "sqlite://host/path", "http://x"),
        *("$STORE_URL", "$(STORE_URL)", "${STORE}", "redis", "redis//host", "redis/", "localhost", "memory", "SQLITE"),
        *("sessions.db", "./sessions.db", "data/sessions.sqlite", "/tmp/sessions.db", "sqlite", " ", "Redis://host"),
    ],
)
def test_other_forms_are_named(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="expected memory:, sqlite:PATH, redis://") as refused:
        open_store(url)
    assert repr(url) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sessions.db", "a SQLite file of that name is sqlite:sessions.db"),
        ("memory", "did you mean memory:?"),
        ("$STORE_URL", "the '$' looks like an unexpanded variable"),
    ],
)
def test_what_may_have_been_meant(url: str, text: str) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(url)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("$DATA/s.db", "a '$', which looks like an unexpanded variable"),
        ("$(DATA)/s.db", "a '$', which looks like an unexpanded variable"),
        ("~/s.db", "write the full path"),
        ("redis://host", "a URL instead of a path"),
        ("file:s.db", "a URL instead of a path"),
        ("s.db?timeout=5", "a query"),
        (":memory:", "write memory:"),
        (" s.db", "leading or trailing spaces"),
        ("s.db\n", "unprintable characters"),
    ],
)
def test_what_nobody_calls_a_file(path: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"^store: got 'sqlite:") as refused:
        open_store(f"sqlite:{path}")
    assert text in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["redis://", "redis:///0", "rediss://:6379/0", "redis://host/sessions", "redis://h/0/1"]
)
def test_redis_is_not_guessed(url: str) -> None:
    with pytest.raises(StoreError, match=r"store: got .*expected redis"):
        open_store(url)


REDIS = ["redis://host/0?{}", "unix:///s?{}", "redis+cluster://host?{}", "redis+sentinel://host/mine?{}"]


@pytest.mark.parametrize("form", REDIS)
@pytest.mark.parametrize("option", ["decode_responses=true", "socket_timeout=9", "retry=1", "foo=1", "secret", "ssl=1"])
def test_an_option_that_redis_py_would_not_take_or_the_store_not_bear(form: str, option: str) -> None:
    with pytest.raises(StoreError, match="with another option in its query than db, username, password") as refused:
        open_store(form.format(f"db=1&{option}"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("form", REDIS)
@pytest.mark.parametrize("database", ["x", "-1"])
def test_a_database_that_is_no_number(form: str, database: str) -> None:
    with pytest.raises(StoreError, match=f"database '{database}', (which is not a number; )?expected"):
        open_store(form.format(f"db={database}"))


@pytest.mark.parametrize("url", ["redis+cluster://host/1", "redis+cluster://host?db=1"])
def test_a_cluster_has_one_database(url: str) -> None:
    with pytest.raises(StoreError, match="database '1', expected none"):
        open_store(url)


@pytest.mark.parametrize("form", REDIS)
def test_an_option_of_tls_without_tls(form: str) -> None:
    with pytest.raises(StoreError, match="with ssl_ca_certs, which needs TLS; expected rediss://"):
        open_store(form.format("ssl_ca_certs=ca.pem"))


@pytest.mark.parametrize("form", REDIS)
def test_redis_py_knows_each_option(form: str) -> None:
    query = "db=0&username=u&password=p&client_name=c"
    if not form.startswith("unix"):
        query += "&socket_keepalive=yes"
    with pytest.raises(StoreError, match=r"cannot be reached|reported"):
        open_store(form.format(query).replace("//host", "//localhost:1")).check()


def test_a_socket_file_is_kept_alive_by_nothing() -> None:
    with pytest.raises(StoreError, match="with another option in its query than db, username, password, client_name "):
        open_store("unix:///s?socket_keepalive=yes")


@pytest.mark.parametrize("name", TLS_OPTIONS)
def test_redis_py_knows_each_option_of_tls(name: str) -> None:
    value = {"ssl_cert_reqs": "none", "ssl_check_hostname": "no"}.get(name, "x")
    with pytest.raises(StoreError, match="Redis cannot be reached: "):
        open_store(f"rediss://localhost:1?{name}={value}").check()


@pytest.mark.parametrize("url", ["unix://", "unix://?db=1", "unix:///", "unix://redis.sock", "unix://run/redis.sock"])
def test_a_socket_file_needs_its_whole_path(url: str) -> None:
    with pytest.raises(StoreError, match="without an absolute path; expected unix:///PATH"):
        open_store(url)


@pytest.mark.parametrize("login", ["user:12/secret", "user:secret/12", "user:12?secret", "secret#12", "secret/:12"])
@pytest.mark.parametrize(
    "form", ["redis://{}@host/0", "rediss://{}@host:1", "redis+cluster://{}@host:1", "redis+sentinel://{}@host:1/mine"]
)
def test_a_password_that_is_not_escaped_is_neither_guessed_at_nor_shown(form: str, login: str) -> None:
    with pytest.raises(StoreError, match="%2F, %3F or %23") as refused:
        open_store(form.format(login))
    for part in ("secret", "12"):
        assert part not in str(refused.value).replace("redis://HOST", "")


@pytest.mark.parametrize("form", ["redis://{}", "redis+cluster://{}", "redis+sentinel://{}/mine"])
@pytest.mark.parametrize("host", ["[::1", "secret\u2100@host"])
def test_what_urllib_refuses_is_refused(form: str, host: str) -> None:
    with pytest.raises(StoreError, match="whose host cannot be read") as refused:
        open_store(form.format(host))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host", "no *** here"),
        ("redis://@host", "no user:secret here"),
        ("redis://host", "no user:secret here"),
        ("sqlite:user:secret@host", "no user:secret here"),
    ],
)
def test_only_secrets_are_hidden(url: str, shown: str) -> None:
    assert without_secrets("no user:secret here", url) == shown


def test_settings_that_cannot_be() -> None:
    with pytest.raises(StoreError, match="timeout_ms"):
        open_store("memory:", timeout_ms=0)
    with pytest.raises(StoreError, match="wait_replicas"):
        open_store("redis://localhost", wait_replicas=-1)
    with pytest.raises(StoreError, match="no replicas"):
        open_store("memory:", wait_replicas=1)
    with pytest.raises(StoreError, match="Redis URL"):
        open_store("redis://localhost:port/0")
