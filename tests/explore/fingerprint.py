"""When two states of the explored world are the same to everybody in it.

Generations are named in the order in which they are met, heads by the inputs they stand for, requests by who waits for
them: two states with equal fingerprints go on in the same ways.
"""

from __future__ import annotations

from typing import Any

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.requests import Computable, LogReplay, Write
from cellkeeper_service.core.session import CachedState, SessionState
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Commit, Delete
from cellkeeper_service.errors import Rejection
from cellkeeper_service.sessions import requests as wire
from cellkeeper_service.sessions.cohort import CohortCall
from cellkeeper_service.sessions.line import Applied, Changing, Line
from cellkeeper_service.sessions.requests import Request

from .node import Node
from .truth import origin_of
from .universe import Universe


def fingerprint(universe: Universe) -> int:
    return hash(_Namer(universe).everything())


class _Namer:
    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self.lives: dict[bytes, int] = {}

    def everything(self) -> Any:
        universe = self.universe
        return (
            tuple(sorted(universe.left.items())),
            universe.fell_back,
            tuple(self.player(player) for player in universe.players),
            self.store(),
            tuple((one.player, one.name, self.result(one.result)) for one in universe.answers),
            tuple(self.node(node) for node in universe.nodes),
            tuple(self.request(request) for request in universe.slow),
            tuple(tuple(self.call(call) for call in write.calls) for write in universe.late),
        )

    def life(self, generation: bytes) -> int:
        return self.lives.setdefault(generation, len(self.lives))

    def head(self, head: bytes) -> Any:
        origin = origin_of(head)
        return head if origin is None else (self.life(origin.generation), origin.inputs)

    def position(self, position: Any) -> Any:
        if position is None:
            return None
        return self.life(position.generation), position.step, self.head(position.head)

    def header(self, header: Header) -> Any:
        return (
            self.position(header.position),
            header.checkpoint_step,
            self.head(header.checkpoint_head),
            header.origin,
        )

    def record(self, record: Record | None) -> Any:
        return None if record is None else (self.header(record.header), record.checkpoint, record.log)

    def store(self) -> Any:
        store = self.universe.store
        ledger = store.ledger
        kept = [(key.session, self.record(record)) for key, record in store.records(store.lists)]
        past = (
            [
                tuple((key.session, self.record(record)) for key, record in store.records(old.lists))
                for old in store.past
            ]
            if self.universe.left["fall_backs"]
            else []
        )
        file = store.file
        redis = (
            tuple(sorted(store.lists.items())),
            tuple(sorted(file.base.items())),
            tuple(sorted(file.live.items())),
            (
                file.units,
                file.old,
                file.told,
                tuple(sorted(file.written)),
                tuple(sorted((name, at - file.folded) for name, at in file.reads)),
                file.comebacks,
                tuple(sorted(store.has_written)),
            ),
        )
        durable = tuple(sorted((self.life(life), inputs) for life, inputs in sorted(ledger.durable)))
        return (
            tuple(kept),
            tuple(past),
            redis if store.tracks else (),
            tuple(sorted(self.life(one) for one in sorted(ledger.ended))),
            durable,
        )

    def player(self, player: Any) -> Any:
        lines = []
        for session, line in player.lines.items():
            history = line.history
            chunks = tuple(
                (c.start.step, c.end.step, c.state, c.held, c.counted, c.sent, c.acked_sent) for c in history._open
            )
            past = tuple((c.start.step, c.end.step, c.held) for c in history._past)
            lines.append((session, self.position(history.position), chunks, past, history._settling, line.consumed))
        waiting = tuple(attempt.name for attempt in player.waiting.values())
        left = tuple((session, self.position(position)) for session, position in player.left.items())
        return (
            player.at,
            player.lives,
            tuple(lines),
            waiting,
            player.called,
            player.failed,
            player.gave_up,
            player.forgot,
            left,
        )

    def request(self, request: Request) -> Any:
        channel: Any = request.done
        listens = channel.ticket in self.universe.players[channel.player].waiting
        common = (type(request), request.key.session, channel.player, channel.name, listens, channel.ended)
        more: Any
        if isinstance(request, wire.Step):
            more = (self.position(request.position), request.data, request.acked, request.distrusts_hot)
        elif isinstance(request, wire.Open):
            more = (request.request_id, self.position(request.expect))
        elif isinstance(request, wire.Reset):
            more = (self.life(request.generation), request.request_id)
        elif isinstance(request, wire.Delete):
            more = self.life(request.generation)
        elif isinstance(request, wire.Fork):
            more = (request.target.session, self.position(request.position), request.request_id)
        elif isinstance(request, wire.Plant):
            more = (request.request_id, self.record(request.copy), self.result(request.otherwise))
        else:
            raise TypeError(f"no fingerprint for {type(request).__name__}")
        return (*common, request.conflicts, request.unknowns, more)

    def result(self, result: Any) -> Any:
        if isinstance(result, Rejection):
            return result.reason, self.position(result.position)
        if isinstance(result, wire.StepReply):
            return self.position(result.position), result.outputs["prediction"].tobytes()
        if isinstance(result, wire.OpenReply):
            return self.header(result.header), result.created
        if isinstance(result, wire.Moved):
            return self.position(result.position)
        return repr(result)

    def call(self, call: Commit | Delete) -> Any:
        if isinstance(call, Delete):
            return call.key.session, self.life(call.generation)
        position = None if call.expected is None else self.header(call.expected)
        return call.key.session, position, self.header(call.header), call.log, call.checkpoint

    def node(self, node: Node) -> Any:
        if node.runs_core:
            return self.core(node.sessions.core), *self.under_way(node), tuple(self.batch(one) for one in node.calls)
        desk = node.sessions._desk
        lines = tuple(self.line(line) for _, line in sorted(desk.lines.items()))
        reads, writes = self.under_way(node)
        calls = tuple(self.engine_call(call) for call in node.calls)
        owners: Any = tuple(line.key.session for line in node.served.slots._owners if isinstance(line, Line))
        starved = tuple(line.key.session for line in node.served.starved)
        waiting_runs = tuple(self.run(run) for queue in (node.served.singles, node.served.longs) for run in queue)
        cohorts = tuple(
            tuple(self.cohort(cohort) for cohort in some)
            for some in (node.served.cohorts, node.sessions._cohorts._computed)
        )
        return lines, reads, calls, writes, owners, len(node.served.slots._free), starved, waiting_runs, cohorts

    def under_way(self, node: Node) -> Any:
        """To the store and back: reads and writes."""
        store = self.universe.store
        reads = tuple(
            (
                read.loads[0].key.session,
                read.results and tuple(self.read(result) for result in read.results),
                read.read_at - store.file.folded if read.results and store.tracks else 0,
            )
            for read in node.reads
        )
        writes = tuple(
            (
                tuple(self.call(call) for call in write.calls),
                write.results and tuple(result.outcome for result in write.results),
                write.landed_at - store.file.folded if write.results and store.tracks else 0,
            )
            for write in node.writes
        )
        return reads, writes

    def core(self, core: Core) -> Any:
        context = core.context
        caches = tuple(
            (
                tuple(session.key.session for session in cache.sessions),
                len(cache._free),
                tuple(session.key.session for session in cache.waiting),
                tuple(self.cached(cached) for cached in cache.ready),
            )
            for cache in context.caches.values()
        )
        sets = (context.ready, context.to_load, context.to_load_alone, context.to_commit)
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
            reading and (self.record(reading.record) if reading.record is not None else "no record"),
        )

    def to_commit(self, request: Any) -> Any:
        if isinstance(request, wire.Step):
            return self.request(request), self.position(request.after), request.acked_step
        commit = request.write.commit if isinstance(request.write, Write) else None
        return self.request(request), commit and self.call(commit)

    def cached(self, cached: CachedState) -> Any:
        state = cached.seed if cached.seed is not None else int(cached.version.engine._states[cached.row])  # type: ignore[attr-defined]
        kept = cached.checkpoint
        return (
            cached.session.key.session,
            self.header(cached.header),
            cached.exists,
            self.position(cached.frontier),
            state,
            cached.seed is None,
            cached.created,
            kept and (kept.step, kept.state, bytes(kept.tail)),
            cached.work and self.work(cached.work),
            cached.in_batch,
            cached.dropped,
        )

    def work(self, work: Computable) -> Any:
        duplicates: Any = ()
        if isinstance(work, LogReplay):
            duplicates = tuple((self.request(one.step), one.first, one.last) for one in work.duplicates)
        return (
            type(work),
            duplicates if isinstance(work, LogReplay) else self.request(work),
            work.inputs,
            work.computed,
            work.to_compute,
            work.checkpoint_at,
            work.checkpoint_state,
        )

    def batch(self, batch: Batch) -> Any:
        return batch.steps, tuple(self.cached(cached) for cached in batch.states)

    def engine_call(self, call: Any) -> Any:
        if isinstance(call, CohortCall):
            return "cohorts", tuple(self.cohort(cohort) for cohort in call.cohorts)
        return call.steps, tuple(self.run(run) for run in call.runs)

    def cohort(self, cohort: Any) -> Any:
        states = cohort.served.engine._states
        return (
            tuple(line.key.session for line in cohort.lines),
            tuple(self.request(cohort.columns.steps[item]) for item in cohort.items),
            tuple(cohort.due),
            tuple(sorted(cohort.failed)),
            tuple(sorted(cohort.checkpoints.items())),
            tuple(self.header(header) for header in cohort.headers),
            tuple(int(states[row ^ 1]) for row in cohort.rows) if cohort.headers else None,
        )

    def read(self, result: Any) -> Any:
        return self.record(result) if isinstance(result, Record) else repr(result)

    def line(self, line: Line) -> Any:
        queue = tuple(
            (
                self.request(request),
                line.read and request.number <= line.read_number,
                line.loading and request.number <= line.load_number,
            )
            for request in line.queue
        )
        flight = line.flight
        return (
            line.key.session,
            queue,
            self.hot(line.hot),
            line.run and self.run(line.run),
            line.cohort and (self.cohort(line.cohort), line.cohort.lines.index(line)),
            tuple(self.item(item) for item in line.pending),
            flight and (tuple(self.item(item) for item in flight.items), flight.hot is line.hot),
            line.loading,
            line.starved,
            line.read and (self.record(line.record) if line.record is not None else "no record"),
        )

    def hot(self, hot: Any) -> Any:
        if hot is None:
            return None
        state = hot.seed if hot.seed is not None else int(hot.served.engine._states[hot.row])
        kept = hot.checkpoint
        return (
            self.header(hot.header),
            hot.exists,
            self.position(hot.frontier),
            state,
            hot.seed is None,  # of a session that goes the short way
            hot.created,
            kept and (kept.step, kept.state, bytes(kept.tail)),
        )

    def run(self, run: Any) -> Any:
        collects = tuple((self.request(one.request), one.first, one.last) for one in run.collects)
        return (
            run.line.key.session,
            run.kind,
            run.data,
            run.at,
            collects,
            run.cancelled,
            run.in_call,
            run.checkpoint_at,
            run.checkpoint_state,
            run.hot is run.line.hot,
        )

    def item(self, item: Any) -> Any:
        if isinstance(item, Applied):
            return self.request(item.request), self.position(item.after), item.acked
        if isinstance(item, Changing):
            return self.request(item.request), self.call(item.write.commit)
        return self.request(item.request)
