"""Whether the store answers, which readiness probes ask: seldom by a call of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from cellkeeper_service.core.store_calls import StoreCalls
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Load, StoreError
from cellkeeper_service.store.memory import MemoryStore

from .loop import play
from .world import key

LOADS = [Load(key(), False)]


class CountedStore(MemoryStore):
    """Counts loads, which wait until the gate opens, and fail if it `is_away`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0
        self.is_away = False

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        self.asked += 1
        self.gate.wait(10)
        return [StoreError("away")] * len(loads) if self.is_away else super().load_many(loads)


async def load(calls: StoreCalls) -> None:
    """Makes a load, and waits for its result."""
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    calls.load(LOADS, lambda results: answered.set_result(None))
    await answered


def test_all_who_ask_at_the_same_time_share_one_probe() -> None:
    async def test() -> None:
        store = CountedStore()
        calls = StoreCalls(store, 4, Meter())
        assert await asyncio.gather(*(calls.reach() for _ in range(5))) == [""] * 5
        assert store.asked == 1
        calls.close()

    play(test)


def test_an_answer_makes_a_probe_unnecessary_and_a_failure_makes_it_necessary() -> None:
    async def test() -> None:
        store = CountedStore()
        calls = StoreCalls(store, 4, Meter())
        await load(calls)
        assert await calls.reach() == ""
        assert store.asked == 1
        store.is_away = True
        await load(calls)
        assert await calls.reach() == "the store cannot be used: away"
        assert store.asked == 3
        calls.close()

    play(test)


def test_a_probe_takes_one_thread_more_than_loads_and_no_further_one() -> None:
    async def test() -> None:
        store = CountedStore()
        calls = StoreCalls(store, 4, Meter())
        store.gate.clear()
        loads = [asyncio.ensure_future(load(calls)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not calls.has_room("load")
        assert await calls.reach() == "the store cannot be used: it has not answered earlier requests"
        store.gate.set()
        await asyncio.gather(*loads)
        assert store.asked == 3
        calls.close()

    play(test)
