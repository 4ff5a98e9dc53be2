"""A store that writes layout 1, which no release has written, to show what was wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from cellkeeper_service.domain.record import HEADER_BYTES, Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, Outcome, StoreError
from cellkeeper_service.store.redis.keys import redis_key

from verification.explore import layout1

TTL_OFFSET_BYTES = 64


def name_of(key: SessionKey) -> bytes:
    return b"ck1" + redis_key(key)[3:]


class OldStore:
    """The store calls that the power-cut tests need, on one server."""

    def __init__(self, port: int) -> None:
        self._redis = redis.Redis(port=port)
        here = Path(__file__).parent
        self._scripts = {name: (here / f"{name}.lua").read_text() for name in ("commit", "delete", "load")}

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        names = [name_of(load.key) for load in loads]
        touch = [str(int(load.touch)) for load in loads]
        answers = self._call("load", names, [TTL_OFFSET_BYTES, *touch])
        return [layout1.read(load.key, found) if found else None for load, found in zip(loads, answers, strict=True)]

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        words: list[Any] = []
        for _, expected, header, log, checkpoint in commits:
            kept = expected is not None and expected.ttl_ms == 0
            ttl_ms: Any = "" if kept and header.ttl_ms == 0 else header.ttl_ms
            kind = "append" if checkpoint is None else "replace"
            words += [kind, expected.packed if expected else b"", header.packed, ttl_ms, log]
            words += [] if checkpoint is None else [checkpoint]
        return [_result(answer) for answer in self._call("commit", [name_of(commit.key) for commit in commits], words)]

    def delete_many(self, deletes: Sequence[Delete]) -> list[CommitResult]:
        words = [delete.generation for delete in deletes]
        return [_result(answer) for answer in self._call("delete", [name_of(delete.key) for delete in deletes], words)]

    def close(self) -> None:
        self._redis.close()

    def _call(self, script: str, names: Sequence[bytes], words: Sequence[Any]) -> list[Any]:
        answers: list[Any] = self._redis.eval(self._scripts[script], len(names), *names, *words)
        return answers


def _result(answer: Any) -> CommitResult:
    if answer == 1:
        return CommitResult(Outcome.COMMITTED)
    if answer == 0:
        return CommitResult(Outcome.CONFLICT)
    if isinstance(answer, bytes):
        return CommitResult(Outcome.CONFLICT, Header.unpack(answer) if len(answer) == HEADER_BYTES else None)
    return CommitResult(Outcome.REFUSED, message=repr(answer))
