"""What can happen next in the explored world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .player import flying
from .scope import Steps

if TYPE_CHECKING:
    from .universe import Universe

Event = tuple[Any, ...]
NAMES = "AB"


def possible(universe: Universe) -> list[Event]:
    """Everything that can happen next."""
    return [*_clients(universe), *_replicas(universe), *_store(universe)]


def _clients(universe: Universe) -> Iterator[Event]:
    left = universe.left
    targets = NAMES[: 1 if all(node.blank for node in universe.nodes) else len(universe.nodes)]
    for answer in universe.answers:
        yield ("hear", answer.player, answer.name)
    if universe.scope.frames:
        yield from _frames(universe, targets)
    for index, player in enumerate(universe.players):
        what = player.can_send()
        if what:
            for target in targets:
                yield ("send", index, what, target)
            if left["slow"]:
                yield ("slow", index, what)
        if left["timeouts"]:
            for attempt in player.waiting.values():
                yield ("timeout", index, attempt.name)
        if left["give_ups"] and isinstance(player.op, Steps) and flying(player.lines[player.op.session].history):
            yield ("give_up", index)
        if left["restarts"] and not player.done and player.lines:
            yield ("restart", index)
    for number in range(len(universe.slow)):
        for target in targets:
            yield ("arrive", number, target)


def _frames(universe: Universe, targets: str) -> Iterator[Event]:
    """One frame of what all clients with single steps, of different sessions, would send now."""
    senders = [
        (index, player.can_send(), player.op.session)
        for index, player in enumerate(universe.players)
        if player.sends_single_step
    ]
    if len(senders) > 1 and len({session for _, _, session in senders}) == len(senders):
        items = tuple((index, what) for index, what, _ in senders)
        for target in targets:
            yield ("frame", items, target)


def _replicas(universe: Universe) -> Iterator[Event]:
    left, scope = universe.left, universe.scope
    for node in universe.nodes:
        for number, read in enumerate(node.reads):
            if read.results is None and not scope.atomic_reads:
                yield ("read", node.name, number)
            else:
                yield ("loaded", node.name, number)
            if left["unread"]:
                yield ("unread", node.name, number)
        if node.calls:
            yield ("compute", node.name)
        for number, write in enumerate(node.writes):
            if write.results is None and not scope.atomic_commits:
                yield ("land", node.name, number)
            else:
                yield ("landed", node.name, number)
            if left["unknowns"]:
                yield ("unknown", node.name, number)
            if left["refusals"] and write.results is None:
                yield ("refuse", node.name, number)
        if left["crashes"] and not node.blank:
            yield ("crash", node.name)


def _store(universe: Universe) -> Iterator[Event]:
    for number in range(len(universe.late)):
        yield ("late", number)
    if universe.left["fall_backs"]:
        for commits in range(1, len(universe.store.past) + 1):
            yield ("fall_back", commits, "")
            keys = universe.store.sessions()
            if len(keys) > 1:
                for key in keys:
                    yield ("fall_back", commits, key.session)
    if universe.left["power_cuts"]:
        for lost, writes in universe.store.power_cuts():
            yield ("power_cut", lost, writes)
