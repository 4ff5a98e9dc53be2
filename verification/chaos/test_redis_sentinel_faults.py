"""Sentinels that put their servers right are soon left alone: faults could keep them from it forever."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from . import redis_sentinel_faults
from .redis_sentinel_faults import RedisSentinelFaults


async def at_once(least_s: float, most_s: float) -> None:
    pass


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("disturb_s", [0.0, 60.0])
async def test_a_sentinel_is_disturbed_only_until_they_are_left_alone(
    disturb_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_sentinel_faults, "DISTURB_S", disturb_s)
    whole, sent = threading.Event(), list[int]()
    world = SimpleNamespace(sentinels=[SimpleNamespace(send_signal=sent.append)])
    store: Any = SimpleNamespace(world=world, wait_until_whole=whole.wait)
    faults = RedisSentinelFaults(store, at_once, random.Random(1))

    settling = asyncio.create_task(faults._settled())
    try:
        await turns()
        pause = asyncio.create_task(faults._sentinel_pause(0))
        await turns()
        while_they_settle = list(sent)
    finally:
        whole.set()
        await settling
    await pause
    assert while_they_settle == ([] if disturb_s == 0.0 else [signal.SIGSTOP, signal.SIGCONT])
    assert sent == [signal.SIGSTOP, signal.SIGCONT]
