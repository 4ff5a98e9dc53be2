"""Users of Redis that lack a right which the store needs: the start says which, before any step needs it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis import rights
from cellkeeper_service.store.redis.script import of_text, script

from testing.redis_cluster import RedisCluster
from testing.redis_sentinel import RedisSentinels
from testing.redis_server import RedisServer

from .acl_page import PASSWORD, acl_line

RULES = [rule for rule in acl_line("cellkeeper") if rule.startswith("+")]
AT_CONNECTING = {"+info", "+select"}  # needed by every connection, and so refused before anything can be checked
FINDS_SERVERS = {"+cluster|slots"}  # needed to know what to check
OF_KIND = {
    "redis": set[str](),
    "cluster": {"+asking", "+cluster|slots", "+cluster|nodes", "+cluster|info"},
    "sentinel": {"+role"},
}


@dataclass
class Place:
    """Servers, on which the user of the page lacks some of its rights. kind: as in OF_KIND."""

    kind: str
    servers: list[RedisServer]
    url: str
    user: str = field(default="narrow")

    def permit(self, *rules: str, servers: list[RedisServer] | None = None) -> None:
        for server in self.servers if servers is None else servers:
            with server.client() as admin:
                admin.execute_command("ACL", "SETUSER", self.user, "reset", *rules)

    def forget(self) -> None:
        for server in self.servers:
            with server.client() as admin:
                admin.execute_command("ACL", "DELUSER", self.user)

    def check(self, wait_replicas: int = 0) -> None:
        store = open_store(self.url.replace("://", f"://{self.user}:{PASSWORD}@"), wait_replicas=wait_replicas)
        try:
            store.check()
        finally:
            store.close()

    def lacking(self, wait_replicas: int = 0) -> set[str]:
        """Returns the rules that the refusal names."""
        with pytest.raises(StoreError) as caught:
            self.check(wait_replicas)
        text = str(caught.value)
        found = re.search(r"denies the user of the store's URL what the store needs; give this user ([^,]*), by", text)
        assert found, text
        assert len(text.splitlines()) == 1
        return set(found.group(1).split())


@pytest.fixture(params=list(OF_KIND))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        found = Place("redis", [server], server.url)
    elif request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        found = Place("cluster", cluster.nodes, cluster.url)
    else:
        world: RedisSentinels = request.getfixturevalue("redis_sentinels")
        found = Place("sentinel", world.servers, f"{world.url}?sentinel_username=default&sentinel_password=any")
    yield found
    found.forget()


def test_each_right_of_the_page_is_needed_and_named(place: Place) -> None:
    others = set.union(*(rules for kind, rules in OF_KIND.items() if kind != place.kind))
    for rule in sorted(set(RULES) - AT_CONNECTING - FINDS_SERVERS):
        place.permit(*acl_line("cellkeeper"), rule.replace("+", "-", 1))
        if rule in others or rule == "+wait":
            place.check()
        else:
            assert place.lacking() == {rule}
    place.permit(*acl_line("cellkeeper"), "-wait")
    assert place.lacking(wait_replicas=1) == {"+wait"}


def test_several_at_once(place: Place) -> None:
    lacking = {"+rpush", "+ltrim", "+scan"}
    place.permit(*acl_line("cellkeeper"), *(rule.replace("+", "-") for rule in lacking))
    assert place.lacking() == lacking


@pytest.mark.parametrize("keys", ["~ck1:*", "%R~ck2:*"])
def test_the_right_to_the_keys(place: Place, keys: str) -> None:
    place.permit(*acl_line("cellkeeper"), "resetkeys", keys, "-scan")
    assert place.lacking() == {"~ck2:*", "+scan"}


def test_rights_that_a_selector_gives(place: Place) -> None:
    rules = " ".join(rule for rule in acl_line("cellkeeper") if rule[0] in "+~")
    place.permit("on", f">{PASSWORD}", "-@all", f"({rules})")
    place.check()


class Renaming(RedisServer):
    """A server that knows a command by another name only."""

    def __init__(self, renamed: str) -> None:
        super().__init__()
        self._renamed = renamed

    def _command(self) -> list[str]:
        return [*super()._command(), "--rename-command", self._renamed, "OTHER"]


@pytest.mark.parametrize("name", ["RPUSH", "SCRIPT"])
def test_a_command_that_the_server_does_not_know(name: str) -> None:
    with Renaming(name) as server:
        place = Place("redis", [server], server.url)
        place.permit("on", f">{PASSWORD}", "~ck2:*", "+@all")
        with pytest.raises(StoreError, match=f"Redis does not know {name}, which the store needs; remove"):
            place.check()


def test_a_server_of_which_other_commands_have_other_names() -> None:
    """A store on one server sends no ROLE; a proxy may know commands that its server does not."""
    with Renaming("ROLE") as server:
        place = Place("redis", [server], server.url)
        place.permit("on", f">{PASSWORD}", "~ck2:*", "+@all")
        place.check()
        place.permit("on", f">{PASSWORD}", "~ck2:*", "+@all", "-rpush")
        assert place.lacking() == {"+rpush"}


def test_a_server_that_cannot_say_is_not_refused(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others that speak Redis's protocol may lack the function that is asked."""
    place = Place("redis", [redis_server], redis_server.url)
    asked = script("rights")
    without = of_text(asked.text.replace(b"redis.acl_check_cmd", b"redis.no_such_function"))
    monkeypatch.setattr(rights, "script", lambda name: without)
    try:
        place.permit(*acl_line("cellkeeper"), "-rpush")
        place.check()
    finally:
        place.forget()


def test_a_replica_that_could_not_take_over(redis_sentinels: RedisSentinels, caplog: pytest.LogCaptureFixture) -> None:
    url = f"{redis_sentinels.url}?sentinel_username=default&sentinel_password=any"
    place = Place("sentinel", redis_sentinels.servers, url)
    primary = redis_sentinels.primary()
    replicas = [server for number, server in enumerate(redis_sentinels.servers) if number != primary]
    try:
        place.permit(*acl_line("cellkeeper"))
        place.check()
        assert "could not take over" not in caplog.text
        place.permit(*acl_line("cellkeeper"), "-rpush", servers=replicas)
        with caplog.at_level(logging.WARNING):
            place.check()
        assert re.search(r"replica 127.0.0.1:\d+ could not take over: .* give this user \+rpush, by", caplog.text)
    finally:
        place.forget()
