"""Listing sessions, on each of the stores."""

from __future__ import annotations

import pytest
from cellkeeper_service.domain.record import Header
from cellkeeper_service.domain.store import DamagedRecord, Delete, Store

from tests.contract.store.records import UNICODE_ID, committed, create, generation, key

ODD_IDS = [
    "a*b",
    "a?b",
    "a[b]c",
    "a\\b",
    "a^b",
    "a-b",
    "a",
    "ab",
    "aXb",
    "a\nb",
    "ä",
    "日本",
    UNICODE_ID,
    "a:b",
    "{a}",
]


def listed(
    store: Store, prefix: str, limit: int = 100, model: str = "weather", tenant: str = ""
) -> dict[str, Header | DamagedRecord]:
    """Lists all pages. A session may occur more than once."""
    sessions: dict[str, Header | DamagedRecord] = {}
    cursor = ""
    while True:
        page = store.scan(tenant, model, prefix, cursor, limit)
        for at, header in page.sessions:
            assert (at.tenant, at.model) == (tenant, model)
            sessions[at.session] = header
        cursor = page.cursor
        if not cursor:
            return sessions


def test_nothing_there(store: Store) -> None:
    assert listed(store, "") == {}


@pytest.mark.parametrize(
    "prefix", ["", "a", "a*", "a?", "a[", "a[b]", "a\\", "a^", "a-", "ä", "日", "*", "\n", "{a", "zz"]
)
def test_a_prefix_is_plain_text(store: Store, prefix: str) -> None:
    commits = [create(key(session), seed=n) for n, session in enumerate(ODD_IDS)]
    store.commit_many(commits)
    expected = {commit.key.session: commit.header for commit in commits if commit.key.session.startswith(prefix)}
    assert listed(store, prefix) == expected


def test_others_are_not_listed(store: Store) -> None:
    keys = [key("s"), key("s", "climate"), key("s", "weather:s"), key("s", "weather", "acme"), key("s", "w*")]
    store.commit_many([create(at, seed=n) for n, at in enumerate(keys)])
    for n, at in enumerate(keys):
        assert listed(store, "", model=at.model, tenant=at.tenant) == {"s": create(at, seed=n).header}
    assert listed(store, "", model="*") == {}
    assert listed(store, "", model="weathe") == {}


def test_a_session_that_looks_like_another_scope(store: Store) -> None:
    committed(store, create(key("}:other:weather:s", "weather", "")))
    assert listed(store, "", tenant="other") == {}


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_hold_every_session_that_stays(store: Store, limit: int) -> None:
    """While others come and go between the pages."""
    staying = [create(key(f"stays-{n}"), seed=n) for n in range(60)]
    store.commit_many(staying)
    sessions: dict[str, Header | DamagedRecord] = {}
    cursor, pages = "", 0
    while True:
        store.commit_many([create(key(f"{pages:03d}-new-{n}"), seed=n) for n in range(20)])
        if pages:
            store.delete_many([Delete(key(f"{pages - 1:03d}-new-{n}"), generation(n)) for n in range(20)])
        page = store.scan("", "weather", "stays-", cursor, limit)
        sessions.update({at.session: header for at, header in page.sessions})
        cursor, pages = page.cursor, pages + 1
        if not cursor:
            break
    assert sessions == {commit.key.session: commit.header for commit in staying}


@pytest.mark.parametrize("cursor", ["x", "-1", "zz", "1.5", "99999999999999999999999999", "ff", "０"])
def test_a_cursor_of_nobody(store: Store, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        store.scan("", "weather", "", cursor, 10)
