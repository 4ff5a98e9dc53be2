"""`make bench-stages`: where the microseconds of a frame of single steps go, stage by stage, in one process, no gRPC.

Every stage is the service's own code on its own objects, with a clock between stages. The floor given with a stage is
the work that cannot be avoided: parsing and encoding the same message with protobuf alone, calling onnxruntime on ready
buffers, a Redis script that compares and sets the same bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import groupby
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.limits import Clock
from cellkeeper_service.core.loop import DONE, CoreLoop
from cellkeeper_service.core.store_calls import StoreCalls
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.store import Store
from cellkeeper_service.metrics import PrometheusMeter
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.frame_replies import FrameReplies
from cellkeeper_service.rpc.frames import read_frame
from cellkeeper_service.server.app import GC_THRESHOLD
from cellkeeper_service.server.config import Settings
from cellkeeper_service.server.limits import session_limits, wire_limits
from cellkeeper_service.server.versions import load_engines, make_models
from cellkeeper_service.store.open import open_store

from testing.redis_server import RedisServer

from .clients.samples import samples
from .machine import machine
from .models import MAIN, MODELS
from .results import add_json, write
from .weights import write_model

SIZES = (1, 16, 64, 256)
STAGES = (
    "parse",
    "check",
    "schedule",
    "batch",
    "engine",
    "on_computed",
    "take_commits",
    "commit",
    "on_committed",
    "encode",
)
"""check: the frame's fields, and a request for each item. batch: reading and writing states around the engine's call,
and laying out inputs and outputs for it."""


class Bench:
    """One service without its network. items: sessions in one frame."""

    def __init__(self, bundle: Path, store: Store, items: int) -> None:
        settings = Settings(models=(str(bundle),), store="memory:", device="cpu")
        engines, _ = load_engines(settings)
        self.engine: Any = engines[0]  # its method is wrapped, and its parts are inspected
        self._run: Callable[..., Any] = self.engine.run
        setattr(self.engine, "run", self._timed_run)  # noqa: B010 - its type declares a method
        models = make_models(engines, settings)
        self.meter: Meter = PrometheusMeter()
        clock = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000)
        self.core = Core(models, session_limits(settings), clock, self.meter)
        self.loop = CoreLoop(self.core, StoreCalls(store, 0, self.meter), lambda batch: 0.0)
        self.catalog = Catalog(models, wire_limits(settings))
        self.store = store
        self.names = [f"stage-{items}-{number}" for number in range(items)]
        self.positions = b""
        self.seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self._engine_seconds = 0.0
        self._inputs = samples(MAIN, items).tobytes()

    def _timed_run(self, *given: Any) -> Any:
        started = time.perf_counter()
        result = self._run(*given)
        self._engine_seconds = time.perf_counter() - started
        return result

    def message(self) -> bytes:
        frame = pb.StepFrame(
            frame_id=1,
            model=MAIN,
            sessions=self.names,
            dtype=pb.FLOAT32,
            step_shape=[MODELS[MAIN].features],
            inputs=self._inputs,
            positions=self.positions,
        )
        return frame.SerializeToString()

    async def round(self, note: bool = True) -> None:
        """Runs one frame through all stages."""
        data = self.message()
        sent: list[pb.StepFrameReply] = []
        clock = [time.perf_counter()]

        def tick() -> None:
            clock.append(time.perf_counter())

        message = pb.StepFrame.FromString(data)
        tick()
        frame = read_frame(message, self.catalog, latest=inf, needs_positions=False)
        FrameReplies(1, frame, sent.append, whole=True).submit(self.loop, self.meter)
        tick()
        batches = self.core.schedule()
        if self.core.wants_load:  # new sessions are looked up in the store first
            sessions, loads = self.core.take_loads()
            self.core.on_loaded(sessions, self.store.load_many(loads))
            batches = self.core.schedule()
        tick()
        for batch in batches:
            batch.execute()
        tick()
        for batch in batches:
            self.core.on_computed(batch)
        tick()
        commits = self.core.take_commits()
        calls: list[Any] = [commit.call for commit in commits]
        tick()
        results = self.store.commit_many(calls)
        tick()
        self.core.on_committed(commits, results)
        for done, requests in groupby(self.core.take_finished(), DONE):
            done(list(requests))
        tick()
        await asyncio.sleep(0)
        encoded = sent[0].SerializeToString()
        tick()
        reply = pb.StepFrameReply.FromString(encoded)
        order = np.frombuffer(reply.items, "<u4")
        positions = np.empty((len(self.names), 32), np.uint8)
        positions[order] = np.frombuffer(reply.positions, np.uint8).reshape(-1, 32)
        self.positions = positions.tobytes()
        if note:
            self._note(np.diff(clock).tolist())

    def _note(self, spans: Sequence[float]) -> None:
        parse, check, schedule, execute, on_computed, take_commits, commit, on_committed, encode = spans
        engine = self._engine_seconds
        around = execute - engine
        found = (parse, check, schedule, around, engine, on_computed, take_commits, commit, on_committed, encode)
        for stage, seconds in zip(STAGES, found, strict=True):
            self.seconds[stage].append(seconds)

    def bare_call(self) -> Callable[[], None]:
        """Returns a call of onnxruntime alone, on the buffers of the last call of this size."""
        size = len(self.names)
        call = next(call for (steps, batch, _), call in self.engine._calls.items() if (steps, batch) == (1, size))
        return lambda: self.engine._session.run_with_iobinding(call.binding)


async def measure(bundle: Path, store: Store, items: int, rounds: int) -> dict[str, float]:
    """Returns microseconds per frame, by stage, and the engine's floor: medians of interleaved rounds."""
    bench = Bench(bundle, store, items)
    for _ in range(3):
        await bench.round(note=False)
    bare_call, bare = bench.bare_call(), []
    for _ in range(rounds):
        await bench.round()
        started = time.perf_counter()
        bare_call()
        bare.append(time.perf_counter() - started)
    found = {stage: statistics.median(spans) * 1e6 for stage, spans in bench.seconds.items()}
    return found | {"bare onnxruntime": statistics.median(bare) * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--stores", default="memory,redis")
    add_json(parser, "bench-stages")
    options = parser.parse_args()
    gc.freeze()  # as in the server
    gc.set_threshold(GC_THRESHOLD)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="cellkeeper-stages-") as folder, ExitStack() as running:
        bundle = write_model(Path(folder), MAIN)
        redis = running.enter_context(RedisServer({"appendfsync": "everysec"}))
        urls = {"memory": "memory:", "redis": redis.url, "sqlite": f"sqlite:{folder}/stages.db"}
        for name in options.stores.split(","):
            for items in SIZES:
                store = open_store(urls[name])
                found[f"{name} {items}"] = asyncio.run(measure(bundle, store, items, options.rounds))
                store.close()
    text = table(found)
    print(text)
    write(options.json, {"machine": machine(), "microseconds": found}, text)


def table(found: dict[str, dict[str, float]]) -> str:
    """Returns microseconds per frame and, in brackets, per step."""
    lines = [f"| stage | {' | '.join(found)} |", f"|---|{'---:|' * len(found)}"]
    for stage in (*STAGES, "all", "bare onnxruntime"):
        cells = []
        for name, spans in found.items():
            size = int(name.split()[1])
            value = sum(spans[one] for one in STAGES) if stage == "all" else spans[stage]
            cells.append(f"{value:.0f} ({value / size:.2f})")
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
