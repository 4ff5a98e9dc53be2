"""The served versions of one model. A version knows its engine, and nothing of the requests that wait for it."""

from __future__ import annotations

from collections.abc import Iterator

from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.domain.feedback import Feedback, NamedFeedback
from cellkeeper_service.domain.record import CHUNK_OVERHEAD_BYTES, numerics_digest
from cellkeeper_service.domain.spec import ModelSpec


class Version:
    """One loaded version of a model."""

    def __init__(self, engine: Engine, slot_count: int, max_replay_steps: int) -> None:
        """slot_count: the most sessions in its state cache. max_replay_steps: a checkpoint is due after so many logged
        steps, or once a log of single steps takes as much room as the state, whichever is first."""
        engine.reserve(2 * slot_count)
        self.engine = engine
        self.spec: ModelSpec = engine.spec
        self.numerics = numerics_digest(engine.numerics)
        self.slot_count = slot_count
        self.step_bytes = self.spec.step_bytes
        logged_step_bytes = self.step_bytes + CHUNK_OVERHEAD_BYTES
        self.due_steps = max(1, min(max_replay_steps, -(-self.spec.state_bytes // logged_step_bytes)))
        self.retired = False  # finishes what is under way, and starts nothing else
        self.decisive_outputs = self.spec.decisive_outputs  # must be finite for a step to be applied


class Models:
    """The served versions of one model. A session's record picks its version; new sessions take the first."""

    def __init__(self, versions: list[Version], accepts_other_numerics: bool = False) -> None:
        self.default = versions[0]
        self.accepts_other_numerics = accepts_other_numerics
        self.retiring: list[Version] = []  # no longer found, and not at rest yet
        self._by_fingerprint = {version.spec.fingerprint: version for version in versions}

    def __iter__(self) -> Iterator[Version]:
        return iter(self._by_fingerprint.values())

    @property
    def feedback(self) -> Feedback | NamedFeedback | None:
        """The feedback of the versions that can forecast, on which they agree; None: none of them can."""
        return next((version.spec.feedback for version in self if version.spec.feedback is not None), None)

    def rolls_out(self, fingerprint: bytes) -> bool:
        version = self.find(fingerprint)
        return version is not None and version.spec.feedback is not None

    def find(self, fingerprint: bytes) -> Version | None:
        return self._by_fingerprint.get(fingerprint)

    def exchange(self, versions: list[Version]) -> None:
        """Serves these versions from now on, the first to new sessions. The others retire: once what is under way has
        ended, their sessions are refused like those of any version that is not served."""
        before = list(self)
        self.default = versions[0]
        self._by_fingerprint = {version.spec.fingerprint: version for version in versions}
        for version in before:
            if version not in versions:
                version.retired = True
                self.retiring.append(version)
