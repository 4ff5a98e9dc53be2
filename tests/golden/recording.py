"""One run of the script against a server with a store of its own, and what it gives as text."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.redis_server import RedisServer
from tests.server_process import ServerProcess

from .names import Names
from .script import OPTIONS, Script
from .stored import RedisLists, SqliteFile, Stored, now_ms
from .transcript import Transcript

FOLDER = Path(__file__).parent
BUNDLE = FOLDER / "bundle"
STORES = ("sqlite", "redis")
Texts = dict[str, str]  # by the name of the file


def record(store: str, folder: Path) -> Texts:
    """wire.txt, the same for every store, and records-STORE.txt. folder: an empty one, for the store's file."""
    with ExitStack() as running:
        started_ms, names = now_ms(), Names()
        if store == "redis":
            redis = running.enter_context(RedisServer())
            url = redis.url
            stored: Stored = RedisLists(running.enter_context(redis.client()), started_ms)
        else:
            file = folder / "sessions.db"
            url, stored = f"sqlite:{file}", SqliteFile(file, started_ms)
        words = [word for name, value in OPTIONS.items() for word in (name, str(value))]
        server = running.enter_context(ServerProcess([BUNDLE], url, words))
        transcript = Transcript(running.enter_context(server.channel()), names, stored)
        Script(transcript, names, url).run()
        return {"wire.txt": transcript.wire(), f"records-{store}.txt": transcript.records()}
