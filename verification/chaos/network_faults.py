"""The faults of a connection, caused by the proxy in it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from .fault_kind import FaultKind, Wait
from .proxy import Proxy


def network_faults(
    side: str,
    holds: str,
    proxies: Sequence[Proxy],
    wait: Wait,
    draw: random.Random,
) -> Iterator[FaultKind]:
    """Yields the kinds. side: "client" or "store", for the kinds' names. draw: the random generator."""

    async def cut(index: int) -> None:
        proxies[index].cut()

    async def refuse(index: int) -> None:
        proxies[index].refusing = True
        proxies[index].cut()
        await wait(0.1, 1.0)
        proxies[index].refusing = False

    async def delay(index: int) -> None:
        proxies[index].delay_s = draw.uniform(0.005, 0.2)
        await wait(0.2, 1.2)
        proxies[index].delay_s = 0.0

    async def throttle(index: int) -> None:
        proxies[index].bytes_per_s = draw.randint(5_000, 200_000)
        await wait(0.2, 1.2)
        proxies[index].bytes_per_s = 0

    async def black_hole(index: int) -> None:
        proxies[index].black_hole = True
        await wait(0.1, 1.6)
        if draw.random() < 0.5:
            proxies[index].cut()  # otherwise everything arrives late
        proxies[index].black_hole = False

    async def drop_reply(index: int) -> None:
        proxies[index].drop_replies = True
        await wait(0.05, 0.7)
        proxies[index].drop_replies = False

    for name, weight, act in (
        ("cut", 1.5, cut),
        ("refuse", 0.5, refuse),
        ("delay", 0.7, delay),
        ("throttle", 0.5, throttle),
        ("black_hole", 0.8, black_hole),
        ("drop_reply", 1.5, drop_reply),
    ):
        yield FaultKind(f"{side}_{name}", holds, weight, act, len(proxies))
