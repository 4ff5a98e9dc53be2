"""Answers on their way from the replicas to the clients, and the checks of what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellkeeper_service.core.generation_requests import Moved, OpenReply
from cellkeeper_service.core.requests import Step, StepReply
from cellkeeper_service.errors import Rejection

from tests.unit.core.counting_engine import POISON

from . import invariants, reads
from .call import call_name
from .channel import Answer, Channel
from .client import Client
from .scope import CarryOver, items_of

if TYPE_CHECKING:
    from .universe import Universe


def check(universe: Universe, channel: Channel, result: Any) -> None:
    """Checks a replica's answer, whether or not anybody still waits for it. Raises Violation."""
    request = channel.request
    if not isinstance(result, Rejection):
        invariants.check_use(universe, channel)
    if channel.before is not None:
        reads.check_answer(universe, channel, channel.before, result)
    elif isinstance(result, StepReply) and isinstance(request, Step):
        invariants.check_answer(universe, channel, request, result)
    elif isinstance(result, Moved):
        invariants.check_generation(universe, channel, result.position)
    elif isinstance(result, OpenReply):
        invariants.check_generation(universe, channel, result.header.position)


def send(universe: Universe, channel: Channel, result: Any) -> None:
    """Sends an answer to the client that waits for it; that to a call with several items once there is one for each."""
    attempt = universe.clients[channel.client].waiting[channel.ticket]
    if attempt.calls:
        attempt.results[channel.name] = result
        names = [call_name(item) for item in attempt.calls]
        if attempt.results.keys() < set(names):
            return
        result = [attempt.results[name] for name in names]
    universe.answers.append(Answer(channel.client, channel.ticket, attempt.name, result))


def receive(universe: Universe, client: Client, answer: Answer) -> None:
    """Lets the client receive the answer, and checks why it is refused for good, if it is. Raises Violation."""
    attempt = client.waiting[answer.ticket]
    ops = attempt.calls or items_of(client.op)
    results = answer.result if isinstance(answer.result, list) else [answer.result]
    client.elsewhere = frozenset()
    if universe.scope.two_versions and any(isinstance(result, Rejection) for result in results):
        versions = {op[0]: op.version for op in ops if isinstance(op, CarryOver)} if not attempt.chunk else {}
        sessions = [attempt.session] if attempt.session else [op[0] for op in ops]
        client.elsewhere = frozenset(one for one in sessions if _is_served(universe, one, versions.get(one)))
    before, failed = client.refused.keys() - (), client.failed
    client.receive(answer.ticket, answer.result)
    if client.failed != failed:
        invariants.check_refusal(universe, client, client.failed, bool(client.elsewhere))
    for session in client.refused.keys() - before:
        reason = client.refused[session]
        item = next(op for op in ops if op[0] == session)
        if reason != "NON_FINITE_RESULT" or POISON not in getattr(item, "window", ()):
            invariants.check_refusal(universe, client, reason, session in client.elsewhere)


def _is_served(universe: Universe, session: str, version: int | None) -> bool:
    """Returns whether a replica has the session's version, and the one to which it is to be carried over."""
    keys = [key for key in universe.store.sessions() if key.session == session]
    records = [record for key in keys if (record := universe.store.record(key)) is not None]
    needed = {record.header.fingerprint for record in records}
    if version is not None:
        needed.add(bytes([version]) * 32)
    return any(needed <= replica.served for replica in universe.replicas)
