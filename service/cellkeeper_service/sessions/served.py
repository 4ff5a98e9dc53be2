"""Served models: the versions of one model, their engines and slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.domain.feedback import Feedback
from cellkeeper_service.domain.record import CHUNK_OVERHEAD_BYTES, numerics_digest
from cellkeeper_service.domain.spec import ModelSpec

from .slots import Slots

if TYPE_CHECKING:
    from .cohort import Cohort
    from .line import Line
    from .run import Run


class Served:
    """One loaded version: its engine, the slots of its arena, and the runs that wait for its next tick."""

    def __init__(self, engine: Engine, slots: int, max_replay_steps: int) -> None:
        """slots: hot sessions at the most. max_replay_steps: a checkpoint is due after so many logged steps, or
        when the log of single steps takes as much room as the state, whichever is first."""
        engine.reserve(2 * slots)
        self.engine = engine
        self.spec: ModelSpec = engine.spec
        self.numerics = numerics_digest(engine.numerics)
        self.slots = Slots(slots)
        logged_step_bytes = self.spec.step_bytes + CHUNK_OVERHEAD_BYTES
        self.due_steps = max(1, min(max_replay_steps, -(-self.spec.state_bytes // logged_step_bytes)))
        self.singles: deque[Run] = deque()  # one time step to go: one engine call for all of them
        self.longs: deque[Run] = deque()  # more than one, or none: slices, bucketed by length
        self.cohorts: deque[Cohort] = deque()  # single steps of whole frames
        self.starved: deque[Line] = deque()  # wait for a slot
        self._decisive = self.spec.decisive_outputs
        self.calls = 0
        self.retired = False  # what is under way ends on it; nothing else is begun

    def wanted_with(self, wanted: Iterable[frozenset[str]]) -> frozenset[str]:
        """The outputs of a call that several runs share: those that decide whether a step is taken are always there."""
        return self._decisive.union(*set(wanted))

    @property
    def at_rest(self) -> bool:
        """Nothing of any session is left on it."""
        return not (len(self.slots) or self.starved or self.singles or self.longs or self.cohorts)


class Models:
    """The served versions of one model. The record of a session picks its version; new sessions take the first."""

    def __init__(self, versions: list[Served], accepts_other_numerics: bool = False) -> None:
        self.default = versions[0]
        self.accepts_other_numerics = accepts_other_numerics
        self.retiring: list[Served] = []  # not found any more, and not at rest yet
        self._by_fingerprint = {served.spec.fingerprint: served for served in versions}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_fingerprint.values())

    @property
    def feedback(self) -> Feedback | None:
        """Of the versions that can be rolled out: they agree about it. None: none can be."""
        return next((served.spec.feedback for served in self if served.spec.feedback is not None), None)

    def rolls_out(self, fingerprint: bytes) -> bool:
        served = self.find(fingerprint)
        return served is not None and served.spec.feedback is not None

    def find(self, fingerprint: bytes) -> Served | None:
        return self._by_fingerprint.get(fingerprint)

    def exchange(self, versions: list[Served]) -> None:
        """Serves these from now on, the first to new sessions. Versions that are not among them retire: sessions of
        theirs are refused like those of any version that is not served, once what is under way has ended."""
        before = list(self)
        self.default = versions[0]
        self._by_fingerprint = {served.spec.fingerprint: served for served in versions}
        for served in before:
            if served not in versions:
                served.retired = True
                self.retiring.append(served)
