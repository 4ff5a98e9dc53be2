"""Decides what a step does on the store's record: the table of the protocol, row by row, in its order."""

from __future__ import annotations

from enum import Enum

from cellkeeper_service.domain.position import MAX_STEP, Position
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.errors import Reason, Rejection, invalid

from .models import Models
from .requests import Step
from .sequence import NO_GENERATION, has_ended


class Verdict(Enum):
    CREATE = "create"  # a new generation: neither record nor position, or the chunk starts the session anew
    APPLY = "apply"  # at the record's position
    REPLAY = "replay"  # applied before; gets the same outputs again


def decide(record: Record | None, step: Step, models: Models) -> Verdict | Rejection:
    """The table. record: the store's, read after `step` arrived."""
    sequence = step.sequence
    if sequence is not None and sequence.starts_over(None if record is None else record.header):
        doubtful = refuse_doubtful(record, step)
        return doubtful or (start_lost(record) if step.conflicts else Verdict.CREATE)
    if record is None:
        return not_found() if step.position is not None or step.peek or sequence is not None else Verdict.CREATE
    stands, asked = record.position, step.position_in(record)
    if sequence is not None:
        if not sequence.origin and (doubtful := refuse_doubtful(record, step)):
            return doubtful
        if step.in_doubt and asked is not None and asked.step > stands.step:
            return may_follow(stands)
    if asked is not None and asked.generation != stands.generation:
        return generation_changed(stands)
    if unserved := refuse_unserved(record, models):
        return unserved
    if step.rollout is not None and not models.rolls_out(record.header.fingerprint):
        return cannot_roll_out(step.rollout.steps)
    if asked is not None and (misplaced := refuse_misplaced(record, asked)):
        return misplaced
    if asked is None or asked.step == stands.step:
        over = not_found() if sequence is not None and has_ended(record.header.origin) else None
        return beyond_the_last(stands, step) or over or Verdict.APPLY
    if step.rollout is not None:
        text = f"rollout_steps: the session is at step {stands.step}; a rollout starts at the session's step"
        return Rejection(Reason.STEP_CONFLICT, text, field="rollout_steps", position=stands)
    end = asked.step + step.steps
    if end <= stands.step and record.inputs(asked.step, end) == step.data:
        return Verdict.REPLAY
    return not_those(record, asked.step, step)


def not_those(record: Record, first: int, step: Step) -> Rejection:
    """Refuses a chunk that begins at the earlier step `first`, and whose inputs are not all the record's."""
    stands, end = record.position, first + step.steps
    text = f"steps {first}..{end - 1}: other inputs were applied there; the session is at step {stands.step}"
    if end > stands.step and step.data.startswith(record.inputs(first, stands.step)):
        text = (
            f"steps {first}..{end - 1}: the session has these inputs up to step {stands.step} already, and lacks the "
            "others; send them in another chunk"
        )
    return Rejection(Reason.STEP_CONFLICT, text, field="inputs", position=stands)


def start_lost(record: Record | None) -> Rejection:
    """Refuses a chunk that starts the session anew after its commit lost against another writer's. Decided again, it
    would end a generation that its sender may not know, with acknowledged steps in it."""
    text = "another writer changed the session while this request restarted it; nothing was applied"
    return Rejection(Reason.COMMIT_CONFLICT, text, position=None if record is None else record.position)


def refuse_doubtful(record: Record | None, step: Step) -> Rejection | None:
    """Refuses a chunk that an unanswered commit may have applied in a generation that another writer has ended since.
    This record cannot tell, and decided again the chunk might be applied twice. A missing record tells nothing, either,
    if one has stood in the way of a later commit."""
    generation = NO_GENERATION if record is None else record.position.generation
    gone = record is None and step.conflicts > 0
    if not step.in_doubt or (generation in step.in_doubt and not gone):
        return None
    text = "the store did not answer, and the session was restarted meanwhile: the step may have been applied"
    return Rejection(Reason.OUTCOME_UNKNOWN, text, position=None if record is None else record.position)


