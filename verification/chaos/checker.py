"""Judges a history. The invariants, in words:

    mismatched   every acknowledged output, and every state read, equals bitwise what one offline run of the same model
                 gives for the inputs that lead there
    lost         an acknowledged step is part of its generation's history for ever: every later read finds it there
    doubled      no step is applied twice: the position after a chunk is as many steps on as the chunk has, and no
                 two answers say that they applied the same step
    gap          the steps of a session are gapless and in order: every input in a history was sent by one of its
                 clients for exactly that position
    leaked       no session shows another's history: a generation belongs to one session, and somebody asked for it
    revived      a generation that was replaced or deleted never answers with success to a request sent after that was
                 acknowledged
    overdue      a session that nobody has used for longer than its TTL is gone
    unexplained  every error that a client sees is explained by a fault or a race: expected_errors.py says which by
                 which
    miscounted   the servers' metrics count every step, chunk and replay once
    unreadable   every record in the store can be read
    crash        no server ends on its own, refuses to start without a fault of its store, reports an unexpected error,
                 or holds a request that it never answers

If the store itself lost acknowledged commits (a fail-over to a lagging replica), a step may be missing from the history
if its client was told after the loss: by an error, or by reading a position before the one it held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np

from testing.wire_client import Position

from .comparison import Answer, Comparison
from .expected_errors import EARLY, LAG_S, REPORTS, ExpectedErrors, is_damaged
from .generations import Generations
from .history import INTERFERING, LATE, Array, History
from .offline import Reference
from .paths import Broken, Path, Paths, heads_of
from .verdict import Verdict

CLOCKS_S = 0.1  # the store's clock and this process's may differ by less in the time of a TTL


class Checker:
    """Checks one history. references: by model name."""

    def __init__(self, history: History, references: Mapping[str, Reference]) -> None:
        self._history = history
        self._paths = Paths(history)
        self._generations = Generations(history)
        self._expected = ExpectedErrors(history, self._generations)
        self._expected_without_losses = ExpectedErrors(history, self._generations, with_losses=False)
        self._verdict = Verdict()
        self._comparison = Comparison(references, history.models, self._verdict)

    def check(self) -> Verdict:
        for other, generation in self._generations.shared():
            self._verdict.found("leaked", other, generation, "this generation belongs to another session")
        for crash in self._history.crashes:
            self._verdict.found("crash", "", b"", crash)
        if self._history.metrics is not None:
            answered, counted = self._history.metrics
            if answered != counted:
                self._verdict.found("miscounted", "", b"", f"clients saw {answered}, the servers counted {counted}")
        for refused in self._history.refused_starts:
            if not self._expected.start(refused):
                self._verdict.found("crash", "", b"", f"server {refused.server} refused to start: {refused.words}")
        for session in self._history.models:
            generations = self._generations.of(session)
            self._check_order(session)
            self._check_final_reads(session, generations)
            self._check_expiry(session)
            for generation in generations:
                self._check_generation(session, generation)
            self._check_errors(session)
        return self._verdict

    def _check_order(self, session: str) -> None:
        for late in self._generations.revived(session):
            if not self._expected.lost_between(late.over_at - LAG_S, late.at):
                words = (
                    f"answered at {late.at:.3f} what was sent at {late.sent_at:.3f}; it had ended by {late.over_at:.3f}"
                )
                self._verdict.found("revived", session, late.generation, words)

    # ------------------------------------------------------------------------------------------ one generation

    def _check_generation(self, session: str, generation: bytes) -> None:
        self._verdict.generations += 1
        answers = self._answers(session, generation)
        seen = self._seen(session, generation)
        reads = [read.position for read in self._generations.final_reads(session) if read.position is not None]
        final = [position for position in reads if position.generation == generation]
        ends = [answer.end for answer in answers] + [position for position, _, _ in seen]
        truth = max(final or self._surviving(session, answers, ends), key=lambda position: position.step)
        path = self._paths.path(session, truth)
        if isinstance(path, Broken):
            words = (
                f"no client sent what led to step {path.position.step} of {path.session!r} (on the way to {truth.step})"
            )
            self._verdict.found("gap", session, generation, words)
            return
        self._check_creation(session, generation, path)
        if not final:
            self._check_end(session, generation, answers)
        self._check_seen(session, generation, seen, answers, path)
        on_path = [answer for answer in answers if path.passes(answer.end.step, answer.end.head)]
        aside = [answer for answer in answers if not path.passes(answer.end.step, answer.end.head)]
        self._check_twice(session, generation, on_path)
        self._comparison.check(session, generation, on_path, path, self._states_read(session, generation, truth))
        self._check_aside(session, generation, aside, truth)

    def _surviving(self, session: str, answers: list[Answer], ends: list[Position]) -> list[Position]:
        """Returns the ends on the branch of the latest answer, if the store lost another branch."""
        if not answers or not self._expected.lost_of(session, float("inf")):
            return ends
        latest = max(answers, key=lambda answer: answer.ack.at).end
        for end in sorted(set(ends), key=lambda position: position.step, reverse=True):
            path = self._paths.path(session, end)
            if isinstance(path, Path) and path.passes(latest.step, latest.head):
                return [end]
        return ends

    def _answers(self, session: str, generation: bytes) -> list[Answer]:
        """Returns all answered parts of one generation. Reports positions that do not match the parts' lengths."""
        answers = []
        for burst in self._history.bursts.get(session, ()):
            if burst.start.generation != generation or not burst.acks:
                continue
            heads, first = heads_of(burst), 0
            for ack in burst.acks:
                last = first + ack.rows
                end = Position(generation, burst.start.step + last, heads[last])
                answers.append(Answer(burst, ack, first, last, end))
                if ack.position != end:
                    kind = "doubled" if ack.position.step > end.step else "lost"
                    kind = "mismatched" if ack.position.step == end.step else kind
                    words = f"{burst.sender}: after the chunk it was at {ack.position}, expected {end}"
                    self._verdict.found(kind, session, generation, words)
                first = last
        return answers

    def _seen(self, session: str, generation: bytes) -> list[tuple[Position, float, float]]:
        """Returns the positions at which a generation was opened or created: position, asked at, answered at."""
        return [
            (operation.result, operation.sent_at, operation.at)
            for operation in self._history.operations.get(session, ())
            if operation.succeeded and operation.result is not None and operation.result.generation == generation
        ]

    def _check_creation(self, session: str, generation: bytes, path: Path) -> None:
        """Checks that somebody asked for this generation."""
        for operation in self._history.operations.get(session, ()):
            made = operation.succeeded and operation.result is not None and operation.result.generation == generation
            if made and (operation.created or operation.kind in ("reset", "set_state", "fork")):
                return
            if not operation.succeeded and operation.kind != "delete" and operation.expect is None:
                return  # it may have created this one
        lost = self._expected.lost_of(session, float("inf"))
        if not lost and not self._expected.late_create(session, self._generations.first_seen(session, generation)):
            self._verdict.found(
                "leaked",
                session,
                generation,
                f"no client asked for this generation (it starts at step {path.first_step})",
            )

    def _check_seen(
        self,
        session: str,
        generation: bytes,
        seen: Iterable[tuple[Position, float, float]],
        answers: list[Answer],
        path: Path,
    ) -> None:
        for position, asked_at, at in seen:
            held = max((a.end.step for a in answers if a.ack.at < asked_at), default=0)
            if position.step < held and not self._expected.lost_of(session, at):
                words = f"steps up to {held} were acknowledged; later the session was at step {position.step}"
                self._verdict.found("lost", session, generation, words)
            explained = self._expected.lost_of(session, at) or self._expected.lost_between(asked_at, at)
            if not path.passes(position.step, position.head) and not explained:
                words = f"the session was at {position}, which is not a point of its history"
                self._verdict.found("lost", session, generation, words)

    def _check_twice(self, session: str, generation: bytes, answers: list[Answer]) -> None:
        applied = sorted((a for a in answers if a.ack.applied), key=lambda answer: answer.end.step - answer.ack.rows)
        for before, after in pairwise(applied):
            first = after.end.step - after.ack.rows
            if first >= before.end.step:
                continue
            times = sorted((before.ack.at, after.ack.at))
            sent_at = min(before.burst.sent_at, after.burst.sent_at)
            if not self._expected.lost_between(sent_at, times[1]):
                words = f"step {first} was applied for {before.burst.sender} and again for {after.burst.sender}"
                self._verdict.found("doubled", session, generation, words)

    def _check_aside(self, session: str, generation: bytes, aside: list[Answer], truth: Position) -> None:
        """Checks acknowledged steps missing from the history: the store must have lost them, and the client know it."""
        for answer in aside:
            words = f"steps up to {answer.end.step} were acknowledged to {answer.burst.sender}; "
            words += f"the history reaches step {truth.step} without them"
            if not self._expected.lost_between(answer.burst.sent_at, answer.ack.at):
                self._verdict.found("lost", session, generation, words)
                continue
            if not self._was_told(session, answer):
                self._verdict.found("lost", session, generation, words + "; no client was told")
                continue
            self._verdict.lost_and_told += answer.ack.rows
            path = self._paths.path(session, answer.end)
            if isinstance(path, Broken):
                self._verdict.found("gap", session, generation, f"no client sent what led to step {path.position.step}")
            else:
                self._comparison.check(session, generation, [answer], path, [])

    def _check_end(self, session: str, generation: bytes, answers: list[Answer]) -> None:
        """Checks a generation that is gone: somebody ended it, or the store lost it.

        If it had acknowledged steps then, their client must have been told.
        """
        reads = self._generations.final_reads(session)
        ended = session in self._history.ttls or self._expected.may_have_been_ended(session, generation)
        lost = self._expected.lost_of(session, float("inf"))
        if not reads or ended or any(read.error for read in reads):
            return
        if not lost:
            self._verdict.found("lost", session, generation, "the generation is gone, though nobody ended it")
            return
        if not answers:
            return
        latest = max(answers, key=lambda answer: answer.ack.at)
        if not self._was_told(session, latest):
            words = f"steps up to {latest.end.step} were acknowledged to {latest.burst.sender}; "
            self._verdict.found("lost", session, generation, words + "the whole generation is gone; no client was told")

    def _was_told(self, session: str, answer: Answer) -> bool:
        """Returns True if the client that had the answer later learned that the session is not where it left it.

        A client that ended the session itself has no claim any more. What another client learned does not count.
        STEP_COMPACTED tells it only if its own position was refused, as when a second switch brings back a history that
        is ahead: it is the usual answer to a copy of earlier steps.
        """
        held_since, client = self._held_since(session, answer), _client(answer.burst.sender)
        reports = REPORTS | {"STEP_COMPACTED"} if client == LATE else REPORTS
        for burst in self._history.bursts.get(session, ()):
            if _client(burst.sender) != client or not burst.error or burst.error_at < held_since:
                continue
            if burst.error in reports or _is_refused(burst.error, burst.start, answer.end):
                return True
        for operation in self._history.operations.get(session, ()):
            if operation.at < held_since or _client(operation.sender) != client:
                continue
            if operation.error in reports or _is_refused(operation.error, operation.expect, answer.end):
                return True
            if operation.succeeded and operation.generation == answer.end.generation:
                return True
            there = operation.result if operation.kind == "open" and operation.succeeded else None
            if there is not None and (there.generation != answer.end.generation or there.step < answer.end.step):
                return True
        return False

    def _held_since(self, session: str, answer: Answer) -> float:
        """Returns when the answer came.

        If a server that does not know of the loss yet answers an old copy again, the sender gets nothing that was not
        held before, and that may have been reported lost in between.
        """
        if not answer.burst.late or answer.ack.applied:
            return answer.ack.at
        copied = answer.burst
        return min(
            burst.acks[0].at
            for burst in self._history.bursts[session]
            if burst.acks and burst.start == copied.start and np.array_equal(burst.inputs, copied.inputs)
        )

    # ------------------------------------------------------------------------------------------ what was read

    def _states_read(self, session: str, generation: bytes, truth: Position) -> list[tuple[int, Mapping[str, Array]]]:
        """Returns the states that were read in the end: the step and the tensors."""
        found = []
        for read in self._generations.final_reads(session):
            if read.position is not None and read.position.generation == generation:
                if read.position != truth:
                    words = f"after the run, replica {read.replica} reads {read.position}, expected {truth}"
                    self._verdict.found("lost", session, generation, words)
                else:
                    found.append((truth.step, read.states))
        return found

    # ------------------------------------------------------------------------------------------ final reads, errors

    def _check_final_reads(self, session: str, generations: list[bytes]) -> None:
        for read in self._generations.final_reads(session):
            if read.error:
                self._verdict.found(
                    "unreadable", session, b"", f"after the run, replica {read.replica} cannot read it: {read.error}"
                )
            if read.position is not None or read.error or not generations:
                continue
            deleted = self._expected.may_have_been_deleted(session, generations[-1], read.at)
            expired = self._expected.may_have_expired(session, b"", read.asked_at, read.at)
            if not deleted and not expired and not self._expected.lost_of(session, read.at):
                self._verdict.found("lost", session, generations[-1], "the session is gone, but no client deleted it")

    def _check_expiry(self, session: str) -> None:
        """Checks when a session that nobody uses is gone: from 0.9 times its TTL on it may be, after it, it must."""
        for before, after in pairwise(self._history.idle_reads.get(session, ())):
            ttl_s = self._history.ttls[session]
            least_s, most_s = after.asked_at - before.at, after.at - before.asked_at
            if before.position is not None and after.position is None and most_s < EARLY * ttl_s:
                words = f"gone after {most_s:.2f} s without use, with a TTL of {ttl_s:.2f} s {after.error}"
                self._verdict.found("lost", session, before.position.generation, words)
            if after.position is None:
                continue
            if before.position is None:
                words = f"it had expired, and is at {after.position} again"
                self._verdict.found("revived", session, after.position.generation, words)
            elif least_s > ttl_s + CLOCKS_S:
                words = f"at {after.position} after {least_s:.2f} s without use, with a TTL of {ttl_s:.2f} s"
                self._verdict.found("overdue", session, after.position.generation, words)

    def _check_errors(self, session: str) -> None:
        for burst in self._history.bursts.get(session, ()):
            if not burst.error:
                continue
            if is_damaged(burst.error_text) or not self._expected.burst(burst):
                words = f"{burst.sender} at step {burst.start.step}: {burst.error} {burst.error_text}"
                kind = "unreadable" if is_damaged(burst.error_text) else "unexplained"
                self._verdict.found(kind, session, burst.start.generation, words)
            elif not self._expected_without_losses.burst(burst):
                self._verdict.reports += 1
        for operation in self._history.operations.get(session, ()):
            if not operation.error:
                continue
            if is_damaged(operation.error_text) or not self._expected.operation(operation):
                words = f"{operation.sender}, {operation.kind}: {operation.error} {operation.error_text}"
                kind = "unreadable" if is_damaged(operation.error_text) else "unexplained"
                self._verdict.found(kind, session, operation.generation, words)
            elif not self._expected_without_losses.operation(operation):
                self._verdict.reports += 1


def _is_refused(error: str, position: Position | None, held: Position) -> bool:
    """Returns True if the server has compacted a position that is at or after the one that its client holds."""
    if error != "STEP_COMPACTED" or position is None:
        return False
    return position.generation == held.generation and position.step >= held.step


def _client(sender: str) -> str:
    """Returns the kind of client: LATE, INTERFERING, or empty for the session's own client, whatever its name."""
    return sender if sender in (LATE, INTERFERING) else ""
