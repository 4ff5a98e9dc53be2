"""Three runs of a Redis server whose append-only file a power cut ends in the middle of a write.

Run 1 writes a history; its file is cut at some byte of the writes of the last commit or delete. Run 2 serves what is
left, with or without writes, which are synced before they are acknowledged; SIGKILL ends it. Run 3 must hold what run
2 acknowledged, and for every other session a state that it once had.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, Delete, Load, Outcome, Store, StoreError
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis.keys import redis_key

from testing.redis_server import RedisServer
from tests.contract.store.layout1.store import OldStore, name_of
from tests.contract.store.records import HOUR_MS, append, create, generation, inputs, key, replace

AGES_MS = 1000 * 365 * 24 * HOUR_MS  # a thousand years
BYSTANDER = "bystander"
SESSIONS = (
    "appended",
    "replaced",
    "replaced again",
    "created",
    "created with a TTL",
    "with a TTL",
    "replaced with a TTL",
    "gets a TTL",
    "loses its TTL",
    "without its TTL",
    "reset",
    "deleted",
    BYSTANDER,
)
State = Record | None


@cache
def keeps_half_transactions() -> bool:
    """Returns whether a transaction that was cut within a command comes back with the next one's end.

    Redis 7 and 8 keep what the file has of it, and Valkey 9 drops it.
    """
    half = b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1\r\n1\r\n*3\r\n$3\r\nSE"
    with RedisServer() as server:
        server.kill()
        with aof(server).open("ab") as file:
            file.write(half)
        server.restart()
        with server.client() as client, client.pipeline() as whole:
            whole.set("a", 1).set("b", 1).execute()  # of one command, MULTI and EXEC are left out
        server.kill()
        server.restart()
        with server.client() as client:
            return bool(client.exists("half"))


class Layout(Enum):
    OLD = 1
    NEW = 2

    @contextmanager
    def opened(self, server: RedisServer) -> Iterator[Store | OldStore]:
        store = OldStore(server.port) if self is Layout.OLD else open_store(server.url, timeout_ms=10_000)
        try:
            yield store
        finally:
            store.close()

    def key_of(self, at: SessionKey) -> bytes:
        return name_of(at) if self is Layout.OLD else redis_key(at)


class Second(Enum):
    """What the second run writes."""

    NOTHING = "nothing"
    ONE_SESSION = "steps of one session, each a call by itself"
    EVERYTHING = "every session"


@dataclass
class History:
    """The writes of run 1.

    states: those that each session had, in order. file: the append-only file. cuts_from: its first byte that may be
    lost.
    """

    layout: Layout
    states: dict[str, list[State]] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)
    file: bytes = b""
    cuts_from: int = 0

    @property
    def commands(self) -> list[int]:
        """The offsets of the commands that may be cut."""
        return [start for start in command_starts(self.file) if start >= self.cuts_from]


def command_starts(content: bytes) -> list[int]:
    """Returns the offset of each command in an append-only file."""
    starts, at = [], 0
    while at < len(content):
        starts.append(at)
        end = content.index(b"\r\n", at)
        at, words = end + 2, int(content[at + 1 : end])
        for _ in range(words):
            end = content.index(b"\r\n", at)
            at = end + 2 + int(content[at + 1 : end]) + 2
    return starts


def states_of(store: Store | OldStore, sessions: Sequence[str] = SESSIONS) -> dict[str, State | StoreError]:
    return dict(zip(sessions, store.load_many([Load(key(name), touch=False) for name in sessions]), strict=True))


def write_history(layout: Layout, folder: Path) -> History:
    """Runs run 1. folder: where its files are kept."""
    history = History(layout, {name: [None] for name in SESSIONS}, folder)
    with RedisServer() as server, layout.opened(server) as store:

        def commit(commits: dict[str, Commit]) -> dict[str, Header]:
            results = store.commit_many(list(commits.values()))
            assert all(result.outcome is Outcome.COMMITTED for result in results), results
            for name, state in states_of(store).items():
                assert not isinstance(state, StoreError), state
                if state != history.states[name][-1]:
                    history.states[name].append(state)
            return {name: one.header for name, one in commits.items()}

        ttl = {"with a TTL", "replaced with a TTL", "loses its TTL", "without its TTL"}
        there = [name for name in SESSIONS if not name.startswith("created")]
        at = commit(
            {name: create(key(name), checkpoint=b"state 0", ttl_ms=HOUR_MS if name in ttl else 0) for name in there}
        )
        once = [name for name in there if name != "replaced again"]
        at |= commit({name: append(key(name), at[name], inputs(n)) for n, name in enumerate(once)})
        with server.client() as client:  # what a power cut between its commit and its PEXPIRE leaves
            client.persist(layout.key_of(key("without its TTL")))
        history.cuts_from = aof(server).stat().st_size
        commit(
            {
                "appended": append(key("appended"), at["appended"], inputs(50)),
                "replaced": replace(key("replaced"), at["replaced"], b"state 1", inputs(51, 2)),
                "replaced again": replace(key("replaced again"), at["replaced again"], b"state 1", inputs(55)),
                "without its TTL": append(key("without its TTL"), at["without its TTL"], inputs(56)),
                "created": create(key("created"), log=inputs(52)),
                "created with a TTL": create(key("created with a TTL"), ttl_ms=HOUR_MS),
                "with a TTL": append(key("with a TTL"), at["with a TTL"], inputs(53)),
                "replaced with a TTL": replace(key("replaced with a TTL"), at["replaced with a TTL"], b"state 2"),
                "gets a TTL": append(key("gets a TTL"), at["gets a TTL"], b"", ttl_ms=HOUR_MS),
                "loses its TTL": append(key("loses its TTL"), at["loses its TTL"], inputs(54), ttl_ms=0),
                "reset": Commit(key("reset"), at["reset"], create(key("reset"), seed=2).header, b"", b"state 3"),
            }
        )
        deletes = [Delete(key("deleted"), generation(1))]
        assert store.delete_many(deletes)[0].outcome is Outcome.COMMITTED
        history.states["deleted"].append(None)
        server.kill()
        history.file = aof(server).read_bytes()
        shutil.copytree(server.folder / "appendonlydir", folder / "appendonlydir")
    return history


def violations(history: History, cut: int, second: Second) -> list[str]:
    """Runs runs 2 and 3 on the file's first `cut` bytes. Returns what is wrong after them."""
    layout, wrong = history.layout, list[str]()
    with RedisServer() as server:
        server.kill()
        shutil.rmtree(server.folder / "appendonlydir")
        shutil.copytree(history.folder / "appendonlydir", server.folder / "appendonlydir")
        aof(server).write_bytes(history.file[:cut])
        server.restart()
        with layout.opened(server) as store:
            found = states_of(store)
            wrong += _once_had(history, found, "run 2")
            wrong += _ttls(layout, server, found, "run 2")
            acknowledged = _second_run(store, found, second)
        server.kill()
        server.restart()
        with layout.opened(server) as store:
            third = states_of(store)
            for name, state in acknowledged.items():
                if third[name] != state:
                    wrong.append(f"run 3: {name!r} is {third[name]}, run 2 acknowledged {state}")
            rest = {name: state for name, state in third.items() if name not in acknowledged}
            wrong += _once_had(history, rest, "run 3")
            wrong += _ttls(layout, server, third, "run 3")
            whole = {name: state for name, state in third.items() if not isinstance(state, StoreError)}
            try:
                _second_run(store, whole, Second.EVERYTHING)
            except AssertionError as error:
                wrong.append(f"run 3: {error}")
    return [f"cut at byte {cut}, then {second.value} is written: {text}" for text in wrong]


