"""Rounds: each runs every case once, with a scenario's contenders one after another, starting with another one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from .case import Case
from .contenders import Contenders
from .results import say
from .turns import rotated

Figures = dict[str, Any]
Rounds = dict[str, list[Figures]]  # by case: the figures of each round

LEAD_SECONDS = 0.4  # the load beside a case starts that much earlier, and ends that much later


def run(cases: Sequence[Case], contenders: Contenders, rounds: int, seconds: float) -> Rounds:
    results: Rounds = {case.key: [] for case in cases}
    for number in range(rounds):
        started = time.monotonic()
        for case in turn(cases, number):
            results[case.key].append(one(case, contenders, seconds))
        say(f"round {number + 1} of {rounds}: {time.monotonic() - started:.0f} s")
    return results


def turn(cases: Sequence[Case], number: int) -> list[Case]:
    """Returns the cases, with each scenario's contenders rotated by `number`."""
    order: list[Case] = []
    for _, group in groupby(cases, key=lambda case: (case.load.model, case.scenario)):
        order += rotated(list(group), number)
    return order


def one(case: Case, contenders: Contenders, seconds: float) -> Figures:
    client = contenders.clients[case.contender]
    beside = contenders.beside[case.contender] if case.beside else None
    if beside and case.beside:
        beside.begin(case.beside, seconds + 2 * LEAD_SECONDS)
        time.sleep(LEAD_SECONDS)
    client.begin(case.load, seconds)
    figures = client.end()
    if beside:
        figures["beside_steps_per_second"] = beside.end().get("steps_per_second", 0.0)
    if "error" in figures:
        say(f"{case.key}: {figures['error']}")
        if contenders.renew(case.contender):
            say(f"{case.contender}: its server had ended, and was started again")
    return figures


def warm(cases: Sequence[Case], contenders: Contenders) -> None:
    """Runs every case once, briefly, to create sessions and warm code and caches; drops the results."""
    started = time.monotonic()
    for case in cases:
        one(replace(case, load=replace(case.load, rate=0.0)), contenders, 0.1)
    say(f"warm after {time.monotonic() - started:.0f} s")
