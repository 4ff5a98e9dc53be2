"""What several threads and processes do to one session at once. As a program, it appends until it is killed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from cellkeeper_service.domain.store import Load, Outcome, Store
from cellkeeper_service.store.open import open_store

from tests.contract.store.records import append, committed, create, key

OWN_WINS = 20  # per worker: one that always loses the race gets its turn at the end


def marked(worker: int, number: int) -> bytes:
    """Returns a time step that no other worker and no other attempt writes."""
    return bytes((worker, *number.to_bytes(3, "big")))


class Tally(NamedTuple):
    """The results of one worker: (step, input) of each commit that it won, and how many it lost."""

    won: list[tuple[int, bytes]]
    conflicts: int


def hammer(store: Store, worker: int, until_step: int, meet: Callable[[], object]) -> Tally:
    """Appends single steps until the session is at `until_step` and the worker has won some of them.

    On a conflict it continues from the current header. `meet` waits for the others: all begin with the same header, so
    all but one lose their first commit.
    """
    won: list[tuple[int, bytes]] = []
    conflicts = 0
    (record,) = store.load_many([Load(key(), touch=False)])
    if record is None or isinstance(record, Exception):
        raise RuntimeError(f"no session to append to: {record}")
    header, number = record.header, 0
    meet()
    while header.position.step < until_step or len(won) < OWN_WINS:
        commit = append(key(), header, marked(worker, number))
        number += 1
        (result,) = store.commit_many([commit])
        if result.outcome is Outcome.COMMITTED:
            won.append((header.position.step, commit.log))
            header = commit.header
        elif result.outcome is Outcome.CONFLICT and result.standing is not None:
            header = result.standing
            conflicts += 1
        else:
            raise RuntimeError(f"worker {worker}: {result}")
    return Tally(won, conflicts)


def hammer_url(url: str, worker: int, workers: int, until_step: int) -> Tally:
    """The same in another process, with its own store. The workers meet through records in the store."""
    store = open_store(url, timeout_ms=20_000)

    def meet() -> None:
        committed(store, create(key(f"ready-{worker}")))
        while None in store.load_many([Load(key(f"ready-{n}"), touch=False) for n in range(workers)]):
            pass

    try:
        return hammer(store, worker, until_step, meet)
    finally:
        store.close()


def main() -> None:
    """Prints the step after each acknowledged commit."""
    store = open_store(sys.argv[1])
    while True:
        (record,) = store.load_many([Load(key(), touch=False)])
        if record is None or isinstance(record, Exception):
            raise RuntimeError(f"no session to append to: {record}")
        step = record.position.step
        (result,) = store.commit_many([append(key(), record.header, marked(1, step))])
        if result.outcome is not Outcome.COMMITTED:
            raise RuntimeError(f"not committed: {result}")
        print(step + 1, flush=True)


if __name__ == "__main__":
    main()
