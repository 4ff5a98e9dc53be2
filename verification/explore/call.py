"""What a client of the explored world sends: steps, and the calls of its script."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellkeeper_service.core import generation_requests
from cellkeeper_service.core import requests as wire
from cellkeeper_service.core.generation_requests import Policy
from cellkeeper_service.core.requests import Request
from cellkeeper_service.core.sequence import Sequenced
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import SessionKey

from .scope import Append, CarryOver, Delete, Follow, Fork, GetState, Many, Open, Peek, Reset, SetState, Start
from .sequential_model import pack, state_after

FOREVER = 1e18
PREDICTION = frozenset(["prediction"])


def session_key(session: str) -> SessionKey:
    return SessionKey("", "m", session)


def step_request(session: str, done: Any, raw: bytes, position: Position | None, acked: int | None) -> wire.Step:
    return wire.Step(session_key(session), FOREVER, done, raw, len(raw) // 4, position, acked, False, PREDICTION, False)


def call_request(op: Any, done: Any, request_id: bytes, at: Position | None, expect: Position | None) -> Request:
    """Returns the request of an operation that is no Steps. at: the client's position in the session; None: it does not
    have the session. expect: on what history an Open insists."""
    key = session_key(op[0])
    match op:
        case Append():
            return step_request(op.session, done, pack((op.value,)), None, None)
        case Peek():
            return _peek(op, done, at)
        case GetState():
            return wire.GetState(key, FOREVER, done)
        case Start() | Follow():
            step = step_request(op.session, done, pack((op.value,)), None, None)
            starts = isinstance(op, Start)
            step.sequence = Sequenced(request_id if starts else b"", 0 if isinstance(op, Start) else op.step)
            return step
        case Open():
            return generation_requests.Open(key, FOREVER, done, request_id, expect, op.ttl_ms, None)
    if at is None:
        raise LookupError(f"{op} needs a session that the client does not have")
    match op:
        case Reset():
            return generation_requests.Reset(key, FOREVER, done, at.generation, request_id)
        case SetState():
            how = request_id, len(op.inputs), state_after(op.inputs)
            return generation_requests.SetState(key, FOREVER, done, at.generation, *how)
        case CarryOver():
            policy = Policy.RERUN if op.window else Policy.RESET if op.reset else Policy.KEEP
            what = bytes([op.version]) * 32, policy, pack(op.window), len(op.window), b""
            known = at if policy is Policy.KEEP else None
            return generation_requests.CarryOver(key, FOREVER, done, at.generation, request_id, *what, known)
        case Delete():
            return generation_requests.Delete(key, FOREVER, done, at.generation)
        case Fork():
            target = session_key(op.target)
            return generation_requests.Fork(key, FOREVER, done, target, at, request_id, ttl_ms=op.ttl_ms)
    raise TypeError(f"no request for {op}")


def _peek(op: Peek, done: Any, at: Position | None) -> wire.Step:
    step = step_request(op.session, done, pack((op.value,)), at, None)
    step.peek = step.wants_state = True
    if op.rolled:
        step.rollout = wire.Rollout(op.rolled, np.zeros((op.rolled, 0), np.int32))
    return step


def call_name(op: Any) -> str:
    """Returns the name of a call in a story."""
    match op:
        case Many(items):
            return " and ".join(map(call_name, items))
        case Open(session, int(ttl_ms)):
            return f"open {session} with a TTL of {ttl_ms} ms"
        case Fork(source, target, int(ttl_ms)):
            return f"fork {source} to {target} with a TTL of {ttl_ms} ms"
        case Append():
            return f"append {op.value} to {op.session}"
        case Start():
            return f"start {op.session} with {op.value}"
        case Follow():
            return f"step {op.step} of {op.session}: {op.value}"
        case Fork():
            return f"fork {op.source} to {op.target}"
        case SetState():
            return f"set-state of {op.session} to that after {list(op.inputs)}"
        case CarryOver():
            how = f" by the window {list(op.window)}" if op.window else " by a reset" if op.reset else ""
            return f"carry-over of {op.session} to version {op.version}{how}"
        case Peek():
            return f"{'forecast' if op.rolled else 'peek'} of {op.session} with {op.value}"
        case GetState():
            return f"read of {op.session}"
    return f"{type(op).__name__.lower()} {op[0]}"
