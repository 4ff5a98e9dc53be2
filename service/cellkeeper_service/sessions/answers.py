"""What a finished run says to whoever sent its chunk."""

from __future__ import annotations

from cellkeeper_service.domain.position import Position
from cellkeeper_service.errors import Reason, Rejection

from .hot import Hot
from .requests import Step, StepReply
from .run import Collect, Run


def non_finite(run: Run, step: Step, position: Position | None) -> Rejection:
    if run.at < step.steps:
        text = "inputs: the output or the state would not be finite; the session stays where it is"
        return Rejection(Reason.NON_FINITE_RESULT, text, field="inputs", position=position)
    text = f"rollout_steps: the output or the state would not be finite at rolled time step {run.at - step.steps}"
    return Rejection(Reason.NON_FINITE_RESULT, text, field="rollout_steps", position=position)


def reply_of(
    step: Step, collect: Collect, hot: Hot, after: Position, *, created: bool = False, replayed: bool = False
) -> StepReply:
    queued_seconds = max(step.started_at - step.arrived, 0.0)
    computed_seconds = max(step.computed_at - step.started_at, 0.0)
    return StepReply(
        hot.served,
        collect.outputs(),
        collect.state,
        after,
        created,
        replayed,
        queued_seconds,
        computed_seconds,
    )
