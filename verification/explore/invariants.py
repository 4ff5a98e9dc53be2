"""The invariants: what the service promises, checked on the explored world.

What is checked at every event:

- an answer's outputs and position are the sequential model's for the history that the request named;
- it leaves only once the store holds that step (acknowledged means committed);
- the record is always the tuple of inputs that its position names: nothing lost, nothing twice, no hole;
- a generation that was replaced or deleted neither returns to the store nor answers a positioned step as success;
- a correct client is never refused for good, unless others use its session, the store lost commits, or the client was
  restarted between a call that ends or makes a generation and its reply, or while a step that it had given up was not
  settled; and then only for a reason that says so;
- a generation begins with what was asked for: nothing, the state that was set, that of the copied or carried position,
  or the window; in the version that was asked for;
- a restart of Redis, after a power cut or not, leaves every record as somebody may have been told it is; a record that
  was neither read nor written since the previous restart may also be what a commit lost at that restart made of it;
- every request is answered once;
- a read tells the state of a committed position, not older than the record was when the read arrived; it changes
  nothing (reads.py);
- nothing is sent to the store after its deadline;
- a step is computed by the version of its generation, and by one that the replica serves;
- a session that was used does not expire as if it had been idle, and each has the TTL that was asked for;
- a record's log never exceeds its limit.

From every state, a state can be reached in which nothing more can happen (search.py checks this of scopes that are
explored completely).

When nothing more can happen, also: every client is done or was told why not; no replica holds an unanswered request, or
anything else but cached states, each of which is that of its position;
what a client was told is in the store (unless the store lost it), and a steady pipeline has left a short log.

Accepted: a create lost in a power cut may return at the second restart after it, even after a delete that found
nothing; a late copy of a sequence's start, which names no generation, begins a session anew that has expired; a power
cut may cost a record its TTL until its next commit, so that it is there again if a cut loses its expiry, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellkeeper_service.core import generation_requests as wire
from cellkeeper_service.core.requests import Step, StepReply
from cellkeeper_service.domain.position import Position

from .call import call_name
from .client import MOVED_BY_OTHERS, UNSERVED, Client
from .replica import Replica, state_of
from .scope import CarryOver, Delete, Fork, Reset, SetState, items_of
from .sequential_model import Violation, consumed, learn, outputs_after, plain, unpack

if TYPE_CHECKING:
    from .channel import Channel
    from .universe import Universe


def check_answer(universe: Universe, channel: Channel, step: Step, reply: StepReply) -> None:
    """Checks a step's answer, whether or not anybody still waits for it. Raises Violation."""
    inputs = unpack(step.data)
    if step.position is not None:
        if learn(step.position, inputs) != reply.position:
            raise Violation(f"{channel.name} was applied to another history than its sender's")
        generation = step.position.generation
        if channel.ended and generation in universe.store.ledger.ended:
            raise Violation(f"{channel.name} succeeded in a generation that had ended")
    whole = consumed(reply.position)
    if plain(whole[len(whole) - step.steps :]) != inputs:
        raise Violation(f"{channel.name}: the position in its reply is that of {whole}")
    if reply.outputs["prediction"].tolist() != outputs_after(whole, step.steps):
        raise Violation(f"{channel.name}: its outputs are not those of {whole}")
    if reply.served.spec.fingerprint not in channel.served:
        raise Violation(f"{channel.name} is answered by a version that was not served when it arrived")
    if not universe.store.ledger.was_durable(reply.position.generation, whole):
        raise Violation(f"{channel.name} was acknowledged, but the store never held {whole}")


def check_generation(universe: Universe, channel: Channel, position: Position) -> None:
    """Checks the position to which a call has led: the store must have held it. Raises Violation."""
    inputs = consumed(position)
    if not universe.store.ledger.was_durable(position.generation, inputs):
        raise Violation(f"{channel.name} succeeded, but the store never held {inputs} in that generation")


def check_use(universe: Universe, channel: Channel) -> None:
    """Checks that the request, which succeeds, has kept its session alive. Raises Violation."""
    request = channel.request
    is_use = channel.recent and not isinstance(request, wire.Delete)
    if is_use and request is not None and universe.store.aged(request.key):
        raise Violation(f"{channel.name} has used the session, which expires as if it had been idle")


