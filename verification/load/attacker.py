"""Attacks a server while a canary makes its steps.

The attacks are half-open calls, slow messages, frames of open streams that never end, floods of resets and of pings, on
every RPC, with and without a token.

    python -m verification.load.attacker [--seconds N]     each attack for so long; exits with 1 if a bound is broken

Bounds: the server's memory grows by at most GROWTH_BYTES in each attack, and 99 % of the canary's steps take less than
CANARY_MS more than before any attack, which is the machine's own share. The attacker is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.access.command import new_token, token_line

from testing.bundles import counting_bundle
from testing.server_process import ServerProcess

from .hostile import Plan
from .vitals import MIB, rss_bytes

GROWTH_BYTES = {
    "half-open": 64 * MIB,
    "slow": 256 * MIB,
    "half-frame": 256 * MIB,
    "reset": 64 * MIB,
    "ping": 32 * MIB,
}
"""By attack. Slow messages: four of 16 MiB (REQUEST_BYTES) stay, plus what arrives before others are known to be slow.
Half frames: REQUEST_BYTES stay, plus what arrives before the kernel is asked again and streams have ended."""
REQUEST_BYTES = 64 * MIB
CANARY_MS = 100.0
CANARY_PERIOD_S = 0.05
KINDS = ("half-open", "slow", "half-frame", "reset", "ping")
SERVICE = pb.DESCRIPTOR.services_by_name["Cellkeeper"]
PATHS = [f"/{SERVICE.full_name}/{method.name}" for method in SERVICE.methods]
STEP, LIST_MODELS = f"/{SERVICE.full_name}/Step", f"/{SERVICE.full_name}/ListModels"
STREAM = f"/{SERVICE.full_name}/StepStream"
PUBLIC = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


@dataclass(frozen=True)
class Outcome:
    """The result of an attack.

    calm_ms, p99_ms: of the canary, before and during the attack. growth_bytes: of the server's memory.
    """

    kind: str
    token: bool
    sent: dict[str, Any]
    steps: int
    failed: list[str]
    calm_ms: float
    p99_ms: float
    growth_bytes: int

    @property
    def harm(self) -> list[str]:
        """Violations that no load of the machine explains."""
        found = [f"{self.kind}: the canary: {text}" for text in sorted(set(self.failed))]
        if not self.steps:
            found.append(f"{self.kind}: no step of the canary succeeded")
        if self.growth_bytes > GROWTH_BYTES[self.kind]:
            found.append(f"{self.kind}: the server grew by {self.growth_bytes / MIB:.0f} MiB")
        return found

    @property
    def faults(self) -> list[str]:
        slow = [f"{self.kind}: 99 % of the canary's steps took up to {self.p99_ms:.0f} ms"]
        return self.harm + (slow if self.p99_ms > CANARY_MS + self.calm_ms else [])


class Canary:
    """Steps one session at a fixed rate, and measures how long after it was due each step is answered.

    Were the next step to wait for the answer to the last, a server that stops for seconds would cost a single step.
    """

    def __init__(self, target: str, token: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        values = np.ones((1, 1), "<f4").tobytes()
        self._request = pb.StepRequest(session="canary", dtype=pb.FLOAT32, shape=[1, 1], inputs=values)
        self._step = self._channel.unary_unary(STEP, pb.StepRequest.SerializeToString, pb.StepResponse.FromString)
        self.failed: list[str] = []

    async def times_ms(self, until: asyncio.Future[Any]) -> list[float]:
        """Steps until `until` is done. Returns the times of all steps, which include those that failed."""
        steps: list[asyncio.Task[float]] = []
        due = time.perf_counter()
        while not until.done():
            steps.append(asyncio.create_task(self._timed(due)))
            due += CANARY_PERIOD_S
            await asyncio.wait([until], timeout=max(due - time.perf_counter(), 0.0))
        return await asyncio.gather(*steps)

    async def _timed(self, due: float) -> float:
        """Makes a step. Returns the milliseconds from when it was due to the answer."""
        try:
            await self._step(self._request, timeout=10, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            self.failed.append(f"{error.code().name}: {error.details()}")
        return 1000 * (time.perf_counter() - due)

    async def close(self) -> None:
        await self._channel.close(None)


def _p99(times: Sequence[float]) -> float:
    return float(np.percentile(times, 99)) if times else 0.0


async def endure(server: ServerProcess, token: str, plan: Plan, calm_s: float) -> Outcome:
    """Runs one attack, `calm_s` seconds after the canary's first step, and returns its outcome."""
    canary = Canary(server.target, token)
    try:
        calm = asyncio.ensure_future(asyncio.sleep(calm_s))
        calm_ms = _p99(await canary.times_ms(calm))
        before = rss_bytes(server.pid)
        attacking = asyncio.ensure_future(_attack(server.target, plan))
        watching = asyncio.ensure_future(_peak(server.pid, attacking))
        times_ms = await canary.times_ms(attacking)
        steps, growth = len(times_ms) - len(canary.failed), await watching - before
        return Outcome(
            plan.kind, bool(plan.token), await attacking, steps, canary.failed, calm_ms, _p99(times_ms), max(growth, 0)
        )
    finally:
        await canary.close()


