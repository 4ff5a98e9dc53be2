"""The late steps of one session."""

from __future__ import annotations

from collections import deque

from ..errors import CellkeeperError
from ..late_step import LateStep
from ..types import STATE_PREFIX, StepReply
from .chunk import Chunk, ChunkState
from .step_call import StepCall, with_late_step

MOST_UNREAD = 1024


class LateSteps:
    """The late steps of one session.

    unsettled: those whose outcome is unknown, oldest first; replaced as a whole, so that any thread may read it.
    generation: the latest; steps of others are older, and maybe of another version of the model.
    """

    def __init__(self, generation: bytes) -> None:
        self._generation = generation
        self.unsettled: tuple[LateStep, ...] = ()
        self._unread: deque[LateStep] = deque(maxlen=MOST_UNREAD)  # settled, but not reported yet

    def settle(self, step: LateStep, applied: bool | None, error: Exception | None = None) -> None:
        """Records the outcome; None: it will never be known."""
        step.applied, step.error = applied, error
        self.unsettled = tuple(other for other in self.unsettled if other is not step)
        self._unread.append(step)

    def take_settled(self) -> tuple[LateStep, ...]:
        """Returns those settled since the last call, oldest first; only the latest MOST_UNREAD."""
        if not self._unread:
            return ()
        generations = list(dict.fromkeys(step.position.generation for step in self._unread))
        generations.sort(key=lambda generation: generation == self._generation)
        by_step = sorted(self._unread, key=_place)  # the callers stop waiting in any order
        self._unread.clear()
        return tuple(sorted(by_step, key=lambda step: generations.index(step.position.generation)))

    def put_back(self, steps: tuple[LateStep, ...]) -> None:
        """Takes back what `take_settled` returned and nobody has read."""
        self._unread = deque((*steps, *self._unread), MOST_UNREAD)

    def abandoned(self, call: StepCall, chunk: Chunk, error: CellkeeperError) -> CellkeeperError:
        """Records that the caller stopped waiting for a chunk that was or may have been applied. Returns its error."""
        call.late = LateStep(chunk.end, chunk.steps, True if chunk.state is ChunkState.DONE else None)
        self._add(call.late)
        return with_late_step(error, call.late)

    def answered(self, call: StepCall, reply: StepReply) -> None:
        """Records that a step was applied whose caller has stopped waiting."""
        late = call.late
        if late is None:
            late = call.late = LateStep(reply.position, call.steps, True)
            self._add(late)
        else:
            self.settle(late, True)
        late.outputs = reply.outputs

    def unread(self, call: StepCall, reply: StepReply, steps: int | None) -> None:
        """Records that nobody has read the reply, which may have told of late steps. steps: the chunk's last time steps
        without a reader; None: all."""
        if steps is None or steps == call.steps:
            self.put_back(reply.late_steps)
            self.answered(call, reply)
        else:
            outputs = {
                name: rows if name.startswith(STATE_PREFIX) else rows[-steps:] for name, rows in reply.outputs.items()
            }
            self._add(LateStep(reply.position, steps, True, outputs))

    def ended(self, chunk: Chunk, error: CellkeeperError) -> None:
        """Ends a chunk whose session is closed, so that its outcome will never arrive."""
        call: StepCall | None = chunk.call
        chunk.call = None
        if call is None:
            return
        call.chunk = None
        if call.late is None:
            call.fail(self.abandoned(call, chunk, error) if chunk.may_be_applied else error)
        if call.late is not None:
            self.settle(call.late, None, error)

    def applied_without_reply(self, chunk: Chunk, error: CellkeeperError) -> None:
        """Records a chunk that the record includes but whose outputs the server can no longer compute."""
        call: StepCall = chunk.call
        chunk.call = call.chunk = None
        if call.late is None:
            call.fail(self.abandoned(call, chunk, error))
        else:
            self.settle(call.late, True, error)

    def _add(self, step: LateStep) -> None:
        if step.applied is None:
            # Not in the order of the callers: a stream gives up its newest step first.
            self.unsettled = tuple(sorted((*self.unsettled, step), key=_place))
        else:
            self._unread.append(step)


def _place(step: LateStep) -> int:
    return step.position.step
