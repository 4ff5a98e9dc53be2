"""Actions that many tests of the core share."""

from __future__ import annotations

from typing import Any

from cellkeeper_service.core.generation_requests import Open, OpenReply, Reset
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Load

from .world import FOREVER, Reply, World, key

TICK = {"max_slice_steps": 4, "max_long_steps": 8}


def opened(world: World, session: str = "s", replica: int = 0, origin: bytes = b"o" * 16) -> Position:
    reply = Reply()
    result = world.ask(Open(key(session), FOREVER, reply, origin, None, None, None), reply, replica)
    assert isinstance(result, OpenReply), result
    position: Position = result.header.position
    return position


def stands(world: World, session: str = "s") -> Record | None:
    (record,) = world.store.load_many([Load(key(session), False)])
    assert not isinstance(record, Exception)
    return record


def standing(world: World, session: str = "s") -> Record:
    record = stands(world, session)
    assert record is not None
    return record


def reset(world: World, generation: bytes, origin: bytes = b"r" * 16, session: str = "s") -> Any:
    reply = Reply()
    return world.ask(Reset(key(session), FOREVER, reply, generation, origin), reply)


def until(world: World, what: str, replica: int = 0) -> None:
    """Runs the replica until it has sent a write ("writes") or has a batch to compute ("batches")."""
    one = world.replicas[replica]
    for _ in range(10):
        one.collect()
        if getattr(one, what):
            return
        if one.loads:
            one.load(0)
        elif one.batches:
            one.compute(0)
    raise AssertionError(f"no {what}")


def at_rest(world: World) -> None:
    """Checks that nothing is left: no uncached or waiting session, no request, no slot in use."""
    for replica in world.replicas:
        replica.check_rest()
