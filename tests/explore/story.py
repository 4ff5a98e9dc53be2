"""A history as a reader can follow it."""

from __future__ import annotations

from typing import Any

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.errors import Rejection
from cellkeeper_service.sessions import requests as wire
from cellkeeper_service.sessions.cohort import CohortCall

from .events import Event
from .scope import Scope
from .search import explain
from .truth import origin_of, unpack
from .universe import Universe


def story(scope: Scope, events: list[Event]) -> list[str]:
    """One line an event; the last one says what broke, if something does."""
    universe, lines = Universe(scope), []
    for event in events:
        lines.append(tell(universe, event))
        try:
            universe.do(event)
        except Exception as error:  # noqa: BLE001 - it is the end of the story, whatever it is
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
            return f"one frame takes {', '.join(f'{what} of c{index}' for index, what in rest[0])} to {rest[1]}"
        case "slow":
            return f"c{rest[0]} sends {rest[1]}, which takes its time"
        case "arrive":
            channel: Any = universe.slow[rest[0]].done
            return f"the slow {channel.name} arrives at {rest[1]}"
        case "hear":
            answer = next(one for one in universe.answers if (one.player, one.name) == (rest[0], rest[1]))
            return f"c{rest[0]} hears of {rest[1]}: {_result(answer.result)}"
        case "timeout":
            return f"c{rest[0]} hears nothing of {rest[1]} and stops waiting"
        case "give_up":
            return f"c{rest[0]}'s caller gives up"
        case "restart":
            return f"c{rest[0]} dies and starts anew"
        case "crash":
            return f"{rest[0]} dies and starts anew"
        case "read" | "loaded" | "unread":
            read = universe.node(rest[0]).reads[rest[1]]
            what = {"read": "reads", "loaded": "has read", "unread": "fails to read"}[kind]
            return f"{rest[0]} {what} {read.loads[0].key.session}"
        case "compute":
            return f"{rest[0]} computes " + ", ".join(sorted(_computed(universe.node(rest[0]).calls[0])))
        case "land" | "landed" | "unknown" | "refuse":
            write = universe.node(rest[0]).writes[rest[1]]
            call = _calls(write.calls)
            if kind == "land":
                return f"{rest[0]}'s script reaches the store: {call}"
            if kind == "landed":
                outcome = ", ".join(one.outcome.value for one in write.results) if write.results else "done"
                return f"{rest[0]} hears from the store: {call}: {outcome}"
            if kind == "refuse":
                return f"the store refuses {rest[0]}'s {call}"
            fate = "landed" if write.results else "is still on its way"
            return f"{rest[0]} hears nothing from the store; its script ({call}) {fate}"
        case "late":
            return f"the late script reaches the store: {_calls(universe.late[rest[0]].calls)}"
        case "fall_back":
            return f"the store fails over and loses its last {rest[0]} commit(s){' of ' + rest[1] if rest[1] else ''}"
        case "power_cut":
            return _power_cut(universe, *rest)
    return str(event)


def _power_cut(universe: Universe, lost: int, writes: int) -> str:
    if not lost:
        return "Redis starts anew"
    unit = universe.store.file.units[-lost]
    what = f"power is lost; of the append-only file the last {lost} script(s) are missing"
    if writes < 0:
        return what
    left = ", ".join(write.command.value for write in unit.writes[:writes]) or "nothing"
    return f"{what}, but of the first of these there is an open MULTI with {left}"


def _calls(calls: list[Any]) -> str:
    return "; ".join(_call(call) for call in calls)


def _computed(call: Any) -> list[str]:
    if isinstance(call, Batch):
        return [_work(state) for state in call.states]
    if isinstance(call, CohortCall):
        taken = [frame.columns.steps[item] for frame in call.cohorts for item in frame.items]  # type: ignore[attr-defined]
        return [f"{step.key.session} in a frame {_inputs(unpack(step.data))}" for step in taken]
    return [_run(run) for run in call.runs]


def _run(run: Any) -> str:
    return f"{run.line.key.session} {run.kind.value} {_inputs(unpack(run.data))}"


def _work(state: Any) -> str:
    work = state.work
    return f"{state.session.key.session} {type(work).__name__.lower()} {_inputs(unpack(work.inputs))}"


def _inputs(inputs: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(value) for value in inputs) + "]"


def _at(position: Position | None) -> str:
    if position is None:
        return "nothing"
    origin = origin_of(position.head)
    named = "?" if origin is None else _inputs(origin.inputs)
    return f"g{position.generation.lstrip(bytes(1)).hex() or '0'}:{position.step} {named}"


def _call(call: Any) -> str:
    if not isinstance(call, Commit):
        return f"delete {call.key.session} of g{call.generation.lstrip(bytes(1)).hex()}"
    header = call.header
    how = "append" if call.checkpoint is None else f"checkpoint at {header.checkpoint_step}"
    return (
        f"{call.key.session}: {_at(call.expected.position if call.expected else None)} -> {_at(header.position)}, {how}"
    )


def _result(result: Any) -> str:
    if isinstance(result, Rejection):
        return f"{result.reason.name}, the record stands at {_at(result.position)}"
    if isinstance(result, wire.StepReply):
        return f"done{', again' if result.replayed else ''}, at {_at(result.position)}"
    if isinstance(result, wire.OpenReply):
        return f"{'created' if result.created else 'continues'} at {_at(result.header.position)}"
    if isinstance(result, wire.Moved):
        return f"at {_at(result.position)}"
    if isinstance(result, wire.Deleted):
        return "deleted" if result.deleted else "nothing to delete"
    return str(result)
