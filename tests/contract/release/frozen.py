"""Reads the files of a release from its folder.

sessions.db     a SQLite file, as servers of the release left it
redis.txt       the same for Redis: each line has a key, "ttl" or "none", and the elements of its list; keys and
                elements in hexadecimal
sessions.json   what the release's own code read from both: every record, field by field
bundles/        a bundle of each kind; bundles.json has their fingerprints, inputs and predictions
contract.binpb  the descriptors of the .proto files
wire.txt        fixed requests and their replies, as in tests/contract/golden; tenants.txt: the same with tokens
names.json      metrics with their types, and settings
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import Load, Store

RELEASES = Path(__file__).parent
TENANTS = {"": "golden", "acme": "golden", "other.corp": "golden"}  # with the model of each tenant's sessions
TTL_MS = 3_600_000
Spelled = dict[str, Any]


def spelled(key: SessionKey, record: Record) -> Spelled:
    """Returns a record with the header's fields by name."""
    header = record.header
    return {
        "key": list(key),
        "generation": header.position.generation.hex(),
        "step": header.position.step,
        "head": header.position.head.hex(),
        "updated_ms": header.updated_ms,
        "checkpoint_step": header.checkpoint_step,
        "checkpoint_head": header.checkpoint_head.hex(),
        "created_ms": header.created_ms,
        "ttl_ms": header.ttl_ms,
        "fingerprint": header.fingerprint.hex(),
        "numerics": header.numerics.hex(),
        "origin": header.origin.hex(),
        "step_bytes": header.step_bytes,
        "checkpoint": record.checkpoint.hex(),
        "log": record.log.hex(),
    }


def records(store: Store) -> Iterator[tuple[SessionKey, Record]]:
    """Yields all records in a store that the fixed requests created."""
    for tenant, model in TENANTS.items():
        page = store.scan(tenant, model, "", "", 1000)
        assert not page.cursor
        for key, _ in sorted(page.sessions):
            (record,) = store.load_many([Load(key, touch=False)])
            assert isinstance(record, Record), record
            yield key, record


def sessions(folder: Path, store: str) -> list[Spelled]:
    """Returns the records of sessions.json. store: sqlite or redis."""
    found: list[Spelled] = json.loads((folder / "sessions.json").read_text())[store]
    return found


def redis_lines(client: redis.Redis) -> str:
    """Returns the content of a server in the format of redis.txt."""
    lines = []
    for key in sorted(client.scan_iter()):
        ttl = "none" if client.pttl(key) == -1 else "ttl"
        elements: Any = client.lrange(key, 0, -1)
        lines.append(" ".join([key.hex(), ttl, *(element.hex() for element in elements)]))
    return "\n".join(lines) + "\n"


def fill_redis(folder: Path, client: redis.Redis) -> None:
    """Loads redis.txt into an empty server."""
    for line in (folder / "redis.txt").read_text().splitlines():
        key, ttl, *elements = line.split(" ")
        client.rpush(bytes.fromhex(key), *map(bytes.fromhex, elements))
        if ttl == "ttl":
            client.pexpire(bytes.fromhex(key), TTL_MS)
