"""Runs the script once against a server with its own store, and returns the result as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from . import tenants
from .messages import numerics_digest
from .names import Names
from .script import OPTIONS, Script
from .stored import RedisLists, SqliteFile, Stored, now_ms
from .transcript import Transcript

FOLDER = Path(__file__).parent
BUNDLE = FOLDER / "bundle"
STORES = ("sqlite", "redis")
Texts = dict[str, str]  # by file name


def record(store: str, folder: Path, kept: Callable[[str], None] = lambda url: None) -> Texts:
    """Returns wire.txt and tenants.txt, the same for every store, and records-STORE.txt and tenants-STORE.txt.

    folder: an empty folder for the store's file. kept: called with the store's URL once the servers have written
    everything.
    """
    with ExitStack() as running:
        started_ms = now_ms()
        if store == "redis":
            redis = running.enter_context(RedisServer())
            url, client = redis.url, running.enter_context(redis.client())
            run_id: str = client.info("server")["run_id"]
            stored: Stored = RedisLists(client, started_ms, bytes.fromhex(run_id[:8]))
        else:
            file = folder / "sessions.db"
            url, stored = f"sqlite:{file}", SqliteFile(file, started_ms)
        with talking(url, OPTIONS, stored) as (transcript, names):
            Script(transcript, names, url).run()
            texts = {"wire.txt": transcript.wire(), f"records-{store}.txt": transcript.records()}
            numerics = numerics_digest(transcript.numerics)
        with talking(url, tenants.options(folder), stored) as (transcript, names):
            names.add(numerics, b"numerics")
            tenants.Tenants(transcript, names).run()
            texts |= {"tenants.txt": transcript.wire(), f"tenants-{store}.txt": transcript.records()}
        kept(url)
        return texts


@contextmanager
def talking(url: str, options: Mapping[str, Any], stored: Stored) -> Iterator[tuple[Transcript, Names]]:
    """Yields a transcript of a new server. What is already stored does not count as a change."""
    words = [str(word) for option in options.items() for word in option]
    names = Names()
    with ForkedServer([BUNDLE], url, words) as server, server.channel() as channel:
        yield Transcript(channel, names, stored), names