def _second_run(
    store: Store | OldStore, found: dict[str, State | StoreError] | dict[str, State], second: Second
) -> dict[str, State]:
    """Writes, and returns the acknowledged states."""
    names = {Second.NOTHING: (), Second.ONE_SESSION: (BYSTANDER,), Second.EVERYTHING: tuple(found)}[second]
    acknowledged: dict[str, State] = {}
    for turn, name in enumerate([*names, *names]):
        state = acknowledged.get(name, found.get(name))
        if isinstance(state, StoreError):
            continue
        if state is None:
            commit = create(key(name), seed=3, log=inputs(60 + turn))
            after = Record(commit.header, commit.checkpoint or b"", commit.log)
        elif name in acknowledged and turn % len(names) % 2:
            commit = replace(key(name), state.header, b"state of run 2", inputs(60 + turn))
            after = Record(commit.header, commit.checkpoint or b"", commit.log)
        else:
            commit = append(key(name), state.header, inputs(60 + turn), ttl_ms=0 if name == "without its TTL" else None)
            after = Record(commit.header, state.checkpoint, state.log + commit.log)
        (result,) = store.commit_many([commit])
        if result.outcome is not Outcome.COMMITTED:
            raise AssertionError(f"{name!r} cannot be gone on with: {result}")
        acknowledged[name] = after
    return acknowledged


def _once_had(history: History, found: dict[str, State | StoreError], run: str) -> Iterator[str]:
    for name, state in found.items():
        if isinstance(state, StoreError):
            yield f"{run}: {name!r} cannot be read: {state}"
        elif state not in history.states[name]:
            yield f"{run}: {name!r} is {state}, which it never was"


def _ttls(
    layout: Layout, server: RedisServer, found: dict[str, State | StoreError] | dict[str, State], run: str
) -> Iterator[str]:
    """Checks TTLs. A record without a TTL in its header has none, or the thousand years that write.lua sets briefly.

    A record with a TTL may have lost it until its next commit.
    """
    with server.client() as client:
        for name, state in found.items():
            if not isinstance(state, Record) or state.header.ttl_ms != 0:
                continue
            if -1 != client.pttl(layout.key_of(key(name))) < AGES_MS:
                yield f"{run}: {name!r} has a TTL that its header does not ask for"


def aof(server: RedisServer) -> Path:
    """Returns the file with the server's writes since its last rewrite."""
    (path,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    return path
