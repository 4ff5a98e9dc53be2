from __future__ import annotations

from pathlib import Path

import pytest
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.store.open import open_store


def test_memory() -> None:
    assert open_store("memory:").name == "memory"


@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite://{}", "{}"])
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
    "url", ["", "sqlite:", "memory:x", "postgres://host/db", "redis:host", "sqlite://host/path", "http://x"]
)
def test_other_forms_are_named(url: str) -> None:
    with pytest.raises(StoreError, match="expected memory:, sqlite:PATH, redis://"):
        open_store(url)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(StoreError, match="timeout_ms"):
        open_store("memory:", timeout_ms=0)
    with pytest.raises(StoreError, match="wait_replicas"):
        open_store("redis://localhost", wait_replicas=-1)
    with pytest.raises(StoreError, match="no replicas"):
        open_store("memory:", wait_replicas=1)
    with pytest.raises(StoreError, match="Redis URL"):
        open_store("redis://localhost:port/0")
