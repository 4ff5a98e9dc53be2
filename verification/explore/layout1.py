"""What the scripts of the previous layout did to the lists, in Python: tests/contract/store/layout1.

No server reads this layout any more. It shows what the rules of the present one prevent. A list is the packed header,
the checkpoint, then one element per chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, Delete, StoreError
from cellkeeper_service.store.damage import damaged, read_record, reading
from cellkeeper_service.store.redis.keys import redis_key

from .layout2 import Answer, Call, Calls, Peer
from .redis_lists import Command, Elements, Lists, Write


def read(key: SessionKey, elements: Elements) -> Record | StoreError:
    if len(elements) < 2:
        return damaged(key, "it has a header but no checkpoint")
    return reading(key, None, lambda: read_record(key, elements[0], elements[1], b"".join(elements[2:])))


def header(elements: Elements) -> Header | None:
    return Header.unpack(elements[0]) if elements else None


def commit_calls(commits: Sequence[Commit]) -> Calls:
    """Returns calls like layout2's. Words: "append" or "replace", expected, header, log, checkpoint."""
    call = []
    for key, expected, after, log, checkpoint in commits:
        kind = b"append" if checkpoint is None else b"replace"
        words = [kind, b"" if expected is None else expected.packed, after.packed, log]
        call.append((redis_key(key), words if checkpoint is None else [*words, checkpoint]))
    return [], call, []


def delete_calls(delete: Delete) -> Calls:
    return [], [(redis_key(delete.key), [b"delete", delete.generation])], []


def load(lists: Lists, names: Sequence[bytes], touched: Collection[bytes], peer: Peer) -> list[Write]:
    """Loading writes nothing in this layout."""
    return []


def run(lists: Lists, call: Call, peer: Peer) -> tuple[list[Answer], list[Write]]:
    """Runs the script, like layout2's. peer: has no effect."""
    answers: list[Answer] = []
    writes: list[Write] = []
    for name, words in call:
        standing = lists[name].elements[0] if name in lists else b""
        if words[0] == b"delete":
            expected, mine = standing[:16] == words[1], [Write(name, Command.UNLINK)]
        else:
            expected, mine = standing == words[1], _commit(name, standing, *words)
        if not standing and words[0] in (b"delete", b"append"):
            answers.append(0)
        elif not expected:
            answers.append(standing or 0)
        else:
            for write in mine:
                write.apply(lists)
            writes += mine
            answers.append(1)
    return answers, writes


def _commit(
    name: bytes, standing: bytes, kind: bytes, expected: bytes, after: bytes, log: bytes, *checkpoint: bytes
) -> list[Write]:
    values = (*checkpoint, log) if log else checkpoint
    if not standing:
        return [Write(name, Command.PUSH, (after, *values))]
    writes = [Write(name, Command.SET_FIRST, (after,))]
    if checkpoint:
        writes.append(Write(name, Command.KEEP_FIRST))
    return [*writes, Write(name, Command.PUSH, values)] if values else writes
