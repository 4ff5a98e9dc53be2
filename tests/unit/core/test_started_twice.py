"""What the ledger of the interleavings lets start twice, and what not."""

from __future__ import annotations

import pytest
from cellkeeper_service.core.lifecycle import new_header
from cellkeeper_service.core.sequence import Sequenced, ended
from cellkeeper_service.domain.position import advance, first_position
from cellkeeper_service.domain.record import NO_ORIGIN, Record
from cellkeeper_service.domain.store import Commit, Load
from cellkeeper_service.domain.store import Delete as StoreDelete

from .acts import until
from .ledger import LedgerStore, run
from .world import World, key, pack

ORIGIN = b"start of a seq  "


@pytest.mark.parametrize("lost", ["first", "second"])
def test_a_start_that_no_record_tells_of_may_begin_twice(lost: str) -> None:
    """What LedgerStore._started_again lets pass. lost: which of the two commits was not answered."""
    world = World()
    world.store = store = LedgerStore(lambda: world.now * 1000)
    one = world.replicas[0]
    reply = world.send([1], sequence=Sequenced(ORIGIN, 0))
    until(world, "writes")
    store.give_up(one.writes[0].calls)
    write = one.lose(0)
    if lost == "first":
        one.reach_store(write)
        delete(store)
        world.settle()
    else:
        world.settle()
        delete(store)
        one.reach_store(write)
    assert reply.outputs == run(0, [1])
    assert [generation.inputs for generation in store.generations.values()] == [[1], [1]]


@pytest.mark.parametrize("why", ["both were answered", "a record stands there", "it ended", "no start", "another step"])
def test_the_ledger_lets_nothing_else_begin_twice(why: str) -> None:
    world = World()
    store = LedgerStore(lambda: 0)
    origin = NO_ORIGIN if why == "no start" else ORIGIN
    first = new_header(world.replicas[0].version, advance(first_position(b"1" * 16), pack([1]), 4), origin, 0, 0)
    first = first.replace(checkpoint_step=0, origin=ended(origin) if why == "it ended" else origin)
    one = Commit(key(), None, first, pack([1]), bytes(8))
    if why != "both were answered":
        store.give_up([one])
    store.commit_many([one])
    standing = first if why == "a record stands there" else None
    if standing is None:
        delete(store)
    inputs = [2, 1] if why == "another step" else [1]
    again = first.replace(position=advance(first_position(b"2" * 16), pack(inputs), 4), origin=origin)
    with pytest.raises(AssertionError, match="applied twice"):
        store.commit_many([Commit(key(), standing, again, pack(inputs), bytes(8))])


def delete(store: LedgerStore) -> None:
    (record,) = store.load_many([Load(key(), False)])
    assert isinstance(record, Record)
    store.delete_many([StoreDelete(key(), record.position.generation)])