async def _attack(target: str, plan: Plan) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "verification.load.hostile", target, json.dumps(asdict(plan))),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    sent: dict[str, Any] = json.loads(out)
    return sent


async def _peak(pid: int, until: asyncio.Future[Any]) -> int:
    """Returns the largest amount of memory seen."""
    most = 0
    while not until.done():
        most = max(most, rss_bytes(pid))
        await asyncio.sleep(0.05)
    return most


def plans(kinds: Sequence[str], token: str, seconds: float, *, public: bool) -> list[Plan]:
    """Returns the attacks. public: including reflection, which only a server without tokens offers."""
    paths = PATHS + (PUBLIC if public else PUBLIC[:2])
    return [_plan(kind, paths, token, seconds) for kind in kinds]


def _plan(kind: str, paths: list[str], token: str, seconds: float) -> Plan:
    if kind != "half-frame":
        return Plan(kind, paths, token, seconds=seconds)
    first = pb.StepFrame(frame_id=1, sessions=["half"], peek=True).SerializeToString()
    return Plan(kind, [STREAM], token, seconds=seconds, first=first.hex())


@contextmanager
def house(
    folder: Path, bundle: Path, *, with_tokens: bool, options: Sequence[str] = ()
) -> Iterator[tuple[ServerProcess, str, str]]:
    """Yields a server, the canary's token and the attacker's; both are "" if there are none. options: the server's."""
    words, tokens = ["--max-request-bytes", str(REQUEST_BYTES), *options], ["", ""]
    if with_tokens:
        tokens = [new_token(), new_token()]
        lines = [token_line(token, name, "step,read,admin") for name, token in zip("ca", tokens, strict=True)]
        (folder / "tokens").write_text("\n".join([*lines, "quota tenant=a inflight=1000"]))
        words += ["--tokens", str(folder / "tokens")]
    # As in the image: otherwise malloc keeps as much for each of gRPC's threads as the server ever held.
    with ServerProcess([bundle], "memory:", words, {"MALLOC_ARENA_MAX": "1"}) as server:
        yield server, tokens[0], tokens[1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m verification.load.attacker")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of each attack")
    seconds = parser.parse_args().seconds
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = counting_bundle(folder / "count")
        for with_tokens, good in ((False, False), (True, True), (True, False)):
            with house(folder, bundle, with_tokens=with_tokens) as (server, canary, attacker):
                for plan in plans(KINDS, attacker if good else "", seconds, public=not with_tokens):
                    outcome = asyncio.run(endure(server, canary, plan, min(seconds / 2, 2.0)))
                    who = "a tenant" if good else "without a token" if with_tokens else "tokens not required"
                    print(
                        f"{plan.kind:10} {who:19}: canary p99 {outcome.p99_ms:6.1f} ms ({outcome.calm_ms:.1f} before), "
                        f"{outcome.steps} steps, {len(outcome.failed)} failed; "
                        f"memory +{outcome.growth_bytes / MIB:.0f} MiB; {json.dumps(outcome.sent)}",
                        flush=True,
                    )
                    faults += outcome.faults
    print("\n".join(faults) or "attack: every bound held")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
