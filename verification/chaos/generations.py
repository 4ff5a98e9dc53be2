"""Which generations each session had, and in which order."""

from __future__ import annotations

from typing import NamedTuple

from .history import FinalRead, History


class Sighting(NamedTuple):
    """A successful request: its generation, when it was sent, when it was answered."""

    generation: bytes
    sent_at: float
    at: float


class Revived(NamedTuple):
    """A generation that answered a request sent after its end was known, at over_at."""

    generation: bytes
    sent_at: float
    at: float
    over_at: float


class Generations:
    """The generations that the answers of a history show, session by session. The history must be complete."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._orders: dict[str, list[bytes]] = {}
        self._final_reads: dict[str, list[FinalRead]] = {}
        for read in history.final_reads:
            self._final_reads.setdefault(read.session, []).append(read)

    def of(self, session: str) -> list[bytes]:
        """Returns every generation that an answer showed, in the order of first appearance."""
        if session not in self._orders:
            seen: dict[bytes, float] = {}
            for generation, _, at in self._sightings(session):
                seen[generation] = min(at, seen.get(generation, at))
            self._orders[session] = sorted(seen, key=lambda generation: seen[generation])
        return self._orders[session]

    def first_seen(self, session: str, generation: bytes) -> float:
        """Returns when an answer first showed the generation."""
        return min(sighting.at for sighting in self._sightings(session) if sighting.generation == generation)

    def final_reads(self, session: str) -> list[FinalRead]:
        return self._final_reads.get(session, [])

    def shared(self) -> list[tuple[str, bytes]]:
        """Returns generations that more than one session showed: a session other than the first, and the generation."""
        owner: dict[bytes, str] = {}
        return [
            (session, generation)
            for session in self._history.models
            for generation in self.of(session)
            if owner.setdefault(generation, session) != session
        ]

    def revived(self, session: str) -> list[Revived]:
        """Returns generations that answered a request although they were known to be over when it was sent.

        Another generation had been seen in their place, or a client had been told that they are over.
        """
        sightings = self._sightings(session)
        first_at: dict[bytes, float] = {}
        latest: dict[bytes, Sighting] = {}
        for sighting in sightings:
            generation = sighting.generation
            first_at[generation] = min(sighting.at, first_at.get(generation, sighting.at))
            if generation not in latest or sighting.sent_at > latest[generation].sent_at:
                latest[generation] = sighting
        found = []
        for generation, last in latest.items():
            over = [
                other.at
                for other in sightings
                if other.generation != generation and other.sent_at > first_at[generation] and other.at < last.sent_at
            ]
            over += [at for at in self._ends(session, generation) if at < last.sent_at]
            if over:
                found.append(Revived(generation, last.sent_at, last.at, min(over)))
        return found

    def _ends(self, session: str, generation: bytes) -> list[float]:
        """Returns when clients were told that this generation is over."""
        return [
            operation.at
            for operation in self._history.operations.get(session, ())
            if operation.kind in ("reset", "set_state", "delete")
            and operation.generation == generation
            and operation.at > 0
            and operation.error in ("", "GENERATION_CHANGED")
        ]

    def _sightings(self, session: str) -> list[Sighting]:
        found = [
            Sighting(ack.position.generation, burst.sent_at, ack.at)
            for burst in self._history.bursts.get(session, ())
            for ack in burst.acks
        ]
        found += [
            Sighting(operation.result.generation, operation.sent_at, operation.at)
            for operation in self._history.operations.get(session, ())
            if operation.succeeded and operation.result is not None
        ]
        found += [
            Sighting(read.position.generation, read.asked_at, read.at)
            for read in self.final_reads(session)
            if read.position is not None
        ]
        return found
