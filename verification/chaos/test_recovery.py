"""The time that clients waited is measured from what they saw."""

from __future__ import annotations

import numpy as np

from testing.wire_client import Position

from .history import Ack, Burst, Fault, History
from .recovery import longest_silence_ms, recoveries, recovery_ms


def answered(history: History, session: str, sender: str, sent_at: float, *answered_at: float) -> None:
    start = Position.first(bytes(16))
    burst = Burst(session, "count", start, np.ones((len(answered_at), 1), np.float32), 0, sender, sent_at)
    burst.acks += [Ack(1, at, start, {}, {}, True) for at in answered_at]
    history.add_burst(burst)


def test_recovery_of_those_who_waited() -> None:
    history = History()
    history.faults.append(Fault("server_kill", "server 0", 10.0, 11.0, False))
    answered(history, "quick", "client-0, opening 1", 9.0, 9.5, 10.5, 10.6)  # waited from 9.5 on
    answered(history, "slow", "client-1, opening 2", 9.0, 14.0)
    answered(history, "later", "client-1, opening 3", 10.1, 10.25)  # was not in flight
    answered(history, "raw", "raw-1, opening 4", 9.0, 10.1)
    assert recovery_ms(recoveries(history)) == {
        "server_kill": {
            "first_median": 250,
            "first_worst": 250,
            "each_median": 2250,
            "all_median": 4000,
            "all_worst": 4000,
        }
    }


def test_the_longest_silence_is_everybodys() -> None:
    history = History()
    answered(history, "a", "client-0, opening 1", 0.0, 1.0, 6.0)
    answered(history, "b", "raw-0, opening 2", 0.0, 4.0)
    assert longest_silence_ms(history, 0.0, 7.0) == 3000
