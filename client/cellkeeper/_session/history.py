"""The client's knowledge of one session: what was sent, what was answered, and what to do about an error.

Pure logic: no I/O, no clock, no randomness. The owner sends the `upcoming` chunk and passes it to `launch`, reports
every outcome (`on_reply`, `on_error`) and every caller that stops waiting (`abandon`), and acts on the verdict.

The rules:

- A chunk never changes its bytes or its position; every resend is identical.
- After an error that is retried, nothing more is sent until every chunk in flight has an outcome; then everything
  unanswered is sent again, in order.
- STEP_GAP: the server's position is before the chunk. If it is a position of this history, the steps after it are
  sent again (replies that are already held are not delivered twice). If its head differs: HISTORY_CHANGED. If it is
  before the oldest input kept: HISTORY_LOST.
- When a chunk is refused for good, the chunks after it fail too, since they build on it.
- A chunk that may have been applied when its caller stops waiting is late: it stays, is sent again like any other, and
  nothing is appended until its outcome is known. So the next chunk's position never depends on a guess.
- A History belongs to one generation; a new generation gets a new History.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..position import Position
from .chunk import Chunk, ChunkState
from .replay_buffer import ReplayBuffer
from .verdict import COUNTED, DELIVER, FINAL, IGNORE, NOT_APPLIED, RESEND, RETRIED, Action, Verdict

_QUEUED, _IN_FLIGHT, _DONE, _DROPPED = ChunkState.QUEUED, ChunkState.IN_FLIGHT, ChunkState.DONE, ChunkState.DROPPED

# The record may include the chunk all the same; its position says so.
_WITHOUT_OUTPUTS = frozenset({"STEP_COMPACTED", "INTERNAL_ERROR"})


class History:
    """The history of one session in one generation; see the module.

    position: the session's position at the start. step_bytes: bytes of one time step's input. window_steps: the most
    unanswered time steps (a single longer chunk may go alone). buffer_steps, buffer_bytes: answered inputs kept for a
    replay. earlier: returns answered chunks from before `position`.
    """

    def __init__(
        self,
        position: Position,
        *,
        step_bytes: int,
        window_steps: int = 64,
        buffer_steps: int = 1024,
        buffer_bytes: int = 1 << 20,
        earlier: Callable[[], Iterable[Chunk]] | None = None,
    ) -> None:
        self.position = position  # every reply up to here is held
        self.in_flight = 0
        self._step_bytes = step_bytes
        self.window_steps = window_steps
        self._replay_buffer = ReplayBuffer(step_bytes, buffer_steps, buffer_bytes, earlier)  # ends where _open begins
        self._open: deque[Chunk] = deque()  # adjoining chunks, unanswered, or answered but to be sent again
        self.queued = 0  # chunks to be sent, or sent again
        self.late = 0  # late chunks whose outcome is unknown
        self._resending = False  # queued chunks may lie between others; if False, they are the last ones
        self._settling = False

    @property
    def tail(self) -> Position:
        """Position after everything that was appended and not refused."""
        return self._open[-1].end if self._open else self.position

    @property
    def idle(self) -> bool:
        """True if there is nothing to send and nothing unanswered."""
        return not self._open and self.in_flight == 0

    @property
    def awaited(self) -> bool:
        """True if a caller waits for an answer."""
        return any(not (chunk.late or chunk.held) for chunk in self._open)

    @property
    def ready(self) -> bool:
        """True if there is an upcoming chunk."""
        return self.queued > 0 and not (self._settling and self.in_flight)

    @property
    def upcoming(self) -> Chunk | None:
        """The next chunk to send; None if there is none, or outcomes must arrive first."""
        queued = self.queued
        if not queued or (self._settling and self.in_flight):
            return None
        if not self._resending:
            return self._open[-queued]
        return next((chunk for chunk in self._open if chunk.state is _QUEUED), None)

    @property
    def unanswered(self) -> tuple[Chunk, ...]:
        """From the oldest to the newest chunk that is unanswered or to be sent again, with answered ones between."""
        return tuple(self._open)

    def answered_since(self, step: int) -> list[Chunk]:
        """Returns the chunks kept for a replay that begin at `step` or later."""
        return [chunk for chunk in self._replay_buffer if chunk.start.step >= step]

    def room(self, steps: int) -> bool:
        """Returns True if a chunk of that many time steps fits into the window; never while a late chunk is open."""
        if not self._open:
            return True
        if self.late:
            return False
        waiting = self._open[-1].end.step - self.position.step
        return waiting == 0 or waiting + steps <= self.window_steps

    def append(self, inputs: bytes, call: Any = None) -> Chunk:
        """Appends a chunk to the history, to be sent in its turn."""
        following = self._open
        start = following[-1].end if following else self.position
        chunk = Chunk(inputs, start, start.advance(inputs, self._step_bytes), call)
        following.append(chunk)
        self.queued += 1
        return chunk

    def launch(self, chunk: Chunk) -> None:
        """Marks the upcoming chunk as in flight."""
        self._settling = False
        chunk.state = _IN_FLIGHT
        chunk.counted = True
        self.queued -= 1
        if not self.queued:
            self._resending = False
        self.in_flight += 1
        held, first = self.position.step, chunk.start.step
        chunk.acked_sent = held if held < first else first

    # ------------------------------------------------------------------------------------------ outcomes

    def on_reply(self, chunk: Chunk, position: Position) -> Verdict:
        """Records that the server applied the chunk, now or earlier, and is at `position` after it."""
        if not self._count_outcome(chunk):
            return IGNORE
        if position != chunk.end:
            return self._fail(chunk, "HISTORY_CHANGED")
        return self._done(chunk)

    def on_error(self, chunk: Chunk, reason: str, position: Position | None = None) -> Verdict:
        """Records that the server refused the chunk, or that no answer came (LOST). position: the record's or None."""
        if not self._count_outcome(chunk):
            return IGNORE
        if reason in RETRIED:
            if reason not in NOT_APPLIED:
                chunk.uncertain = True
            return self._again(chunk)
        if reason == "STEP_GAP":
            return self._gap(chunk, position)
        if (reason == "STEP_COMPACTED" and chunk.held) or (reason in _WITHOUT_OUTPUTS and position == chunk.end):
            return self._done(chunk)
        if reason == "ACK_BEHIND" and chunk.acked_sent < chunk.start.step:
            return self._again(chunk)  # the resend acknowledges the replies that have arrived by then
        return self._fail(chunk, reason)

    def abandon(self, chunk: Chunk, reason: str) -> Verdict:
        """Records that the chunk's caller stopped waiting.

        A chunk that may have been applied becomes late, and the chunks after it stay. A chunk that cannot have been
        applied is dropped, with the chunks after it.
        """
        if chunk.late or chunk.state is _DROPPED or chunk.state is _DONE:
            return IGNORE
        if not chunk.may_be_applied or self._answered_after(chunk):
            settling = self._settling
            verdict = self._fail(chunk, reason)
            if not any(other.counted for other in verdict.failed):  # else their outcomes are awaited before sending
                self._settling = settling
            return verdict
        self._become_late(chunk)
        return Verdict(Action.FAIL, reason, (chunk,))

    def end(self) -> tuple[Chunk, ...]:
        """Drops every unanswered chunk. Returns them, oldest first."""
        dropped = tuple(chunk for chunk in self._open if not chunk.held)
        for chunk in dropped:
            chunk.uncertain, chunk.state = chunk.may_be_applied, _DROPPED
        self._open.clear()
        self.queued = self.late = 0
        return dropped

    def rewind(self, position: Position) -> Verdict:
        """Prepares a replay from `position`, where another call found the server, behind what this client knows.

        Returns FAIL, without chunks if none is open, if that is impossible.
        """
        if reason := self._reason_against(position):
            return self._fail(self._open[0], reason) if self._open else Verdict(Action.FAIL, reason)
        return Verdict(Action.REPLAY, replayed_steps=self._reopen(position.step))

    # ------------------------------------------------------------------------------------------ inside

    def _count_outcome(self, chunk: Chunk) -> bool:
        """Removes the chunk from those in flight. Returns False if its outcome no longer matters."""
        if not chunk.counted:
            return False
        chunk.counted = False
        self.in_flight -= 1
        return chunk.state is _IN_FLIGHT

    def _done(self, chunk: Chunk) -> Verdict:
        chunk.state = _DONE
        held = chunk.held
        chunk.held = True
        if chunk.late:
            self.late -= 1
        self._collect()
        if held:
            return COUNTED
        if self._open:
            self._pass_held()
        return DELIVER

    def _collect(self) -> None:
        while self._open and self._open[0].state is _DONE:
            chunk = self._open.popleft()
            if chunk.end.step > self.position.step:
                self.position = chunk.end
            self._replay_buffer.add(chunk)

    def _pass_held(self) -> None:
        """Advances the position over held replies: it does not wait for the resends of their chunks."""
        for chunk in self._open:
            if not chunk.held:
                return
            if chunk.end.step > self.position.step:
                self.position = chunk.end

    def _again(self, chunk: Chunk) -> Verdict:
        chunk.state = _QUEUED
        self.queued += 1
        self._resending = self._settling = True
        return RESEND

    def _gap(self, chunk: Chunk, position: Position | None) -> Verdict:
        if position is None or position.step >= chunk.start.step:
            return self._fail(chunk, "STEP_GAP")
        reason = self._reason_against(position)
        if reason:
            return self._fail(chunk, reason)
        self._again(chunk)
        return Verdict(Action.REPLAY, replayed_steps=self._reopen(position.step))

    def _reason_against(self, position: Position) -> str:
        """Returns why this history cannot continue from `position`; empty if it can."""
        if position.generation != self.position.generation:
            return "GENERATION_CHANGED"
        known = self._known(position.step)
        if known is None:
            return "HISTORY_LOST" if position.step < self.tail.step else "HISTORY_CHANGED"
        return "" if known == position else "HISTORY_CHANGED"

    def _known(self, step: int) -> Position | None:
        """Returns this history's position at `step`; None if the kept inputs do not reach that far."""
        if step == self.position.step:
            return self.position
        for chunk in reversed(self._open):
            if chunk.start.step <= step <= chunk.end.step:
                covered = (step - chunk.start.step) * self._step_bytes
                return chunk.start.advance(chunk.inputs[:covered], self._step_bytes)
        return self._replay_buffer.position_at(step)

    def _reopen(self, step: int) -> int:
        """Queues the answered inputs from `step` on, before everything else. Returns how many steps."""
        replayed = 0
        while (chunk := self._replay_buffer.pop()) is not None:
            if chunk.end.step <= step:
                self._replay_buffer.add(chunk)
                break
            if chunk.start.step < step:
                # The record ends inside an answered chunk (another client sent the same inputs in other chunks).
                covered = (step - chunk.start.step) * self._step_bytes
                middle = chunk.start.advance(chunk.inputs[:covered], self._step_bytes)
                self._replay_buffer.add(Chunk(chunk.inputs[:covered], chunk.start, middle))
                chunk = Chunk(chunk.inputs[covered:], middle, chunk.end)
                chunk.held = True
            chunk.state = _QUEUED
            self.queued += 1
            replayed += chunk.steps
            self._open.appendleft(chunk)
        self._resending = self._settling = True
        return replayed

    def _answered_after(self, chunk: Chunk) -> bool:
        """Returns True if a later chunk was answered, which proves that this one was applied."""
        return any(other.state is _DONE and other.start.step > chunk.start.step for other in self._open)

    def _become_late(self, chunk: Chunk) -> None:
        if not chunk.late:
            chunk.late = True
            self.late += 1

    def _fail(self, chunk: Chunk, reason: str) -> Verdict:
        """Fails a refused chunk and the chunks after it, which build on it.

        Answered chunks stay part of the history, and so does whatever an answered chunk builds on. What may have been
        applied stays too, and is late now.
        """
        self._settling = True
        if chunk.held:  # a replay failed: return to what is kept; the next step finds the gap again
            failed = tuple(other for other in self._open if not other.held)
            for other in self._open:
                if other.held:
                    other.state = _DONE
        elif self._answered_after(chunk):
            failed = (chunk,)
            self._done(chunk)
        else:
            failed = tuple(other for other in self._open if other.start.step >= chunk.start.step)
        if chunk.state is _IN_FLIGHT and not chunk.counted:  # that was its outcome
            chunk.state = _QUEUED
        # If no attempt of the refused chunk is open, the record lacks it, and so lacks those after it.
        self._drop(failed, keep=chunk.uncertain and reason not in FINAL)
        self._collect()
        self._pass_held()
        self.queued = sum(1 for other in self._open if other.state is _QUEUED)
        self._resending = True
        return Verdict(Action.FAIL, reason, failed)

    def _drop(self, failed: tuple[Chunk, ...], keep: bool) -> None:
        """Drops what failed; with `keep`, not the leading chunks that may have been applied."""
        for chunk in failed:
            if chunk.state is _DONE:
                continue
            if self._answered_after(chunk):
                self._done(chunk)
                continue
            keep = keep and chunk.may_be_applied
            if keep:
                self._become_late(chunk)
            else:
                chunk.state = _DROPPED
                if chunk.late:
                    self.late -= 1
        self._open = deque(chunk for chunk in self._open if chunk.state is not _DROPPED)
