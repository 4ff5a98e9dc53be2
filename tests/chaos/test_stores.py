"""What the harness does to a store is what it says."""

from __future__ import annotations

import time

from .stores import UNSYNCED_S, RedisEverysec


def test_a_power_cut_takes_what_was_not_synced() -> None:
    with RedisEverysec() as store:
        with store.primary.client() as client:
            client.set("old", "1")
            while not store.size_at(time.monotonic() - UNSYNCED_S):
                time.sleep(0.02)  # between two looks at the condition
            client.set("new", "1")
        store.cut_power()
        store.restart()
        with store.primary.client() as client:
            assert client.get("old") == b"1"
            assert client.get("new") is None
            client.set("new", "2")
        store.primary.kill()
        store.restart()
        with store.primary.client() as client:
            assert client.get("new") == b"2"
