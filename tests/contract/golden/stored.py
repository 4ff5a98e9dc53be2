"""Reads the stored bytes of records without the service's code."""

from __future__ import annotations

import sqlite3
import struct
import time
from pathlib import Path
from typing import Protocol
from zlib import crc32

import redis

from .names import Names

CREATED, UPDATED, UPDATED_6 = b"created.", b"updated.", b"updat."
TTL_MS = 3_600_000  # the only TTL that the script asks for
Rows = tuple[tuple[str, bytes], ...]  # each piece's name and bytes
Records = dict[str, Rows]  # by key


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Stored(Protocol):
    def read(self) -> Records: ...

    def fixed(self, what: str, data: bytes, names: Names) -> bytes:
        """Returns a piece with fixed values in place of times and names."""


class SqliteFile:
    """started_ms: the records' times must not be earlier."""

    def __init__(self, path: Path, started_ms: int) -> None:
        self._path, self._started_ms = path, started_ms

    def read(self) -> Records:
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        try:
            records = connection.execute(
                "SELECT record, tenant, model, session, checked_header, expires_ms FROM records"
            )
            found: Records = {}
            for record, tenant, model, session, header, expires_ms in records.fetchall():
                rows = [("header", header), ("expires", expires_ms.to_bytes(8, "little"))]
                of_record = "WHERE record = ?", (record,)
                for state, sums in connection.execute(
                    f"SELECT state, sums FROM checkpoints {of_record[0]}", of_record[1]
                ):
                    rows += [("checkpoint", state), ("checksums", sums + header[:16] + header[40:56])]
                for chunk, inputs in connection.execute(
                    f"SELECT chunk, inputs FROM chunks {of_record[0]} ORDER BY chunk", of_record[1]
                ):
                    rows.append((f"chunk {chunk}", inputs))
                found[f"{tenant}|{model}|{session.decode()}"] = tuple(rows)
            return found
        finally:
            connection.close()

    def fixed(self, what: str, data: bytes, names: Names) -> bytes:
        if what == "header":
            check_time(data[32:40], self._started_ms)
            check_time(data[56:64], self._started_ms)
            header = names.fix(data[:32] + UPDATED + data[40:56] + CREATED + data[64:132])
            if data[132:] == _crc(data[:132]):
                return header + _crc(header)
            data = header + data[132:]
        elif what == "checksums":  # of the state; of the generation and the checkpoint's step and head, which follow
            of = names.fix(data[8:])
            data = data[:4] + (_crc(of) if data[4:8] == _crc(data[8:]) else data[4:8])
        elif what == "expires" and any(data):
            expires_ms = int.from_bytes(data, "little")
            if not self._started_ms <= expires_ms - TTL_MS <= now_ms():
                raise AssertionError(f"expires_ms: got {expires_ms}, expected {TTL_MS} ms after a commit")
            data = b"expires."
        return names.fix(data)


class RedisLists:
    """started_ms: the records' times must not be earlier. run: the server's run, as in the elements.

    A connection's first write repeats its record (docs/adr/203). Which session that concerns is random, so it is left
    out.
    """

    FIXED = 114  # bytes: the generation, the high half of the step, the high bytes of the time, and so on

    def __init__(self, client: redis.Redis, started_ms: int, run: bytes) -> None:
        self._client, self._started_ms, self._run = client, started_ms, run
        self._crcs: dict[bytes, bytes] = {}

    def read(self) -> Records:
        found: Records = {}
        keys: list[bytes] = sorted(self._client.keys())  # type: ignore[arg-type]
        for key in keys:
            elements: list[bytes] = self._client.lrange(key, 0, -1)  # type: ignore[assignment]
            left_ms = int(self._client.pttl(key))
            if not (left_ms == -1 or 0 < left_ms <= TTL_MS):
                raise AssertionError(f"{key!r} has {left_ms} ms to live, expected none or at most {TTL_MS}")
            rows = [("ttl", b"none" if left_ms == -1 else b"some")]
            rows += [("element", element) for element in _said_once(elements)]
            found[key.decode()] = tuple(rows)
        return found

    def fixed(self, what: str, data: bytes, names: Names) -> bytes:
        if what != "element" or data[:1] in (b"C", b"D"):
            return names.fix(data)
        at = 8 if data[:1] in (b"S", b"W") else 1
        link, run, rest = data[1:at], data[at : at + 4], data[at + 4 :]
        if run != self._run:
            raise AssertionError(f"the run of an element: got {run.hex()}, expected {self._run.hex()}")
        came, moving = (b"", rest) if data[:1] == b"S" else (rest[: self.FIXED], rest[self.FIXED :])
        after = came
        if came:
            check_time(came[38:46], self._started_ms)
            after = names.fix(came[:38] + CREATED + came[46:])
            self._crcs[_crc(came)] = _crc(after)
        check_time(moving[16:22], self._started_ms)
        moving = self._crcs.get(moving[:4], moving[:4]) + names.fix(moving[4:16]) + UPDATED_6 + moving[22:]
        return data[:1] + link[:3] + self._fixed_mark(link[3:], names) + b"run." + after + moving

    def _fixed_mark(self, mark: bytes, names: Names) -> bytes:
        """Returns the mark with fixed values: a base's checksum XOR the first four bytes of its head."""
        for came, fixed in self._crcs.items():
            head = names.fix_start(_xor(mark, came)) if mark else None
            if head:
                return _xor(head, fixed)
        return mark


def _said_once(elements: list[bytes]) -> list[bytes]:
    """Drops entries without inputs, and entries that repeat existing ones together with their inputs."""
    once: list[bytes] = []
    for at, element in enumerate(elements):
        if element[:1] not in (b"S", b"W"):
            once.append(element)
        elif elements[at - 1][:1] == b"D" and [*once[-1:], element] == once[-3:-1]:
            once.pop()
        elif elements[at - 1][:1] == b"D":
            once.append(element)
    return once


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", crc32(data))


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def check_time(data: bytes, started_ms: int) -> None:
    """Raises AssertionError if the time is out of range. data: Unix milliseconds, little-endian."""
    (value,) = struct.unpack("<Q", data.ljust(8, b"\0"))
    if not started_ms <= value <= now_ms():
        raise AssertionError(f"a time of the record: got {value}, expected {started_ms} to {now_ms()}")
