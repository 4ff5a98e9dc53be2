"""A source of scopes that are too large to be explored entirely."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

from tests.unit.core.counting_engine import POISON

from .scope import (
    TTL_MS,
    Append,
    CarryOver,
    Delete,
    Fork,
    GetState,
    Item,
    Many,
    Op,
    Open,
    Peek,
    Reset,
    Scope,
    SetState,
    Steps,
)

KINDS = ("steps", "many", "reset", "set state", "delete", "fork", "append", "read")


def drawn(draw: random.Random) -> Scope:
    """Draws a scope: up to 2 clients and a reader, 4 chunks in a row, resets, states that are set, deletes, forks,
    carry-overs, calls with several items and reads, and one to six kinds of faults."""
    values = count(11)
    shared = draw.random() < 0.4
    clients = draw.choice((1, 1, 2))
    versions: dict[str, Any] = {}
    if draw.random() < 0.25:
        versions = {"serves": draw.choice(((b"\1\2", b"\2"), (b"\1\2", b"\1\2"), (b"\1", b"\2\1")))}
        if draw.random() < 0.5:
            versions |= {"others": (b"\1", b"\2", b"\1\2"), "exchanges": draw.choice((1, 2))}
    scripts = [_script(draw, values, "s" if shared else "sr"[index], index, bool(versions)) for index in range(clients)]
    if draw.random() < 0.4:
        scripts.append(tuple(_read(draw, values, draw.choice("ssr")) for _ in range(draw.randint(1, 4))))

    kinds = (
        "slow",
        "timeouts",
        "unknowns",
        "fall_backs",
        "restarts",
        "give_ups",
        "crashes",
        "refusals",
        "unread",
        "power_cuts",
        "overdue",
        "gone",
    )
    faults: dict[str, Any] = dict.fromkeys(
        draw.choices(kinds, (4, 5, 4, 5, 2, 1, 2, 1, 1, 4, 4, 3), k=draw.choice((1, 2, 2, 3, 6))), 1
    )
    faults.update({kind: 2 for kind in faults if draw.random() < 0.3})
    if draw.random() < 0.3:
        faults["expiries"] = draw.choice((1, 1, 2))
    if "power_cuts" in faults:
        faults["power_cuts"] = draw.choice((2, 3))
    return Scope(
        tuple(scripts),
        replicas=draw.choice((1, 2, 2)),
        synced=draw.random() < 0.5,
        depth=draw.randint(1, 4),
        expects=draw.random() < 0.5,
        due_steps=draw.choice((1, 2, 3)),
        other_due_steps=draw.choice((0, 0, 1, 5)),
        slots=draw.choice((1, 2, 4)),
        buffer_steps=draw.choice((4, 1024)),
        max_log_steps=draw.choice((4, 8)),
        atomic_reads=draw.random() < 0.7,
        atomic_commits=draw.random() < 0.5,
        commits_together=draw.random() < 0.5,
        one_call=draw.random() < 0.3,
        frames=draw.random() < 0.6,
        **faults,
        **versions,
    )


def _script(draw: random.Random, values: count[int], session: str, index: int, versions: bool) -> tuple[Op, ...]:
    def some_steps(name: str) -> Steps:
        chunks = tuple(tuple(next(values) for _ in range(draw.choice((1, 1, 2)))) for _ in range(draw.randint(1, 4)))
        return Steps(name, chunks, draw.choice((1, 2, 2, 3)))

    def some_ttl_ms() -> int | None:
        return draw.choice((None, None, None, 0, TTL_MS, 2 * TTL_MS))

    script: list[Op] = [Open(session, some_ttl_ms()), some_steps(session)]
    for turn in range(draw.choice((0, 0, 1, 2, 3))):
        kinds = (*KINDS, *(("carry over",) * 4 if versions else ()))
        what = draw.choice(kinds)
        if what == "steps":
            script.append(some_steps(session))
        elif what == "carry over":
            window = draw.choice(((), (next(values), next(values))))
            reset = not window and draw.random() < 0.4
            script += [CarryOver(session, draw.choice((1, 2, 2)), window, reset), some_steps(session)]
        elif what == "set state":
            inputs = tuple(next(values) for _ in range(draw.choice((0, 1, 2))))
            script += [SetState(session, inputs), some_steps(session)]
        elif what == "many":
            script += _many(draw, values, session, f"{session}{turn}", versions)
        elif what == "read":
            script += [_read(draw, values, session), some_steps(session)]
        elif what == "reset":
            script += [Reset(session), some_steps(session)]
        elif what == "delete":
            script += [Delete(session), Open(session), some_steps(session)]
        elif what == "fork":
            target = f"t{index}{turn}"
            script += [Fork(session, target, some_ttl_ms()), some_steps(target)]
            if draw.random() < 0.5:
                script += [Delete(target), Fork(session, target), some_steps(target)]
        else:
            script += [Append(session, next(values)), Open(session, some_ttl_ms()), some_steps(session)]
    return tuple(script)


def _many(draw: random.Random, values: count[int], session: str, other: str, versions: bool) -> list[Op]:
    """Returns calls with several items, and steps of these sessions."""

    def carry_over(name: str) -> CarryOver:
        how = draw.choice(((), (next(values),), (POISON,), True))
        return CarryOver(name, 2, how) if isinstance(how, tuple) else CarryOver(name, 2, reset=True)

    def change(name: str) -> Item:
        kinds = (lambda: Reset(name), lambda: SetState(name, (next(values),)), lambda: Delete(name))
        chosen: Item = draw.choice((*kinds, *((lambda: carry_over(name),) * 3 if versions else ())))()
        return chosen

    both = session, other
    script: list[Op] = [Many(tuple(Open(name) for name in both))]
    script += [Steps(name, ((next(values),),)) for name in both]
    script += [Many(tuple(change(name) for name in both)), Many(tuple(Open(name) for name in both))]
    return script + [Steps(name, ((next(values),),)) for name in both]


def _read(draw: random.Random, values: count[int], session: str) -> Op:
    return GetState(session) if draw.random() < 0.3 else Peek(session, next(values), draw.choice((0, 0, 1, 3)))
