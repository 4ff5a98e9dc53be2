"""The store fails over or restarts, and loses something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellkeeper_service.domain.store import CommitResult, Outcome, StoreError

from .channel import Channel, generation_of

if TYPE_CHECKING:
    from .universe import Universe

LOST = CommitResult(Outcome.UNKNOWN, None, "lost")


def fall_back(universe: Universe, commits: int, session: str) -> None:
    """Loses the last commits; if `session` is not empty, only its own."""
    universe.fell_back = True
    key = next((key for key in universe.store.sessions() if key.session == session), None) if session else None
    universe.store.fall_back(commits, key)
    _lose_uses(universe)


def power_cut(universe: Universe, lost: int, writes: int) -> None:
    """Stops and restarts Redis.

    What was on its way to it is lost, or not sent yet. The replicas learn nothing of what it did without having
    answered.
    """
    kept_at = universe.store.file.end - lost
    universe.fell_back |= universe.store.power_cut(lost, writes, tracks=universe.left["power_cuts"] > 0)
    universe.late.clear()
    for replica in universe.replicas:
        unread = [read for read in replica.reads if read.results is not None and read.read_at > kept_at]
        replica.reads = [read for read in replica.reads if read not in unread]
        for read in replica.reads:
            read.read_at = 0  # an answer that was already in flight
        for read in unread:
            replica.core.on_loaded(read.sessions, [StoreError("lost")] * len(read.loads))
        unheard = [write for write in replica.writes if write.results is not None]
        replica.writes = [write for write in replica.writes if write.results is None]
        for write in unheard:
            replica.core.on_committed(write.commits, [LOST] * len(write.commits))
        for request in replica.requests:
            channel: Channel = request.done  # type: ignore[assignment]
            channel.ended &= generation_of(request) in universe.store.ledger.ended  # what ended it may be lost
    _lose_uses(universe)


def _lose_uses(universe: Universe) -> None:
    """Sessions may have deadlines from before they were used, some of which are over."""
    if not universe.scope.expiries:
        return
    universe.expired |= universe.store.there(universe.store.lists) != universe.store.lists
    for request in [request for replica in universe.replicas for request in replica.requests]:
        request.done.recent = False  # type: ignore[attr-defined]