def may_follow(stands: Position) -> Rejection:
    """Refuses a chunk ahead of the record: its commit, which carried the chunks before it too, was not answered and may
    still reach the store."""
    text = f"the store did not answer, and the session is at step {stands.step}: the step may still be applied"
    return Rejection(Reason.OUTCOME_UNKNOWN, text, position=stands)


def beyond_the_last(stands: Position, step: Step) -> Rejection | None:
    """Refuses a chunk that goes beyond the last step that a session can have."""
    if step.peek or stands.step + step.steps <= MAX_STEP:
        return None
    text = f"inputs: got {step.steps} time steps at step {stands.step}, expected none after step {MAX_STEP}; reset it"
    return Rejection(Reason.INVALID_FIELD, text, field="inputs", position=stands)


def refuse_misplaced(record: Record, asked: Position) -> Rejection | None:
    """Returns None if `asked` is a point of this record's history from its checkpoint on."""
    stands = record.position
    if asked.generation != stands.generation:
        return generation_changed(stands)
    if asked.step > stands.step:
        text = f"position.step: got {asked.step}, but the session is at step {stands.step}"
        return Rejection(Reason.STEP_GAP, text, field="position.step", position=stands)
    if asked.step < record.header.checkpoint_step:
        text = (
            f"position.step: got {asked.step}, but the log starts at step {record.header.checkpoint_step}, and older "
            "steps can be neither checked nor computed again; open the session again"
        )
        return Rejection(Reason.STEP_COMPACTED, text, field="position.step", position=stands)
    if asked.head != record.head_at(asked.step):
        text = f"position.head: at step {asked.step} the session has consumed other inputs than the sender's"
        return Rejection(Reason.HISTORY_CHANGED, text, field="position.head", position=stands)
    return None


def refuse_unserved(record: Record, models: Models) -> Rejection | None:
    """Returns None if a served version of the model may continue this record."""
    header = record.header
    served = models.find(header.fingerprint)
    if served is None:
        return model_changed(header, models)
    if header.numerics != served.numerics and not models.accepts_other_numerics:
        return Rejection(
            Reason.NUMERICS_CHANGED,
            f"the session was computed with other numerics than this server's ({served.engine.numerics}); "
            "continue it on a server of its own kind, or start this one with --accept-other-numerics",
            position=header.position,
        )
    if len(record.checkpoint) != served.spec.state_bytes or header.step_bytes != served.spec.step_bytes:
        return Rejection(
            Reason.DATA_LOSS,
            f"the session's record is damaged: it has a state of {len(record.checkpoint)} bytes and steps of "
            f"{header.step_bytes}, expected {served.spec.state_bytes} and {served.spec.step_bytes}; reset or delete it",
            position=header.position,
        )
    return None


def model_changed(header: Header, models: Models) -> Rejection | None:
    """Returns None if the record's version is served."""
    if models.find(header.fingerprint) is not None:
        return None
    return Rejection(
        Reason.MODEL_CHANGED,
        f"the session belongs to model version {header.fingerprint.hex()[:12]}, which is not served; "
        "reset it, or carry it over to the served version",
        position=header.position,
    )


def not_found() -> Rejection:
    text = "session: no such session (never opened, deleted or expired)"
    return Rejection(Reason.SESSION_NOT_FOUND, text, field="session")


def generation_changed(stands: Position) -> Rejection:
    text = f"position.generation: the session has another generation now, at step {stands.step}"
    return Rejection(Reason.GENERATION_CHANGED, text, field="position.generation", position=stands)


def cannot_roll_out(steps: int) -> Rejection:
    """Refuses a forecast of a model that does not say what becomes of its predictions."""
    expected = (
        'none, or a model whose config.json has "feedback": for each input feature the index of the predicted value '
        'that it becomes, or "known"; for token ids "argmax", with one predicted value for each id'
    )
    return invalid("rollout_steps", steps, expected)
