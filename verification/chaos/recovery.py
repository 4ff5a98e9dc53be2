"""How long clients waited after a fault."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from statistics import median
from typing import NamedTuple

from .history import Fault, History
from .workload import OFFICIAL

TIMED = (
    *("server_kill", "server_stop", "server_pause", "worker_kill", "worker_pause"),
    *("redis_kill", "redis_pause", "power_cuts", "failover", "failover_split"),
    *("node_kill", "node_pause", "slot_move", "node_handover", "node_takeover"),
    *("watched_kill", "watched_pause", "watched_failover"),
)


class Recovery(NamedTuple):
    """Seconds from the start of a fault, as the official clients saw it.

    first: until the next answer to any session's step; None: there was none. waited: until the next answer to each
    session that had a step in flight.
    """

    first: float | None
    waited: list[float]


def recoveries(history: History) -> dict[str, list[Recovery]]:
    """Returns the recoveries of all faults, by kind."""
    waits = _waits(history)
    found: dict[str, list[Recovery]] = {}
    for fault in history.faults:
        if fault.kind in TIMED:
            found.setdefault(fault.kind, []).append(_recovery(fault, waits))
    return found


def recovery_ms(of_kinds: Mapping[str, Sequence[Recovery]]) -> dict[str, dict[str, int]]:
    """Returns milliseconds by kind of fault.

    They last until the next answer to any session ("first"), to a session that waited ("each"), and to the last of
    these ("all").
    """
    found: dict[str, dict[str, int]] = {}
    for kind in (kind for kind in TIMED if kind in of_kinds):
        firsts = [each.first for each in of_kinds[kind] if each.first is not None]
        waited = [each.waited for each in of_kinds[kind] if each.waited]
        if firsts:
            found[kind] = {"first_median": _ms(median(firsts)), "first_worst": _ms(max(firsts))}
        if waited:
            alls = [max(everyone) for everyone in waited]
            found[kind] |= {"each_median": _ms(median(chain.from_iterable(waited)))}
            found[kind] |= {"all_median": _ms(median(alls)), "all_worst": _ms(max(alls))}
    return found


def longest_silence_ms(history: History, first: float, last: float) -> int:
    """Returns the longest time between two acknowledged steps of any sessions, from `first` to `last`."""
    times = [ack.at for bursts in history.bursts.values() for burst in bursts for ack in burst.acks]
    inside = sorted(at for at in times if first < at < last)
    return _ms(max(after - before for before, after in pairwise([first, *inside, last])))


def _waits(history: History) -> list[list[tuple[float, float]]]:
    """Returns, for each session of the official clients, when each chunk was sent and answered.

    Within a burst, a chunk after the first counts as sent when the answer before it came.
    """
    found = []
    for bursts in history.bursts.values():
        waits = []
        for burst in bursts:
            if not burst.sender.startswith(OFFICIAL):
                continue
            since = burst.sent_at
            for ack in burst.acks:
                waits.append((since, ack.at))
                since = ack.at
        found.append(sorted(waits, key=lambda wait: wait[1]))
    return found


def _recovery(fault: Fault, waits: list[list[tuple[float, float]]]) -> Recovery:
    began, firsts, waited = fault.began, [], []
    for session in waits:
        at = bisect_right(session, began, key=lambda wait: wait[1])  # the first answer after the fault began
        if at < len(session):
            since, answered = session[at]
            firsts.append(answered - began)
            if since <= began:
                waited.append(answered - began)
    return Recovery(min(firsts, default=None), waited)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