def check_refusal(universe: Universe, client: Client, reason: str, elsewhere: bool) -> None:
    """Checks the reason for which a client was refused for good. elsewhere: a replica served it. Raises Violation."""
    if reason == "OUTCOME_UNKNOWN":
        return
    allowed: set[str] = set()
    kinds = {type(one) for op in client.script for one in items_of(op)}
    if universe.scope.shared:
        allowed |= MOVED_BY_OTHERS | {"STEP_CONFLICT", "STEP_COMPACTED", "STEP_GAP"}
    if universe.fell_back:
        allowed |= MOVED_BY_OTHERS | {"HISTORY_LOST"}
        if client.restarts:  # an Open that insists on what is lost; a replay that meets its predecessor's
            # or that comes first, while the new process, which does not know what was lost, sends its next input there
            allowed |= {"STEP_GAP", "STEP_COMPACTED", "STEP_CONFLICT"}
        if kinds & {Fork, CarryOver}:
            allowed.add("STEP_GAP")  # a copy of what is lost, or its state, which the client would replay first
    if universe.expired:
        allowed |= {"SESSION_NOT_FOUND", "GENERATION_CHANGED"}
        if client.sequences:  # a late copy of its start has begun the expired session anew
            allowed |= {"STEP_CONFLICT", "STEP_COMPACTED", "STEP_GAP"}
    if universe.scope.two_versions and not elsewhere:
        allowed |= UNSERVED
    if client.forgot:  # what the previous process gave up was applied, and it continues with the next chunks
        allowed |= {"STEP_CONFLICT", "STEP_COMPACTED", "HISTORY_CHANGED"}
    if {Delete, Fork} <= kinds and (universe.scope.unknowns or universe.scope.slow or universe.scope.crashes):
        allowed.add("SESSION_EXISTS")  # a late copy of the first fork found the target deleted, and recreated it
    if client.restarts and kinds & {Reset, SetState, Delete, Fork, CarryOver}:
        allowed |= MOVED_BY_OTHERS
    if reason not in allowed:
        raise Violation(f"{client.name} made no mistake, but is refused for good: {reason}")


def check_cached(replica: Replica) -> None:
    """Checks the cached states of a replica at rest. Raises Violation."""
    for session in replica.core.context.sessions.values():
        if (cached := session.cached) is not None:
            if not cached.exists:
                raise Violation(f"{replica.name} has cached a generation of {session.key.session} that no record has")
            whole = consumed(cached.frontier)
            if state_of(cached) != (outputs_after(whole, 1) or [0])[-1]:
                raise Violation(
                    f"{replica.name} has cached a state of {session.key.session} that is not that of {whole}"
                )


def check_end(universe: Universe) -> None:
    """Checks the state in which nothing more can happen. Raises Violation."""
    for client in universe.clients:
        if not client.done:
            raise Violation(f"{client.name} is stuck at {call_name(client.op)}")
    for replica in universe.replicas:
        if replica.core.unanswered:
            raise Violation(f"{replica.name} holds {replica.core.unanswered} requests that it will never answer")
        if replica.holds_work:
            raise Violation(f"{replica.name} holds work that it will never do")
        if leftover := replica.leftover:
            raise Violation(f"{replica.name} still keeps {leftover}")
        check_cached(replica)
    held = universe.store.ledger.standing
    moved = universe.scope.shared or universe.fell_back or universe.expired
    for client in universe.clients:
        if moved or client.failed:
            continue
        for session, known in client.sessions.items():
            position = Position(*known.history.position)
            generation, inputs = next((v for k, v in held.items() if k.session == session), (b"", ()))
            told = consumed(position)
            if generation != position.generation or inputs[: len(told)] != told:
                raise Violation(f"{client.name} was told {told}, but the store has {inputs}")
        for session, told in client.sequences.items():
            _, inputs = next((v for k, v in held.items() if k.session == session), (b"", ()))
            if inputs[: len(told)] != told:
                raise Violation(f"{client.name} was told {told}, but the store has {inputs}")
    if universe.scope.steady:
        for key in universe.store.sessions():
            record = universe.store.record(key)
            logged = 0 if record is None else record.position.step - record.header.checkpoint_step
            if logged > universe.scope.steady:
                raise Violation(f"a steady pipeline leaves a log of {logged} steps in {key.session}")
