"""When two states of the explored world are equivalent for everybody in it: those with equal fingerprints have the same
futures."""

from __future__ import annotations

from typing import Any

from cellkeeper_service.core import requests as wire
from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.requests import Computable, LogReplay
from cellkeeper_service.core.session import CachedState, SessionState
from cellkeeper_service.domain.record import Record

from .client import Client
from .columns import Columns
from .naming import Naming
from .redis_lists import Lists, Unit
from .replica import Replica, state_of
from .universe import Universe


def fingerprint(universe: Universe) -> int:
    return hash(_World(universe).everything())


class _World(Naming):
    def everything(self) -> Any:
        universe = self.universe
        return (
            tuple(sorted(universe.left.items())),
            universe.fell_back,
            universe.expired,
            tuple(self.client(client) for client in universe.clients),
            self.store(),
            tuple((one.client, one.name, self.result(one.result)) for one in universe.answers),
            tuple(self.replica(replica) for replica in universe.replicas),
            tuple(tuple(self.request(request) for request in together) for together in universe.slow),
            tuple(tuple(self.call(call) for call in write.calls) for write in universe.late),
        )

    def store(self) -> Any:
        store = self.universe.store
        ledger = store.ledger
        kept = self.records(store.lists)  # first, so that generations are named by their sessions
        snapshots = [self.records(old.lists) for old in store.snapshots] if self.universe.left["fall_backs"] else []
        file = store.file
        redis = (
            self.lists(store.lists),
            self.lists(file.base),
            self.lists(file.live),
            (
                tuple(self.unit(unit) for unit in file.units),
                file.old,
                file.told,
                tuple(sorted(file.written)),
                tuple(sorted((name, at - file.folded) for name, at in file.reads)),
                file.comebacks,
                tuple(sorted(store.has_written)),
            ),
        )
        durable = tuple(sorted((self.generation(one), inputs) for one, inputs in sorted(ledger.durable)))
        return (
            kept,
            tuple(snapshots),
            redis if store.tracks else (),
            tuple(sorted(self.generation(one) for one in sorted(ledger.ended))),
            durable,
        )

    def records(self, lists: Lists) -> Any:
        left = tuple(self.left_ms(name, one.deadline) for name, one in sorted(lists.items()))
        records = self.universe.store.records(lists)
        return tuple((key.session, self.record(record)) for key, record in records), left

    def lists(self, lists: Lists) -> Any:
        return tuple((name, one.elements, self.left_ms(name, one.deadline)) for name, one in sorted(lists.items()))

    def unit(self, unit: Unit) -> Any:
        writes = tuple(write._replace(deadline=self.left_ms(write.name, write.deadline)) for write in unit.writes)
        return writes, unit.changes, unit.whole

    def left_ms(self, name: bytes, deadline: int | None) -> int | None:
        """Returns how long it is until a key's deadline. How long after it does not matter."""
        left_ms = self.universe.store.left_ms(name, deadline)
        return left_ms if left_ms is None else max(0, left_ms)

    def client(self, client: Client) -> Any:
        sessions = []
        for session, known in client.sessions.items():
            history = known.history
            chunks = tuple((c.start.step, c.end.step, c.state, c.held, c.counted, c.acked_sent) for c in history._open)
            replayable = tuple((c.start.step, c.end.step, c.held) for c in history._replay_buffer)
            sessions.append(
                (session, self.position(history.position), chunks, replayable, history._settling, known.consumed)
            )
        waiting = tuple(
            (attempt.name, tuple((name, self.result(result)) for name, result in attempt.results.items()))
            for attempt in client.waiting.values()
        )
        left = tuple((session, self.position(position)) for session, position in client.left.items())
        return (
            client.at,
            client.restarts,
            tuple(sessions),
            waiting,
            client.called,
            client.failed,
            client.elsewhere,
            client.bulk and (tuple(client.bulk.left), client.bulk.apart),
            tuple(client.refused.items()),
            client.gave_up,
            client.forgot,
            tuple(sorted(client.sequences.items())),
            left,
            client.columns and self.columns(client.columns),
        )

    def columns(self, columns: Columns) -> Any:
        """Omits the members' positions and what left the columns, which the sessions show."""
        history, chunk = columns.history, columns.chunk
        kept = tuple(
            (tuple(one.members.names), one.starts[:, 2].tobytes(), one.answered.tobytes()) for one in history._kept
        )
        alone = tuple((item, one.start.step, one.state) for item, one in sorted(columns.alone.items()))
        return kept, chunk and chunk.open.tobytes(), tuple(columns.unsent), alone

    def replica(self, replica: Replica) -> Any:
        batches = tuple(self.batch(batch) for batch in replica.batches)
        models = replica.core.context.models["m"]
        retiring = tuple(version.spec.fingerprint for version in models.retiring)
        return self.core(replica.core), (replica.serves, retiring), self.under_way(replica), batches

    def under_way(self, replica: Replica) -> Any:
        """Returns what is in flight between the replica and the store: reads and writes."""
        store = self.universe.store
        reads = tuple(
            (
                tuple(load.key.session for load in read.loads),
                read.results and tuple(self.read(result) for result in read.results),
                read.read_at - store.file.folded if read.results and store.tracks else 0,
            )
            for read in replica.reads
        )
        writes = tuple(
            (
                tuple(self.call(call) for call in write.calls),
                write.results and tuple(result.outcome for result in write.results),
                write.applied_at - store.file.folded if write.results and store.tracks else 0,
            )
            for write in replica.writes
        )
        return reads, writes

    def core(self, core: Core) -> Any:
        context = core.context
        caches = tuple(
            (
                cache.version.spec.fingerprint,
                cache.version.retired,
                tuple(session.key.session for session in cache.sessions),
                len(cache._free),
                tuple(session.key.session for session in cache.waiting),
                tuple(self.cached(cached) for cached in cache.ready),
            )
            for cache in context.caches.values()
        )
        sets = (context.ready, context.queued, context.to_load, context.to_load_alone, context.to_commit)
        return (
            tuple(self.session(session) for _, session in sorted(context.sessions.items())),
            caches,
            tuple(tuple(session.key.session for session in some) for some in sets),
        )

    def session(self, session: SessionState) -> Any:
        queue = tuple(
            (
                self.request(request),
                session.is_read_for(request),
                session.loading and request.number <= session.load_number,
            )
            for request in session.queue
        )
        commit, reading = session.in_flight, session.reading
        return (
            session.key.session,
            queue,
            session.cached and self.cached(session.cached),
            tuple(self.to_commit(request) for request in session.pending),
            commit and (tuple(self.to_commit(one) for one in commit.requests), commit.cached is session.cached),
            session.loading,
            session.waits_for_slot,
            reading and (self.record(reading.found) if isinstance(reading.found, Record) else "no record"),
        )

    def to_commit(self, request: Any) -> Any:
        if isinstance(request, wire.Step):
            return self.request(request), self.position(request.after), request.acked_at(request.at), request.created
        return self.request(request), self.call(request.write.call)

    def cached(self, cached: CachedState) -> Any:
        kept = cached.checkpoint
        return (
            cached.session.key.session,
            self.header(cached.header),
            cached.exists,
            self.position(cached.frontier),
            cached.version.spec.fingerprint,
            cached.version.retired,
            state_of(cached),
            cached.seed is None,
            cached.replaces and self.header(cached.replaces),
            kept and (kept.step, kept.state, bytes(kept.tail)),
            cached.work and self.work(cached.work),
            cached.in_batch,
            cached.dropped,
        )

    def work(self, work: Computable) -> Any:
        duplicates: Any = ()
        if isinstance(work, LogReplay):
            duplicates = tuple((self.request(step), first, step.steps) for step, first in work.duplicates.items())
        return (
            type(work),
            duplicates if isinstance(work, LogReplay) else self.request(work),
            work.inputs,
            work.computed,
            work.to_compute,
            work.checkpoint_at,
            work.checkpoint_state,
            work.unfed,
            work.end_state,
        )

    def batch(self, batch: Batch) -> Any:
        return batch.steps, tuple(self.cached(cached) for cached in batch.states)

    def read(self, result: Any) -> Any:
        return self.record(result) if isinstance(result, Record) else repr(result)
