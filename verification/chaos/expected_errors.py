"""Which errors a client may see, and why. Any other error is a violation.

    UNAVAILABLE, LOST, STORE_UNAVAILABLE,      a fault was in progress, or over for less than SETTLE_S, during the
    DRAINING, QUEUE_FULL, COMMIT_CONFLICT,     request
    CALLER_GONE, DEADLINE_*
    GENERATION_CHANGED                         somebody sent a reset, a set-state or a delete that names this
                                               generation, or it may have expired since its last success
    SESSION_NOT_FOUND                          somebody sent a delete before the error that names this generation or a
                                               later one, or the session may have expired
    STEP_CONFLICT, HISTORY_CHANGED             steps of another client have the same position; or those of the same
                                               client, as another sender or abandoned before, which were not all
                                               answered: some may have been applied
    STEP_GAP                                   no client was ever told that the position was reached, and an earlier
                                               step failed or was in flight, or it is an old copy of steps that were
                                               never answered
    STEP_COMPACTED                             another sender's request of this generation said that every reply up to
                                               a later step is held; for old copies, opens and forks: any request did
    CLIENT_KILLED                              the harness did it

After the store lost a tail, the reports that the promise demands (REPORTS) are expected too, but only for sessions with
something in flight or acknowledged in the time that the loss could affect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .generations import Generations
from .history import Burst, Fault, History, Operation, RefusedStart, client_of

SETTLE_S = 20.0  # a client's timeout, and the time that it may take to recover
LAG_S = 5.0  # a replica lags by less
EARLY = 0.88  # of its TTL: a record may expire up to a tenth early
BEHIND = "the step before it failed"  # what the official client says of a step that it never sent
AMISS = "the server is at"  # ... and of an answer with an unexpected position

PASSING = frozenset(
    {
        "UNAVAILABLE",
        "LOST",
        "STORE_UNAVAILABLE",
        "DRAINING",
        "QUEUE_FULL",
        "COMMIT_CONFLICT",
        "CALLER_GONE",
        "DEADLINE_PASSED",
        "DEADLINE_EXCEEDED",
        "CANCELLED",
    }
)
REPORTS = frozenset(
    {
        "GENERATION_CHANGED",
        "SESSION_NOT_FOUND",
        "STEP_CONFLICT",
        "HISTORY_CHANGED",
        "HISTORY_LOST",
        "STEP_GAP",
        "SESSION_EXISTS",
    }
)
"""These tell a client that its history is gone."""
OPEN_ENDED = PASSING | {"CLIENT_KILLED", ""}
"""After these, a request may have been applied, or may be yet."""
DAMAGED = "is damaged"  # what a store says of a record that is corrupt


def is_damaged(words: str) -> bool:
    """Returns True for an error that no fault explains: the record exists, and nobody can read it."""
    return DAMAGED in words


NO_WRITES = frozenset({"disk_full", "disk_locked", "file_limit"})
"""SQLite can be read but not written: a call that only reads succeeds, and cannot extend the TTL."""


class ExpectedErrors:
    """Says of an error whether it is expected. with_losses: False: as if the store had never lost anything."""

    def __init__(self, history: History, generations: Generations, *, with_losses: bool = True) -> None:
        self._history = history
        self._generations = generations
        self._losses = [fault for fault in history.faults if fault.loses and with_losses]
        self._first_losses: dict[str, float | None] = {}

    # ------------------------------------------------------------------------------------------ what was lost

    def lost_between(self, first: float, last: float) -> bool:
        """Returns True if the store may have lost something that was committed between the two times."""
        return any(loss.ended >= first and loss.began - LAG_S <= last for loss in self._losses)

    def lost_of(self, session: str, at: float) -> bool:
        """Returns True if the store may have lost something of this session by then.

        Promise 4: only the tail is lost, that is, commits since shortly before the loss. A session without such commits
        has nothing to report.
        """
        if session not in self._first_losses:
            spans = list(self._commit_times(session))
            began = (
                loss.began
                for loss in self._losses
                if any(loss.ended >= first and loss.began - LAG_S <= last for first, last in spans)
            )
            self._first_losses[session] = min(began, default=None)
        first = self._first_losses[session]
        return first is not None and first <= at

    def _commit_times(self, session: str) -> Iterator[tuple[float, float]]:
        """Yields the interval in which each request may have been committed."""
        for burst in self._history.bursts.get(session, ()):
            if burst.error in OPEN_ENDED and not burst.complete:
                yield burst.sent_at, (burst.error_at or float("inf")) + SETTLE_S
            elif burst.acks:
                yield burst.sent_at, burst.acks[-1].at
        for operation in self._history.operations.get(session, ()):
            if operation.succeeded:
                yield operation.sent_at, operation.at
            elif operation.error in OPEN_ENDED:
                yield operation.sent_at, (operation.at or float("inf")) + SETTLE_S

    # ------------------------------------------------------------------------------------------ answers

    def burst(self, burst: Burst) -> bool:
        reason, session, generation = burst.error, burst.session, burst.start.generation
        if burst.quiet:
            return False
        if reason == "CLIENT_KILLED":
            return True
        if BEHIND in burst.error_text:
            return self._behind_a_failure(burst)
        if reason == "STEP_GAP":
            in_order = not self._reached(burst) and (burst.late or self._behind_unanswered(burst))
            return in_order or self.lost_of(session, burst.error_at)
        if reason == "STEP_COMPACTED":
            sender = "" if burst.late else burst.sender
            return self._compacted(session, generation, burst.start.step, burst.error_at, sender)
        if reason in ("STEP_CONFLICT", "HISTORY_CHANGED"):
            told_by_the_server = not burst.error_text.startswith(AMISS)
            return told_by_the_server and (self._rivals(burst) or self.lost_of(session, burst.error_at))
        return self._common(session, generation, reason, burst.sent_at, burst.error_at)

    def operation(self, operation: Operation) -> bool:
        reason = operation.error
        if reason == "CLIENT_KILLED":
            return True
        session, place = operation.session, operation.expect
        if operation.kind == "fork" and reason != "SESSION_EXISTS":
            session, place = operation.source, operation.at_position
        if reason == "STEP_COMPACTED":
            return place is not None and self._compacted(session, place.generation, place.step, operation.at, "")
        generation = place.generation if place is not None else operation.generation
        return self._common(session, generation, reason, operation.sent_at, operation.at)

    def start(self, refused: RefusedStart) -> bool:
        """Returns True if a fault explains that the server refused to start.

        A server that cannot read its store at the start says so and ends, with one line and no traceback. A fault of
        the store, or of the connection to it, must have been in progress meanwhile, or over for less than SETTLE_S.
        """
        disturbed = any(
            fault.of_store and fault.began <= refused.ended and fault.ended + SETTLE_S >= refused.began
            for fault in self._history.faults
        )
        return disturbed and "Traceback" not in refused.words

    def may_have_been_ended(self, session: str, generation: bytes) -> bool:
        """Returns True if somebody asked for the end of this generation."""
        return bool(self._ending(session, ("reset", "set_state", "delete"), generation))

    def late_create(self, session: str, at: float) -> bool:
        """Returns True if a late copy of an Open or a Fork may have created this generation.

        The copy's answer did not come in time, and the generation that its sender was told of was deleted or had
        expired by then. Servers mint generations for that very reason: the late generation differs from every earlier
        one, and nobody else's steps fit it.
        """
        operations = self._history.operations.get(session, ())
        ended = session in self._history.ttls or any(
            operation.kind == "delete" and operation.sent_at <= at for operation in operations
        )
        return ended and any(
            operation.kind in ("open", "fork")
            and operation.expect is None
            and operation.sent_at <= at
            and self._disturbed(operation.sent_at, operation.at or float("inf"))
            for operation in operations
        )

    def _common(self, session: str, generation: bytes, reason: str, sent_at: float, at: float) -> bool:
        if reason in PASSING:
            return self._disturbed(sent_at, at)
        if reason in REPORTS and self.lost_of(session, at):
            return True
        if reason == "GENERATION_CHANGED":
            ends = self._ending(session, ("reset", "set_state", "delete"), generation)
            return any(operation.sent_at <= at for operation in ends) or self.may_have_expired(
                session, generation, sent_at, at
            )
        if reason == "SESSION_NOT_FOUND":
            gone = self.may_have_been_deleted(session, generation, at)
            return gone or self.may_have_expired(session, b"", sent_at, at)
        return False

    def may_have_been_deleted(self, session: str, generation: bytes, at: float) -> bool:
        """Returns True if a delete sent by then names this generation, or one that was seen after it.

        A delete ends the generation that it names, and no later one, however late it arrives.
        """
        order = self._generations.of(session)
        later = set(order[order.index(generation) :]) if generation in order else None
        return any(
            operation.sent_at <= at and (later is None or operation.generation in later)
            for operation in self._ending(session, ("delete",), b"")
        )

    def may_have_expired(self, session: str, generation: bytes, sent_at: float, at: float) -> bool:
        """Returns True if a session with a TTL, or this generation, may have been gone at some time between the two.

        A success refreshes the TTL: none before may be too recent for that.
        """
        ttl_s = self._history.ttls.get(session)
        if ttl_s is None:
            return False
        latest = max(self._uses(session, generation, sent_at), default=float("-inf"))
        return at - latest >= EARLY * ttl_s

    def _uses(self, session: str, generation: bytes, before: float) -> Iterator[float]:
        """Yields when successes were sent that were answered before `before`."""
        for burst in self._history.bursts.get(session, ()):
            if burst.acks and burst.acks[-1].at <= before and generation in (b"", burst.start.generation):
                ack = burst.acks[-1]
                if ack.applied or self._writable(burst.sent_at, ack.at):
                    yield burst.last_sent_at
        for operation in self._history.operations.get(session, ()):
            if operation.succeeded and operation.at <= before and operation.result is not None:
                writes = operation.created or operation.kind != "open"
                if generation in (b"", operation.result.generation) and (
                    writes or self._writable(operation.sent_at, operation.at)
                ):
                    yield operation.sent_at

    def _writable(self, first: float, last: float) -> bool:
        """Returns True if the store accepted writes, as far as is known."""
        faults = self._history.faults
        return not any(f.kind in NO_WRITES and f.began <= last and f.ended >= first for f in faults)

    def _disturbed(self, sent_at: float, at: float) -> bool:
        faults: Iterable[Fault] = self._history.faults
        return any(fault.began <= at and fault.ended + SETTLE_S >= sent_at for fault in faults)

    def _ending(self, session: str, kinds: tuple[str, ...], generation: bytes) -> list[Operation]:
        return [
            operation
            for operation in self._history.operations.get(session, ())
            if operation.kind in kinds and (not generation or operation.generation == generation)
        ]

    # ------------------------------------------------------------------------------------------ other steps

    def _others(self, burst: Burst) -> Iterator[Burst]:
        """Yields other bursts of the same generation, sent before the error."""
        for other in self._history.bursts[burst.session]:
            same = other is not burst and other.start.generation == burst.start.generation
            if same and other.sent_at <= burst.error_at:
                yield other

    def _behind_a_failure(self, burst: Burst) -> bool:
        return any(
            other.start.step <= burst.start.step and other.error and other.error_at <= burst.error_at + 0.001
            for other in self._others(burst)
        )

    def _behind_unanswered(self, burst: Burst) -> bool:
        """Returns True if earlier steps had failed by then, or were in flight: the burst was pipelined after them."""
        return self._behind_a_failure(burst) or any(
            other.start.step < burst.start.step
            and sum(ack.rows for ack in other.acks if ack.at <= burst.error_at) < len(other.inputs)
            for other in self._others(burst)
        )

    def _reached(self, burst: Burst) -> bool:
        """Returns True if a client had been told that the session is where this burst starts, or further."""
        return any(
            ack.position.step >= burst.start.step and ack.at <= burst.sent_at
            for other in self._others(burst)
            for ack in other.acks
        )

    def _compacted(self, session: str, generation: bytes, step: int, at: float, sender: str) -> bool:
        """Returns True if another sender's request may have moved the checkpoint past `step`.

        The checkpoint never passes the smallest `acked` of what was committed.
        """
        return any(
            other.start.generation == generation
            and other.sent_at <= at
            and other.sender != sender
            and other.acked_at_most > step
            for other in self._history.bursts.get(session, ())
        )

    def _rivals(self, burst: Burst) -> bool:
        """Returns True if other inputs may have this burst's position, or an earlier one.

        Its sender's head tells them apart (promise 3).
        """
        before = burst.error == "HISTORY_CHANGED"
        for other in self._others(burst):
            given_up = bool(other.error) and other.error_at <= burst.sent_at
            contender = client_of(other.sender) != client_of(burst.sender) and not (other.late or burst.late)
            if not contender and (other.complete or not (burst.late or given_up or other.sender != burst.sender)):
                continue
            if other.start.step < burst.start.step if before else other.end_step > burst.start.step:
                return True
        return False
