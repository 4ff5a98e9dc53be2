"""Carrying sessions over to another version: what has to be computed for it, in ticks like everything else."""

from __future__ import annotations

from cellkeeper_service.core.carry_over import carried, kept_at, target_of
from cellkeeper_service.core.lifecycle import new_header
from cellkeeper_service.domain.origin import origin_of
from cellkeeper_service.domain.position import advance, first_position

from .committing import Committing
from .desk import Desk
from .hot import Hot
from .hotset import HotSet
from .line import Changing, Line
from .planner import enqueue
from .requests import CarryOver
from .run import Collect, Kind, Run
from .served import Served
from .tick import NO_OUTPUTS


class Carrying:
    def __init__(self, desk: Desk, hotset: HotSet, committing: Committing) -> None:
        self._desk = desk
        self._hotset = hotset
        self._committing = committing

    def start_keep(self, line: Line, hot: Hot, request: CarryOver) -> None:
        """hot: the session's, where its record stands."""
        self._start(Run(line, hot, Kind.KEEP, b"", 0, [Collect(request, 0, 0)], NO_OUTPUTS))

    def start_rerun(self, line: Line, request: CarryOver, target: Served) -> bool:
        """In a slot of the new version's, in place of the line's hot copy. False: every slot is at work."""
        self._hotset.drop(line)
        start = first_position(self._desk.mint())
        header = new_header(
            target, start, origin_of(request.request_id, request.content), 0, self._desk.clock.wall_ms()
        )
        hot = self._hotset.install(line, target, header, target.engine.initial_state)
        if hot is None:
            return False
        hot.exists = False
        collects = [Collect(request, 0, request.steps)]
        self._start(Run(line, hot, Kind.RERUN, request.data, request.steps, collects, NO_OUTPUTS))
        return True

    def _start(self, run: Run) -> None:
        run.line.run = run
        enqueue(run, self._desk.limits.tick)

    def finish(self, run: Run) -> None:
        """The state is there: another life begins with it, once that is committed."""
        line, record, collect = run.line, run.line.record, run.collects[0]
        request, state = collect.request, collect.state
        if record is None or state is None or not isinstance(request, CarryOver):
            raise RuntimeError("a session is carried over whose record or state was forgotten")
        target = target_of(request, self._desk.models[line.key.model])
        if run.kind is Kind.KEEP:
            at = kept_at(record, self._desk.mint())
        else:
            at = advance(run.hot.header.position, request.data, target.spec.step_bytes)
        write = carried(record, request, target, at, state, self._desk.clock.wall_ms())
        self._hotset.drop(line)
        self._committing.add(line, Changing(request, write))
