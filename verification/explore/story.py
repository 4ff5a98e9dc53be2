"""Tells a history in a form that a reader can follow."""

from __future__ import annotations

from typing import Any

from cellkeeper_service.core import generation_requests
from cellkeeper_service.core import requests as wire
from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.requests import LogReplay
from cellkeeper_service.core.session import CachedState
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.errors import Rejection

from .events import Event
from .scope import Scope
from .search import explain
from .sequential_model import VERSION, generation_name, origin_of, unpack
from .universe import Universe


def story(scope: Scope, events: list[Event]) -> list[str]:
    """Returns one line for each event; the last line says what broke, if anything."""
    universe, lines = Universe(scope), []
    for event in events:
        lines.append(tell(universe, event))
        try:
            universe.do(event)
        except Exception as error:  # noqa: BLE001 - any exception ends the story
            return [*lines, f"=> {explain(error)}"]
    if not universe.events():
        try:
            universe.finish()
        except Exception as error:  # noqa: BLE001
            lines.append(f"=> {explain(error)}")
    return lines


def tell(universe: Universe, event: Event) -> str:
    kind, *rest = event
    match kind:
        case "send":
            return f"c{rest[0]} sends {rest[1]} to {rest[2]}"
        case "frame":
            return f"one frame carries {', '.join(f'{what} of c{index}' for index, what in rest[0])} to {rest[1]}"
        case "slow":
            return f"c{rest[0]} sends {rest[1]}, which is delayed"
        case "arrive":
            late = " and ".join(request.done.name for request in universe.slow[rest[0]])  # type: ignore[attr-defined]
            return f"the delayed {late} arrives at {rest[1]}"
        case "receive":
            answer = next(one for one in universe.answers if (one.client, one.name) == (rest[0], rest[1]))
            return f"c{rest[0]} receives the reply to {rest[1]}: {_result(answer.result)}"
        case "timeout":
            return f"c{rest[0]} receives no reply to {rest[1]} and stops waiting"
        case "give_up":
            return f"c{rest[0]}'s caller stops waiting: its deadline has passed"
        case "restart":
            return f"c{rest[0]} crashes and restarts"
        case "crash":
            return f"{rest[0]} crashes and restarts"
        case "read" | "loaded" | "unread":
            read = universe.replica(rest[0]).reads[rest[1]]
            session = " and ".join(load.key.session for load in read.loads)
            if kind == "read":
                return f"the store reads the record of {session} for {rest[0]}"
            if kind == "unread":
                return f"{rest[0]} could not read the record of {session}"
            return f"{rest[0]} receives the record of {session}"
        case "compute":
            return f"{rest[0]} computes " + ", ".join(sorted(_computed(universe.replica(rest[0]).batches[0])))
        case "apply" | "answered" | "unknown" | "refuse":
            write = universe.replica(rest[0]).writes[rest[1]]
            call = _calls(write.calls)
            if kind == "apply":
                return f"the store executes {rest[0]}'s {call}"
            if kind == "answered" and write.results:
                outcome = ", ".join(one.outcome.value for one in write.results)
                return f"{rest[0]} receives the store's answer: {outcome}"
            if kind == "answered":
                return f"the store executes and answers {rest[0]}'s {call}"
            if kind == "refuse":
                return f"the store refuses {rest[0]}'s {call}"
            if write.results:
                return f"the store's answer to {rest[0]}'s {call} is lost"
            return f"{rest[0]} receives no answer from the store; its {call} is still on its way"
        case "overdue" | "gone":
            asked: Any = universe.replica(rest[0]).requests[rest[1]].done
            if kind == "gone":
                return f"the caller of {asked.name} goes away, and {rest[0]} notices"
            return f"the deadline of {asked.name} passes"
        case "idle":
            return f"nobody uses {rest[0]} for nearly its TTL"
        case "expired":
            return f"{rest[0]} expires"
        case "lapsed":
            return f"the TTL of {rest[0]} passes, and Redis does not notice yet"
        case "exchange":
            return f"{rest[0]} serves version {' and '.join(map(str, rest[1]))} from now on"
        case "expire":
            return f"{rest[0]} looks for what nobody waits for any more"
        case "late":
            return f"the store executes the {_calls(universe.late[rest[0]].calls)}, which was still on its way"
        case "fall_back":
            of_one = f" of {rest[1]}" if rest[1] else ""
            return f"the store fails over and loses its last {_counted(rest[0], 'commit')}{of_one}"
        case "power_cut":
            return _power_cut(universe, *rest)
    return str(event)


def _power_cut(universe: Universe, lost: int, writes: int) -> str:
    if not lost:
        return "Redis restarts"
    unit = universe.store.file.units[-lost]
    what = f"power is lost, and with it the last {_counted(lost, 'script run')} in the append-only file"
    if writes < 0:
        return what
    left = ", ".join(write.command.value for write in unit.writes[:writes]) or "nothing"
    cut = "it" if lost == 1 else "the first of these"
    return f"{what}; of {cut}, an open MULTI with {left} remains"


def _counted(count: int, what: str) -> str:
    return what if count == 1 else f"{count} {what}s"


def _calls(calls: list[Any]) -> str:
    return "; ".join(_call(call) for call in calls)


def _computed(batch: Batch) -> list[str]:
    return [_work(state) for state in batch.states]


def _work(state: CachedState) -> str:
    work = state.work
    if work is None:
        raise RuntimeError("a batch holds a state on which nothing is computed")
    if isinstance(work, wire.GetState):
        return f"nothing, and reads the state of {state.session.key.session}"
    what = "the log of" if isinstance(work, LogReplay) else "on"
    return f"{_inputs(unpack(work.inputs))} {what} {state.session.key.session}"


def _inputs(inputs: tuple[int, ...]) -> str:
    named = (str(value % VERSION) + "'" * (value // VERSION) for value in inputs)  # 12' is of version 2
    return "[" + ", ".join(named) + "]"


def _at(position: Position | None) -> str:
    if position is None:
        return "nothing"
    origin = origin_of(position.head)
    named = "?" if origin is None else _inputs(origin.inputs)
    return f"{generation_name(position.generation)}:{position.step} {named}"


def _call(call: Any) -> str:
    if not isinstance(call, Commit):
        return f"delete of {call.key.session} {generation_name(call.generation)}"
    header = call.header
    how = "append" if call.checkpoint is None else f"checkpoint at {header.checkpoint_step}"
    expected = _at(call.expected.position if call.expected else None)
    return f"commit of {call.key.session} from {expected} to {_at(header.position)}, {how}"


def _result(result: Any) -> str:
    if isinstance(result, list):
        return "; ".join(map(_result, result))
    if isinstance(result, Rejection):
        return f"{result.reason.name}, the record is at {_at(result.position)}"
    if isinstance(result, wire.StepReply):
        return f"{'replayed' if result.replayed else 'done'}, at {_at(result.position)}"
    if isinstance(result, wire.StateReply):
        return f"the state at {_at(result.position)}"
    if isinstance(result, generation_requests.OpenReply):
        return f"{'created' if result.created else 'continues'} at {_at(result.header.position)}"
    if isinstance(result, generation_requests.Moved):
        return f"at {_at(result.position)}"
    if isinstance(result, generation_requests.Deleted):
        return "deleted" if result.deleted else "nothing to delete"
    return str(result)
