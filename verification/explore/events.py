"""What can happen next in the explored world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .universe import Universe

Event = tuple[Any, ...]
NAMES = "AB"


def possible(universe: Universe) -> list[Event]:
    """Returns everything that can happen next."""
    return [*_clients(universe), *_replicas(universe), *_store(universe)]


def _clients(universe: Universe) -> Iterator[Event]:
    left = universe.left
    alike = not universe.scope.two_versions and all(replica.blank for replica in universe.replicas)
    targets = NAMES[: 1 if alike else len(universe.replicas)]
    for answer in universe.answers:
        yield ("receive", answer.client, answer.name)
    if universe.scope.frames:
        yield from _frames(universe, targets)
    for index, client in enumerate(universe.clients):
        for what in client.can_send():
            for target in targets:
                yield ("send", index, what, target)
            if left["slow"]:
                yield ("slow", index, what)
        if left["timeouts"]:
            for attempt in client.waiting.values():
                yield ("timeout", index, attempt.name)
        if left["give_ups"] and client.can_give_up:
            yield ("give_up", index)
        if left["restarts"] and not client.done and client.sessions:
            yield ("restart", index)
    for number in range(len(universe.slow)):
        for target in targets:
            yield ("arrive", number, target)


def _frames(universe: Universe, targets: str) -> Iterator[Event]:
    """Yields the frame of the chunks that all clients would send now, if their sessions differ."""
    senders = [
        (index, what, session) for index, client in enumerate(universe.clients) for what, session in client.sends()
    ]
    if len(senders) > 1 and len({session for _, _, session in senders}) == len(senders):
        items = tuple((index, what) for index, what, _ in senders)
        for target in targets:
            yield ("frame", items, target)


def _replicas(universe: Universe) -> Iterator[Event]:
    left, scope = universe.left, universe.scope
    for replica in universe.replicas:
        for number, read in enumerate(replica.reads):
            if read.results is None and not scope.atomic_reads:
                yield ("read", replica.name, number)
            else:
                yield ("loaded", replica.name, number)
            if left["unread"]:
                yield ("unread", replica.name, number)
        if replica.batches:
            yield ("compute", replica.name)
        for number, write in enumerate(replica.writes):
            if write.results is None and not scope.atomic_commits:
                yield ("apply", replica.name, number)
            else:
                yield ("answered", replica.name, number)
            if left["unknowns"]:
                yield ("unknown", replica.name, number)
            if left["refusals"] and write.results is None:
                yield ("refuse", replica.name, number)
        for number, request in enumerate(replica.requests if left["overdue"] or left["gone"] else ()):
            if left["overdue"] and request.deadline > 0.0:
                yield ("overdue", replica.name, number)
            if left["gone"] and not request.gone and universe.waits_for(request):
                yield ("gone", replica.name, number)
        if replica.has_to_expire:
            yield ("expire", replica.name)
        for serves in scope.others if left["exchanges"] else ():
            if serves != replica.serves:
                yield ("exchange", replica.name, serves)
        if left["crashes"] and not replica.blank:
            yield ("crash", replica.name)


def _store(universe: Universe) -> Iterator[Event]:
    for number in range(len(universe.late)):
        yield ("late", number)
    for key in universe.store.sessions() if universe.left["expiries"] else ():
        if universe.store.aged(key):
            yield ("expired", key.session)
            if universe.store.tracks:  # otherwise it makes no difference
                yield ("lapsed", key.session)
        elif universe.store.expires(key):
            yield ("idle", key.session)
    if universe.left["fall_backs"]:
        for commits in range(1, len(universe.store.snapshots) + 1):
            yield ("fall_back", commits, "")
            keys = universe.store.sessions()
            if len(keys) > 1:
                for key in keys:
                    yield ("fall_back", commits, key.session)
    if universe.left["power_cuts"]:
        for lost, writes in universe.store.power_cuts():
            yield ("power_cut", lost, writes)
