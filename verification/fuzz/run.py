"""Sends hostile cases to a real server, while a canary session must notice nothing."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
from cellkeeper import AsyncClient

from testing.server_process import ServerProcess
from verification.load.vitals import LAZY_FDS, MIB, fd_count, rss_bytes

from .calls import Attacker, Score
from .http_cases import HttpAttacker
from .world import CANARY_MODEL, FEATURES, World, bundles

OPTIONS = ["--arena-mib", "1", "--max-batch", "64", "--default-timeout-ms", "5000", "--max-frame-items", "1024"]
OPTIONS += ["--kserve", "on", "--http-listen", "127.0.0.1:0"]
CONNECTIONS = 4
ATTACKERS = 24
HTTP_ATTACKERS = 8
WARM_SHARE = 0.2  # of the cases, in which caches and pools fill
GROWTH_MIB = 96.0  # after that; one case in a thousand has a message of megabytes
CHANNEL = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
IDLE_S = 20.0


class Canary:
    """Steps a session of its own all the time, and checks the answers."""

    def __init__(self, target: str) -> None:
        self.steps = 0
        self.slowest_s = 0.0
        self.violations: list[str] = []
        self.stopping = False
        self._target = target

    async def run(self) -> None:
        draw = random.Random(0)
        total = 0
        async with AsyncClient(self._target) as client:
            session = await client.open("canary", model=CANARY_MODEL)
            while not self.stopping:
                inputs = np.repeat(np.array(draw.choices(range(4), k=2), np.float32)[:, None], FEATURES, axis=1)
                expected = total + np.cumsum(inputs, axis=0)
                started = time.monotonic()
                outputs = await session.step(inputs)
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)
                if not np.array_equal(outputs, expected):
                    self.violations.append(f"canary: got {outputs[:, 0]}, expected {expected[:, 0]}")
                total = int(expected[-1, 0])
                self.steps += len(inputs)
                await asyncio.sleep(0.005)
            state = await session.state()
            if not (state["h"] == total).all():
                self.violations.append(f"canary: its state is not its sum {total}")


async def fuzz(cases: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Sends hostile cases to a server. Returns the figures and the violations."""
    with tempfile.TemporaryDirectory(prefix="cellkeeper-fuzz-") as name:
        folder = Path(name)
        with ServerProcess(bundles(folder), f"sqlite:{folder / 'sessions.db'}", OPTIONS) as server:
            url = server.wait_for(r"http on (\S+)")
            return await _against(server, url, cases, seed)


async def _against(server: ServerProcess, url: str, cases: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    pid, score, world, canary = server.pid, Score(), World(), Canary(server.target)
    fds = fd_count(pid)
    numbers = iter(range(cases))
    rss: list[int] = []
    started = time.monotonic()

    async def attack(attacker: Attacker | HttpAttacker) -> None:
        for number in numbers:
            if number % max(cases // 50, 1) == 0:
                rss.append(rss_bytes(pid))
            await attacker.case(f"{seed}/{number}")

    watched = asyncio.create_task(canary.run())
    async with AsyncExitStack() as stack:
        attackers = [
            Attacker(await stack.enter_async_context(grpc.aio.insecure_channel(server.target, CHANNEL)), world, score)
            for _ in range(CONNECTIONS)
        ]
        http = await stack.enter_async_context(aiohttp.ClientSession())
        over_http = HttpAttacker(http, url.rstrip("/"), world, score)
        await asyncio.gather(
            *(attack(attackers[n % CONNECTIONS]) for n in range(ATTACKERS)),
            *(attack(over_http) for _ in range(HTTP_ATTACKERS)),
        )
        unknown = await attackers[0].unknown_method()
    seconds = time.monotonic() - started
    canary.stopping = True
    await watched
    violations = [*score.violations, *canary.violations]
    if unknown != "UNIMPLEMENTED":
        violations.append(f"an unknown method: got {unknown}, expected UNIMPLEMENTED")
    queue_depth, left_fds = await _until_idle(server, fds)
    if queue_depth or left_fds > fds + LAZY_FDS:
        violations.append(f"left over: queue depth {queue_depth}, {left_fds} fds after {fds}")
    if "Traceback" in server.output():
        violations.append(f"the server's log has a traceback: {_excerpt(server.output())}")
    warm, last = max(rss[: max(int(len(rss) * WARM_SHARE), 1)]), rss_bytes(pid)
    if last - warm > GROWTH_MIB * MIB:
        violations.append(f"rss: {warm / MIB:.0f} MiB after warm-up, {last / MIB:.0f} MiB at the end")
    figures = {
        "cases": cases,
        "seed": seed,
        "seconds": round(seconds, 1),
        "methods": dict(score.methods.most_common()),
        "kinds": dict(score.kinds.most_common()),
        "codes": dict(score.codes.most_common()),
        "canary_steps": canary.steps,
        "canary_slowest_s": round(canary.slowest_s, 3),
        "rss_mib_first_warm_peak_last": [round(size / MIB, 1) for size in (rss[0], warm, max(rss), last)],
        "fds_before_after": [fds, left_fds],
    }
    return figures, violations


async def _until_idle(server: ServerProcess, fds: int) -> tuple[int, int]:
    until = time.monotonic() + IDLE_S
    while True:
        depth = int(await asyncio.to_thread(server.metric, "cellkeeper_queue_depth"))
        left = fd_count(server.pid)
        if (depth == 0 and left <= fds + LAZY_FDS) or time.monotonic() > until:
            return depth, left
        await asyncio.sleep(0.2)


def _excerpt(text: str) -> str:
    at = text.index("Traceback")
    return text[max(at - 200, 0) : at + 2000]
