"""What a restart of Redis, after a power cut or not, must leave of every record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellkeeper_service.domain.record import Header
from cellkeeper_service.store.redis.keys import session_key

from .redis_lists import NOTHING, Lists
from .sequential_model import Violation, consumed, content, generation_name

if TYPE_CHECKING:
    from .store import ExploredStore

LONGEST_MS = 10**12
"""No explored session is to be kept so long. (Redis keeps those longer that are on their way to having no TTL.)"""


def check_restart(store: ExploredStore, told: Lists, written: frozenset[bytes]) -> None:
    """Checks every record after a restart. Raises Violation.

    Each can be read and matches its header, and is what it was when Redis stopped. If it was neither written nor
    read since the previous restart, it may also be what a commit that was lost then had made of it in its run;
    another cut's comeback may have changed it since. It expires no earlier than it did. A cut may cost a record its
    TTL, so that one which had expired, of which Redis has lost the deletion, is there again.
    """
    contents = {}
    for key in store.sessions():
        record = store.record(key)
        if record is not None:
            contents[key] = record.position.generation, content(record)
    there = store.there(store.lists)
    for name in store.there(told).keys() | there.keys():
        before, after = (store.header(lists, name) for lists in (store.there(told), there))
        allowed = {None if before is None else before.packed}
        for change in store.file.comebacks if name not in written else ():
            if change.name == name:
                allowed.add(change.after)
        deadlines = told.get(name, NOTHING).deadline, there.get(name, NOTHING).deadline
        if before is None and name in told and deadlines[1] is None:
            allowed |= {header.packed for header in [store.header(told, name)] if header is not None}
        if (None if after is None else after.packed) not in allowed:
            was, now = ("nothing" if one is None else _told(one) for one in (before, after))
            text = f"{session_key(name).session} was {was} when Redis stopped, but is {now} after its restart"
            raise Violation(text)
        if after is not None:
            _check_deadline(store, name, after, *deadlines)
    store.ledger.restarted(contents)


def _check_deadline(store: ExploredStore, name: bytes, header: Header, before: int | None, after: int | None) -> None:
    """Checks the deadline of a record after a restart. before: when Redis stopped. Raises Violation."""
    left_ms = store.left_ms(name, after)
    if left_ms is not None and not header.ttl_ms and left_ms <= LONGEST_MS:
        raise Violation(f"{session_key(name).session} is to be kept for ever, but expires after the restart")
    if after is not None and before is not None and after < before:
        raise Violation(f"{session_key(name).session} expires earlier after the restart than before it")


def _told(header: Header) -> str:
    position = header.position
    return f"{generation_name(position.generation)}:{position.step} {list(consumed(position))}"
