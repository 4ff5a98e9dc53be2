"""Reading records: which lines want theirs, and what a reading makes of the hot copy."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import DamagedRecord, Load, Postponed, StoreError

from .desk import Desk
from .hotset import HotSet
from .limits import MAX_CALL_ITEMS
from .line import Line
from .requests import Step

log = logging.getLogger(__name__)


class Loading:
    def __init__(self, desk: Desk, hotset: HotSet) -> None:
        self._desk = desk
        self._hotset = hotset
        self._wanted: list[Line] = []
        self._alone: deque[Line] = deque()  # each to be read by itself
        self._alone_next = False

    def want(self, line: Line) -> None:
        line.loading = True
        line.load_started = self._desk.now()
        self._wanted.append(line)

    @property
    def wanted(self) -> bool:
        return bool(self._wanted or self._alone)

    def take(self) -> tuple[list[Line], list[Load]]:
        """A reading counts for the requests that had arrived when it was asked for."""
        if self._alone and (self._alone_next or not self._wanted):
            wanted = [self._alone.popleft()]
        else:
            wanted, self._wanted = self._wanted[:MAX_CALL_ITEMS], self._wanted[MAX_CALL_ITEMS:]
        self._alone_next = not self._alone_next
        lines = []
        for line in wanted:
            if line.queue:
                line.load_number = self._desk.arrivals
                lines.append(line)
            else:  # nobody waits for it any more
                line.loading = False
                self._desk.rest(line)
        return lines, [Load(line.key, any(request.touches for request in line.queue)) for line in lines]

    def loaded(self, lines: Sequence[Line], results: Sequence[Record | StoreError | None]) -> None:
        for line, result in zip(lines, results, strict=True):
            if isinstance(result, Postponed):
                (self._alone if result.alone else self._wanted).append(line)
                continue
            line.loading = False
            try:
                if isinstance(result, DamagedRecord):
                    self._read(line, None)
                    line.damage = result
                elif isinstance(result, StoreError):
                    self._not_read(line, result)
                else:
                    self._read(line, result)
            except Exception:
                log.exception("internal error: a session's request failed")
                self._hotset.unwind_broken(line, [one for one in line.queue if one.number <= line.load_number])
            self._desk.advance(line)
        self._hotset.feed()

    def _read(self, line: Line, record: Record | None) -> None:
        line.read, line.record, line.damage, line.read_number = True, record, None, line.load_number
        if line.hot is not None and (record is None or line.hot.frontier != record.position):
            self._hotset.drop(line)
            self._desk.meter.evicted(line.key.model, "stale")
        self._desk.meter.loaded(line.key.model, line.hot is not None)
        now = self._desk.now()
        for request in line.queue:
            if isinstance(request, Step) and request.number <= line.read_number:
                request.load_seconds = now - max(line.load_started, request.arrived)

    def _not_read(self, line: Line, error: StoreError) -> None:
        asked = [request for request in line.queue if request.number <= line.load_number]
        line.queue = deque(request for request in line.queue if request.number > line.load_number)
        for request in asked:
            self._desk.answer(request, self._desk.store_unavailable(str(error)))
