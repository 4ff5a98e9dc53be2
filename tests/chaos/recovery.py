"""How long clients waited after a fault."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from statistics import median

from .history import Fault, History

TIMED = (
    *("server_kill", "server_stop", "server_pause"),
    *("redis_kill", "redis_pause", "power_cut", "failover", "failover_split"),
    *("node_kill", "node_pause", "slot_move", "node_handover", "node_takeover"),
)


def recovery_ms(history: History) -> dict[str, dict[str, int]]:
    """By kind of fault: milliseconds from its beginning until the next acknowledged step of any session ("first"), and
    of the last of those sessions that had a step on the way at that moment ("all")."""
    waits = _waits(history)
    firsts: dict[str, list[float]] = defaultdict(list)
    alls: dict[str, list[float]] = defaultdict(list)
    for fault in history.faults:
        if fault.kind in TIMED:
            first, everyone = _recovery(fault, waits)
            if first is not None:
                firsts[fault.kind].append(first)
            if everyone is not None:
                alls[fault.kind].append(everyone)
    found: dict[str, dict[str, int]] = {}
    for kind in TIMED:
        if firsts[kind]:
            found[kind] = {"first_median": _ms(median(firsts[kind])), "first_worst": _ms(max(firsts[kind]))}
            if alls[kind]:
                found[kind] |= {"all_median": _ms(median(alls[kind])), "all_worst": _ms(max(alls[kind]))}
    return found


def longest_silence_ms(history: History, first: float, last: float) -> int:
    """The longest time between two acknowledged steps of any sessions, from `first` to `last`."""
    times = [ack.at for bursts in history.bursts.values() for burst in bursts for ack in burst.acks]
    inside = sorted(at for at in times if first < at < last)
    return _ms(max(after - before for before, after in pairwise([first, *inside, last])))


def _waits(history: History) -> list[list[tuple[float, float]]]:
    """By session: when each chunk was sent (or the answer before it came) and when it was answered."""
    found = []
    for bursts in history.bursts.values():
        waits = []
        for burst in bursts:
            since = burst.sent_at
            for ack in burst.acks:
                waits.append((since, ack.at))
                since = ack.at
        found.append(sorted(waits, key=lambda wait: wait[1]))
    return found


def _recovery(fault: Fault, waits: list[list[tuple[float, float]]]) -> tuple[float | None, float | None]:
    began, firsts, spanning = fault.began, [], []
    for session in waits:
        low, high = 0, len(session)
        while low < high:  # the first answer after the fault began
            middle = (low + high) // 2
            low, high = (middle + 1, high) if session[middle][1] <= began else (low, middle)
        if low < len(session):
            since, at = session[low]
            firsts.append(at - began)
            if since <= began:
                spanning.append(at - began)
    return min(firsts, default=None), max(spanning, default=None)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
