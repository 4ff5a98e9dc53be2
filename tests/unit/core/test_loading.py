"""Which records are read next."""

from __future__ import annotations

from cellkeeper_service.core.context import Context
from cellkeeper_service.core.requests import GetSession

from .world import FOREVER, Reply, World, key


def waiting(context: Context, alone: bool, *names: str) -> None:
    """Admits sessions whose records have to be read, each for one request."""
    for name in names:
        session = context.admit(GetSession(key(name), FOREVER, Reply()))
        assert session is not None
        session.queue.append(GetSession(key(name), FOREVER, Reply()))
        (context.to_load_alone if alone else context.to_load).append(session)


def test_large_records_are_read_alone_and_in_turns_with_the_others() -> None:
    context = World().replicas[0].core.context
    waiting(context, True, "large", "huge")
    turns = []
    for names in (("a", "b"), ("c",), ("d",), ("e",)):
        waiting(context, False, *names)
        turns.append([session.key.session for session in context.next_loads()])
    assert turns == [["a", "b"], ["large"], ["c", "d"], ["huge"]]
