"""Which errors a client may see, and why. Anything that finds no excuse here is a violation.

    UNAVAILABLE, LOST, STORE_UNAVAILABLE,      a fault was under way, or over for less than SETTLE_S, while the request
    DRAINING, QUEUE_FULL, COMMIT_CONFLICT,     was
    CALLER_GONE, DEADLINE_*
    GENERATION_CHANGED                         somebody sent a reset, a set-state or a delete of the session before the
                                               error, or the session may have expired
    SESSION_NOT_FOUND                          somebody sent a delete before the error, or the session may have expired
    STEP_CONFLICT, HISTORY_CHANGED             another sender's steps of the same life were not all answered: some may
                                               have been applied
    STEP_GAP                                   a step just before it failed; or an old copy, or an open with `expect`,
                                               of steps that were never answered
    STEP_COMPACTED                             only where the sender holds the reply already, or never waited for it:
                                               old copies, forks, opens with `expect`; and, after a loss, where a
                                               client that was thought dead has replayed its own steps meanwhile
    CLIENT_KILLED                              the harness did it

After the store lost a tail, also: GENERATION_CHANGED, SESSION_NOT_FOUND, STEP_CONFLICT, HISTORY_CHANGED, HISTORY_LOST,
STEP_GAP, SESSION_EXISTS - the reports that the promise demands.
"""

from __future__ import annotations

from collections.abc import Iterable

from .history import Burst, Deed, Fault, History

SETTLE_S = 20.0  # a client's timeout, and the time that it may take to come back
EARLY = 0.88  # of its TTL: a record may be forgotten up to a tenth early

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
"""What tells a client that its history is gone."""


class Excuses:
    """with_losses: False: as if the store had never lost anything."""

    def __init__(self, history: History, *, with_losses: bool = True) -> None:
        self._history = history
        self._losses = [fault for fault in history.faults if fault.loses and with_losses]

    def lost_before(self, at: float) -> bool:
        """The store may have lost something by then."""
        return any(loss.began <= at for loss in self._losses)

    def lost_between(self, first: float, last: float) -> bool:
        return any(loss.ended >= first and loss.began <= last for loss in self._losses)

    def burst(self, burst: Burst) -> bool:
        reason = burst.error
        if reason == "CLIENT_KILLED":
            return True
        if reason == "STEP_GAP":
            return burst.late or self._behind_a_failure(burst) or self.lost_before(burst.error_at)
        if reason == "STEP_COMPACTED":
            return burst.late or self._overtaken(burst)
        if reason in ("STEP_CONFLICT", "HISTORY_CHANGED"):
            return self._rivals(burst) or self.lost_before(burst.error_at)
        return self._common(burst.session, burst.start.generation, reason, burst.sent_at, burst.error_at)

    def deed(self, deed: Deed) -> bool:
        reason = deed.error
        if reason == "CLIENT_KILLED":
            return True
        if deed.kind == "fork":
            if reason == "STEP_COMPACTED":
                return True
            if reason == "SESSION_EXISTS":
                return self.lost_before(deed.at)
            if reason in ("GENERATION_CHANGED", "SESSION_NOT_FOUND") and deed.at_position is not None:
                return self._common(deed.source, deed.at_position.generation, reason, deed.sent_at, deed.at)
        if deed.kind == "open" and deed.expect is not None:
            if reason == "STEP_COMPACTED":
                return bool(self._history.kills.get(deed.session))
            if reason == "STEP_GAP":
                return self.lost_before(deed.at)
        generation = deed.expect.generation if deed.expect is not None else deed.generation
        return self._common(deed.session, generation, reason, deed.sent_at, deed.at)

    def _common(self, session: str, generation: bytes, reason: str, sent_at: float, at: float) -> bool:
        if reason in PASSING:
            return self._disturbed(sent_at, at)
        if reason in REPORTS and self.lost_before(at):
            return True
        if reason == "GENERATION_CHANGED":
            ends = self._ending(session, ("reset", "set_state", "delete"), generation)
            return any(deed.sent_at <= at for deed in ends) or self.may_have_expired(session, generation, sent_at, at)
        if reason == "SESSION_NOT_FOUND":
            ends = self._ending(session, ("delete",), b"")
            return any(deed.sent_at <= at for deed in ends) or self.may_have_expired(session, b"", sent_at, at)
        return False

    def may_have_expired(self, session: str, generation: bytes, sent_at: float, at: float) -> bool:
        """Whether a session with a TTL may have been gone at some moment between the two."""
        ttl_s = self._history.ttls.get(session)
        if ttl_s is None:
            return False
        if generation:
            return True  # this life may have expired at any time before another began
        touched = [
            burst.sent_at for burst in self._history.bursts[session] if burst.acks and burst.acks[-1].at <= sent_at
        ]
        touched += [deed.sent_at for deed in self._history.deeds[session] if deed.succeeded and deed.at <= sent_at]
        return not touched or at - max(touched) >= EARLY * ttl_s

    def _disturbed(self, sent_at: float, at: float) -> bool:
        faults: Iterable[Fault] = self._history.faults
        return any(fault.began <= at and fault.ended + SETTLE_S >= sent_at for fault in faults)

    def _ending(self, session: str, kinds: tuple[str, ...], generation: bytes) -> list[Deed]:
        return [
            deed
            for deed in self._history.deeds.get(session, ())
            if deed.kind in kinds and (not generation or deed.generation == generation)
        ]

    def _behind_a_failure(self, burst: Burst) -> bool:
        for other in self._history.bursts[burst.session]:
            before = other.start.generation == burst.start.generation and other.start.step <= burst.start.step
            if other is not burst and before and other.error and other.error_at <= burst.error_at + 0.001:
                return True
        return False

    def _overtaken(self, burst: Burst) -> bool:
        """A client that was killed before had steps beyond this one, and the store had lost them."""
        kills = [at for at in self._history.kills.get(burst.session, ()) if at <= burst.sent_at]
        return self.lost_before(burst.error_at) and any(
            other.start.generation == burst.start.generation
            and other.sent_at <= max(kills)
            and other.start.step + len(other.inputs) > burst.start.step
            for other in self._history.bursts[burst.session]
            if kills
        )

    def _rivals(self, burst: Burst) -> bool:
        for other in self._history.bursts[burst.session]:
            same = other is not burst and other.start.generation == burst.start.generation
            if same and not other.complete and other.sent_at <= burst.error_at:
                return True
        return False
