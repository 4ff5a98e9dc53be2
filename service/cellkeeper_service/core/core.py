"""The core: decides what every session's requests do, in which order, and what their results are.

Plain synchronous logic without I/O, clocks or threads. Events tell it what has happened:

    submit_many(requests)               requests arrive
    on_loaded(sessions, results)        the store has read what `take_loads` returned
    on_computed(batch), on_failed(...)  the engine has executed a batch, or has failed
    on_committed(commits, results)      the store has answered the commits of `take_commits`
    expire()                            time has passed

Events change states and mark sessions ready, and make no callbacks. Only `schedule` advances ready sessions; it returns
the batches of the next tick. The driver then takes what to read, what to commit and which requests are finished. It may
interleave all of these calls as it likes, but executes the batches before it schedules again.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import COMMITTED, CommitResult, Load, Outcome, Postponed, StoreError
from cellkeeper_service.errors import Rejection, internal_error

from .advance import advance, loaded, start_at_once
from .batch import Batch, form_batches
from .commit import committed, launch, not_committed
from .computing import end_dead, finish_chunk, not_finite, take_slice, waiting_for
from .context import Context
from .limits import MAX_CALL_ITEMS, Clock, Limits
from .models import Models
from .requests import Computable, Request, Step
from .session import CachedState, InflightCommit, SessionState

log = logging.getLogger(__name__)
WAY = attrgetter("version", "steps", "arrived", "started_at", "computed_at", "load_seconds", "replayed")


def owe_nothing(tenant: str, steps: int) -> None:
    """The `owe` of a core without quotas."""


class Core:
    """All sessions that this replica works on or has cached."""

    def __init__(
        self,
        models: Mapping[str, Models],
        limits: Limits,
        clock: Clock,
        meter: Meter,
        mint: Callable[[], bytes] = lambda: os.urandom(16),
        owe: Callable[[str, int], None] = owe_nothing,
    ) -> None:
        """mint: returns the 16 random bytes of a new generation. owe: takes a tenant and the number of time steps that
        the engine computed for it beyond those that it asked for."""
        self.context = Context(models, limits, clock, meter, mint, owe)

    def submit_many(self, requests: Iterable[Request]) -> None:
        """Submits requests that arrive together, and whose fields have been checked."""
        context = self.context
        context.begin_event()
        for request in requests:
            session = context.admit(request)
            if session is not None and not start_at_once(context, session, request):
                context.enqueue(session, request)

    def submit_alike(self, steps: Sequence[Step]) -> None:
        """Submits single steps of distinct sessions that want the same outputs by the same deadline. They are admitted
        together."""
        context = self.context
        context.begin_event()
        now, first = context.now, steps[0]
        if context.admission.enter(first, 0, now, len(steps)) is not None:  # some of them may be admitted
            self.submit_many(steps)
            return
        sessions, held_bytes, number = context.sessions, first.held_bytes, first.number - len(steps)
        for step in steps:
            number += 1
            step.number, step.held_bytes, step.arrived = number, held_bytes, now
            session = sessions.get(step.key)
            if session is None:
                session = sessions[step.key] = SessionState(step.key)
            if start_at_once(context, session, step):
                continue
            if len(session.queue) < context.limits.max_session_requests:
                context.enqueue(session, step)
            else:
                context.finish(step, context.admission.session_is_full())

    def refuse(self, count: int, deadline: float) -> Rejection | None:
        """Returns why none of `count` steps with that deadline would be admitted, and counts them as rejected; None:
        they may be. Call it before reading them: it is cheap, and looks at none of them."""
        context = self.context
        refused = context.admission.refuse(deadline, context.clock.monotonic())
        if refused is not None:
            for _ in range(count):
                context.meter.rejected(refused.reason.value)
        return refused

    def answered(self, came: float) -> None:
        """A call with steps that arrived at that monotonic time has its answer."""
        self.context.admission.answered(came, self.context.clock.monotonic())

    # the tick

    def schedule(self) -> list[Batch]:
        """Advances every ready session. Returns the batches of the next tick, to be executed in any order. Call it when
        those of the last tick have been executed."""
        context = self.context
        context.begin_event()
        self._advance_ready()
        batches: list[Batch] = []
        for cache in list(context.caches.values()):
            if cache.ready:
                batches += form_batches(cache, context.limits, context.now, self._end_dead)
        if context.ready:
            self._advance_ready()
        return batches

    @property
    def wants_load(self) -> bool:
        """Whether `take_loads` would return something."""
        return bool(self.context.to_load or self.context.to_load_alone)

    @property
    def wants_commit(self) -> bool:
        """Whether `take_commits` would return something."""
        return bool(self.context.to_commit)

    @property
    def has_work(self) -> bool:
        """Whether `schedule` would do something."""
        return bool(self.context.ready) or any(cache.ready for cache in self.context.caches.values())

    def _advance_ready(self) -> None:
        context = self.context
        while True:
            while context.ready:
                ready, context.ready = context.ready, {}
                for session in ready:
                    advance(context, session)
            self._give_slots()  # a batch that came too late may have freed one, though no session is ready
            if not context.ready:
                return

    def _give_slots(self) -> None:
        """Lets the sessions that wait for a slot try again, in their order."""
        for cache in list(self.context.caches.values()):
            for _ in range(len(cache.waiting)):
                session = cache.waiting.popleft()
                session.waits_for_slot = False
                advance(self.context, session)
                if session.waits_for_slot:
                    if cache.waiting and cache.waiting[-1] is session:
                        cache.waiting.rotate(1)  # it keeps its place
                    break

    def _end_dead(self, cached: CachedState, work: Computable) -> bool:
        try:
            return end_dead(self.context, cached, work)
        except Exception:
            log.exception("internal error: a session's request failed")
            self.context.broken(cached.session, waiting_for(cached.session, work))
            return True

    # the engine

    def on_computed(self, batch: Batch) -> None:
        context, name = self.context, batch.version.spec.name
        context.begin_event()
        computed, steps = batch.computed, batch.steps
        finite = None if computed is None else computed.finite
        plain = None if batch.states_before or batch.states_after else computed  # no states were read
        cache = context.cache_of(batch.version)
        for row, cached in enumerate(batch.states):
            cached.in_batch = False
            if cached.dropped and not cache.left_batch(cached):
                continue
            work = cached.work
            try:
                if (
                    plain is not None
                    and isinstance(work, Step)
                    and work.to_compute == steps
                    and not work.peek
                    and (finite is None or finite[row])
                ):  # nearly always; does what `take_slice` does with a whole chunk
                    work.computed = steps
                    work.pieces = ((plain, row, 0, steps),)
                    cached.work = None
                    finish_chunk(context, cached, work)
                elif work is None:
                    raise RuntimeError("a batch gave a result for a state on which nothing is computed")
                elif finite is not None and not finite[row]:
                    not_finite(context, cached, work)
                else:
                    take_slice(context, batch, row, cached, work)
            except Exception:
                log.exception("internal error: a session's request failed")
                context.broken(cached.session, waiting_for(cached.session, work))
        if batch.steps:
            context.meter.tick(name, len(batch), batch.steps)
        if batch.change is not None:
            context.meter.state_change(name, *batch.change)

    def on_failed(self, batch: Batch, why: Rejection | None = None) -> list[Batch]:
        """The engine raised an exception. why: the engine as a whole failed, and every request of the batch fails.
        None: one request is at fault; execute the returned smaller batches to find it, and it fails alone."""
        context = self.context
        context.begin_event()
        halves = batch.halves() if why is None else []
        if not halves:
            cache = context.cache_of(batch.version)
            for cached in batch.states:
                if cache.left_batch(cached):
                    context.fail(cached.session, waiting_for(cached.session, cached.work), why or internal_error())
        return halves

    # the store

    def take_loads(self) -> tuple[list[SessionState], list[Load]]:
        """Returns what to read now. A reading is valid for the requests that arrived before this call."""
        sessions = self.context.next_loads()
        return sessions, [Load(one.key, any(request.touches for request in one.queue)) for one in sessions]

    def on_loaded(self, sessions: Sequence[SessionState], results: Sequence[Record | StoreError | None]) -> None:
        context = self.context
        context.begin_event()
        for session, result in zip(sessions, results, strict=True):
            if isinstance(result, Postponed):
                (context.to_load_alone if result.alone else context.to_load).append(session)
                continue
            session.loading = False
            try:
                loaded(context, session, result)
            except Exception:
                log.exception("internal error: a session's request failed")
                context.broken(session, [one for one in session.queue if one.number <= session.load_number])
            context.ready[session] = None

    def take_commits(self) -> list[InflightCommit]:
        """Returns what to write now, at most one commit or delete for each session."""
        context = self.context
        context.begin_event()
        now_ms = context.clock.wall_ms()
        commits: list[InflightCommit] = []
        sessions = list(context.to_commit)
        sessions, context.to_commit = sessions[:MAX_CALL_ITEMS], dict.fromkeys(sessions[MAX_CALL_ITEMS:])
        for session in sessions:
            requests = session.pending
            try:
                commit = launch(context, session, now_ms)
            except Exception:
                log.exception("internal error: a session's request failed")
                session.in_flight = None
                context.broken(session, requests)
            else:
                if commit is not None:
                    commits.append(commit)
        return commits

    def on_committed(self, commits: Sequence[InflightCommit], results: Sequence[CommitResult]) -> None:
        context = self.context
        context.begin_event()
        for commit, result in zip(commits, results, strict=True):
            session = commit.session
            session.in_flight = None
            try:
                if result is COMMITTED or result.outcome is Outcome.COMMITTED:
                    committed(context, commit)
                else:
                    not_committed(context, commit, result)
            except Exception:
                log.exception("internal error: a session's request failed")
                context.broken(session, commit.requests)
            if session.queue or session.cached is None:  # something waits for this, or the session may be forgotten
                context.ready[session] = None
            if session.pending:
                context.to_commit[session] = None
        if (done := results.count(COMMITTED)) == len(results):
            context.meter.committed(Outcome.COMMITTED.value, done)
            return
        for outcome, count in Counter([result.outcome for result in results]).items():
            context.meter.committed(outcome.value, count)

    # time

    def expire(self) -> None:
        """Finishes waiting requests whose deadline has passed or whose caller is gone; lets retired versions go."""
        self.context.begin_event()
        self.context.end_dead_requests()
        self.context.let_retired_go()

    # results

    def take_finished(self) -> list[Request]:
        """Returns the requests that were finished since the last call, each exactly once, and counts them."""
        context, meter = self.context, self.context.meter
        finished, context.finished = context.finished, []
        steps = [request for request in finished if request.result is None and isinstance(request, Step)]
        # Neighbours that took the same way in the same time, as most steps of a frame do, are counted together:
        # comparing a step costs less than counting it.
        for _, alike in groupby(steps, WAY):
            first, *others = alike
            meter.steps_done(first.key.model, first.steps, first.times(context.now), first.replayed, 1 + len(others))
        if len(steps) < len(finished):
            for request in finished:
                if isinstance(request.result, Rejection):
                    meter.rejected(request.result.reason.value)
        return finished

    @property
    def unanswered(self) -> int:
        """How many requests have no result yet."""
        return self.context.admission.unanswered

    def is_cached(self, key: SessionKey) -> bool:
        session = self.context.sessions.get(key)
        return session is not None and session.cached is not None

    def cached_count(self, model: str) -> int:
        """Returns how many sessions of a model are cached. Other threads may call it, so it changes nothing, and makes
        no cache for a version that has none yet, or no longer."""
        models, caches = self.context.models[model], self.context.caches
        found = [caches.get(version) for version in (*models, *models.retiring)]
        return sum(len(cache) for cache in found if cache is not None)
