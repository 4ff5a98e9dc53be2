"""Which sessions are hot: slots are given, taken back, and waited for here."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

from cellkeeper_service.core.lifecycle import new_header
from cellkeeper_service.domain.position import first_position
from cellkeeper_service.domain.record import NO_ORIGIN, Header, Record

from .desk import Desk
from .hot import Checkpoint, Hot
from .line import Line
from .requests import Request
from .run import Kind
from .served import Served


class HotSet:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def install(self, line: Line, served: Served, header: Header, state: bytes) -> Hot | None:
        """Makes the line hot at a record that stands at `header`; `state` is that of the record's checkpoint.

        None: every slot is at work. The line waits for one, and is advanced again when one may be free.
        """
        hot = self.install_if_room(line, served, header, state)
        if hot is None:
            line.starved = True
            served.starved.append(line)
        return hot

    def install_if_room(self, line: Line, served: Served, header: Header, state: bytes) -> Hot | None:
        """The same for a line that does not need its slot yet: it does not wait for one."""
        slot = None if served.retired else self._take_slot(line, served)
        if slot is None:
            return None
        line.hot = Hot(served, slot, header, True, seed=state)
        return line.hot

    def install_record(self, line: Line, served: Served, record: Record) -> Hot | None:
        return self.install(line, served, record.header, record.checkpoint)

    def create(self, line: Line, served: Served) -> Hot | None:
        """A new generation that has no record before its first commit, which writes this checkpoint."""
        start = first_position(self._desk.mint())
        header = new_header(served, start, NO_ORIGIN, self._desk.limits.default_ttl_ms, self._desk.clock.wall_ms())
        hot = self.install(line, served, header, served.engine.initial_state)
        if hot is not None:
            hot.exists, hot.created = False, True
            hot.checkpoint = Checkpoint(start.step, start.head, served.engine.initial_state, bytearray())
        return hot

    def drop(self, line: Line) -> None:
        """The line is cold from here on; what is being computed for it will not count."""
        hot, run = line.hot, line.run
        if hot is None:
            return
        line.hot = line.run = None
        hot.served.slots.disown(line)
        if run is not None:
            run.cancelled = True
        if run is None or not run.in_call:
            hot.served.slots.free(hot.slot)

    def unwind(self, line: Line) -> list[Request]:
        """Drops the hot copy, and gives back the requests computed or being computed on it, in their order."""
        requests: list[Request] = [item.request for item in line.pending]
        line.pending = []
        if line.run is not None and line.run.kind is Kind.CHUNK:
            requests.append(line.run.collects[0].request)
        self.drop(line)
        return requests

    def unwind_broken(self, line: Line, broken: Sequence[Request]) -> None:
        """After an exception in what was done for these requests: they fail, and the session goes on from its
        record."""
        fails = set(map(id, broken))
        line.queue = deque(request for request in line.queue if id(request) not in fails)
        behind = [request for request in self.unwind(line) if id(request) not in fails and not request.answered]
        self._desk.requeue(line, behind)
        line.forget_reading()
        self._desk.answer_broken(broken)

    def drop_unborn(self, line: Line) -> None:
        """Drops a copy whose generation nobody has seen and whose creation did not come to a commit."""
        if line.hot is not None and not line.hot.exists and not line.pending and not line.flight:
            self.drop(line)

    def feed(self) -> None:
        """Lets lines that wait for a slot try again."""
        for served in self._desk.served():
            for _ in range(len(served.starved)):
                line = served.starved.popleft()
                line.starved = False
                self._desk.advance(line)
                if line.starved:
                    if served.starved[-1] is line:
                        served.starved.rotate(1)  # it keeps its place
                    break

    def clear_retired(self) -> None:
        """Lets go what is hot on versions that retire, as far as nothing is under way there, and such versions
        themselves once they are at rest."""
        for models in self._desk.models.values():
            for served in list(models.retiring):
                for line in served.slots.owners:
                    if isinstance(line, Line) and line.idle:
                        self.drop(line)
                        self._desk.rest(line)
                        self._desk.meter.evicted(line.key.model, "retired")
                if served.at_rest:
                    models.retiring.remove(served)

    def _take_slot(self, line: Line, served: Served) -> int | None:
        slot = served.slots.take(line)
        if slot is not None:
            return slot
        oldest = served.slots.oldest(is_idle)
        if isinstance(oldest, Line):
            self.drop(oldest)
            self._desk.rest(oldest)
            self._desk.meter.evicted(line.key.model, "capacity")
            return served.slots.take(line)
        return None


def is_idle(owner: Hashable) -> bool:
    return isinstance(owner, Line) and owner.idle
