"""Wiring: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cellkeeper_service.config import Settings, split_address
from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.domain.store import Store, StoreError
from cellkeeper_service.engine.load import load_engine, warm
from cellkeeper_service.errors import StartError
from cellkeeper_service.logs import say
from cellkeeper_service.metrics import MetricsServer, ModelRow, PrometheusMeter
from cellkeeper_service.model.bundle import Bundle, read_bundle
from cellkeeper_service.readiness import Readiness
from cellkeeper_service.reload import HangUps, Reloader
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.server import RpcServer, Transport
from cellkeeper_service.rpc.servicer import Servicer
from cellkeeper_service.rpc.tracing import Tracing, start_tracing
from cellkeeper_service.scheduler.scheduler import Scheduler
from cellkeeper_service.scheduler.store_calls import StoreCalls
from cellkeeper_service.sessions.limits import Clock, Limits
from cellkeeper_service.sessions.planner import TickLimits
from cellkeeper_service.sessions.served import Models, Served
from cellkeeper_service.sessions.sessions import Call, Sessions
from cellkeeper_service.store.open import open_store

MAX_SLOTS = 1 << 18
Cost = Callable[[Call], float]
Costs = dict[bytes, dict[int, float]]
"""Of each version, by its fingerprint: seconds of an engine call of one time step, by batch size."""


def serve(settings: Settings, *, share_port: bool = False) -> None:
    """Serves until SIGTERM or SIGINT. Raises StartError where it cannot begin."""
    if settings.max_log_steps < 2 * settings.max_chunk_steps:
        raise StartError(
            f"max_log_steps: got {settings.max_log_steps}, expected at least twice max_chunk_steps "
            f"({settings.max_chunk_steps})"
        )
    split_address(settings.listen, "--listen")
    place = split_address(settings.metrics_listen, "--metrics-listen")
    hang_ups = HangUps()
    meter, readiness = PrometheusMeter(own_version()), Readiness()
    probes = readiness.why_dead, readiness.why_not_ready
    with (
        closing(start_tracing(settings.tracing, os.environ, own_version())) as tracing,
        closing(MetricsServer(meter.exposition, *place, *probes)) as metrics,
    ):
        engines, costs = load_engines(settings)
        models = make_models(engines, settings)
        store = make_store(settings)
        try:
            asyncio.run(
                _serve(settings, models, store, costs, meter, readiness, tracing, hang_ups, metrics.url, share_port)
            )
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # it is ending already, and the status says how
            store.close()


async def _serve(
    settings: Settings,
    models: dict[str, Models],
    store: Store,
    costs: Costs,
    meter: PrometheusMeter,
    readiness: Readiness,
    tracing: Tracing,
    hang_ups: HangUps,
    metrics_url: str,
    share_port: bool,
) -> None:
    clock = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000)
    sessions = Sessions(models, session_limits(settings), clock, meter)
    threads = 0 if store.name == "memory" else settings.store_threads
    store_calls = StoreCalls(store, threads, meter)
    scheduler = Scheduler(sessions, store_calls, expected_cost(costs))
    catalog = Catalog(models, wire_limits(settings))
    limits = settings.max_message_bytes, settings.max_rpcs, settings.max_connection_rpcs
    server = RpcServer(Servicer(catalog, scheduler, meter), Transport(*limits, share_port), tracing.interceptors)
    reloader = make_reloader(settings, models, costs, meter)

    meter.watch_queue(lambda: sessions.unanswered)
    meter.watch_hot_sessions(lambda: {name: sessions.hot_count(name) for name in models})
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if share_port:
        end_with_parent(stopping.set)

    listen_host, _ = split_address(settings.listen, "--listen")
    gc.freeze()  # what lives as long as the server need not be looked at again
    scheduler.start(stopping.set)
    port = await server.start(settings.listen)
    readiness.serving(store_calls.reach)
    announce(models, meter, store, settings)
    say(f"listening on {listen_host}:{port}")
    say(f"metrics on {metrics_url}")
    hang_ups.hand_over(reloader.request)
    await stopping.wait()

    readiness.end()
    await server.announce_end()
    if settings.drain_delay_ms and scheduler.running:
        say(f"stopping: serving on for {settings.drain_delay_ms} ms, so that load balancers notice")
        await asyncio.sleep(settings.drain_delay_ms / 1000)
    say("stopping: finishing what is under way")
    grace_seconds = settings.drain_timeout_ms / 1000
    await server.close(grace_seconds)
    await asyncio.wait_for(_drain(scheduler, server, grace_seconds), grace_seconds + 5)
    await reloader.close()
    store_calls.close()
    say("stopped")


async def _drain(scheduler: Scheduler, server: RpcServer, grace_seconds: float) -> None:
    """New requests are refused from here on; the replies to the others leave before the connections close."""
    try:
        await asyncio.wait_for(scheduler.drain(), grace_seconds)
    except asyncio.TimeoutError:
        say("stopping: some requests were not finished in time; they were not acknowledged")
    await server.stop(1.0)


def end_with_parent(end: Callable[[], None]) -> None:
    """For a worker: however the process that started it ends, its stdin, on which nothing ever comes, ends then. What
    the worker still has to say goes nowhere."""
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def ended() -> None:
        loop.remove_reader(stdin)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        end()

    loop.add_reader(stdin, ended)


def load_engines(settings: Settings) -> tuple[list[Engine], Costs]:
    """The engines of all bundles, and of each what a call costs: seconds by batch size."""
    engines, costs = [], {}
    for folder in settings.models:
        engine = load_engine(read_bundle(Path(folder)), settings.device, settings.max_batch, settings.threads)
        costs[engine.spec.fingerprint] = warm(engine)
        engines.append(engine)
    return engines, costs


def make_reloader(settings: Settings, models: dict[str, Models], costs: Costs, meter: PrometheusMeter) -> Reloader:
    """Reads the folders anew when it is asked to."""
    names = {served.spec.fingerprint: name for name, versions in models.items() for served in versions}
    folders = [Path(folder) for folder in settings.models]

    def load(bundle: Bundle, between: Callable[[], None]) -> Served:
        engine = load_engine(bundle, settings.device, settings.max_batch, settings.threads, between)
        costs[engine.spec.fingerprint] = warm(engine)
        return serve_version(engine, settings, len(folders))

    return Reloader(
        folders,
        [names[fingerprint] for fingerprint in list(costs)],
        models,
        load,
        keep=settings.keep_versions,
        count=meter.reloaded,
        on_change=lambda: show_models(models, meter),
    )


def make_models(engines: list[Engine], settings: Settings) -> dict[str, Models]:
    """Versions by model name, in the order given: the first of a name takes new sessions."""
    by_name: dict[str, list[Engine]] = {}
    for engine in engines:
        by_name.setdefault(engine.spec.name, []).append(engine)
    for name, versions in by_name.items():
        check_versions(name, versions)
    models = {}
    for name, versions in by_name.items():
        served = [serve_version(engine, settings, len(engines)) for engine in versions]
        models[name] = Models(served, settings.accept_other_numerics)
    return models


def serve_version(engine: Engine, settings: Settings, shares: int) -> Served:
    """The engine with its slots, in one of so many shares of the arena's memory. Raises StartError."""
    budget_bytes = settings.arena_mib * 1024 * 1024 // shares
    slots = min(budget_bytes // (2 * max(engine.spec.state_bytes, 1)), MAX_SLOTS)
    if slots < settings.max_batch:
        raise StartError(
            f"arena_mib: {settings.arena_mib} MiB have room for {slots} hot sessions of {engine.spec.name}, "
            f"and a batch has {settings.max_batch}; raise --arena-mib or lower --max-batch"
        )
    return Served(engine, slots, settings.max_replay_steps)


def check_versions(name: str, versions: list[Engine]) -> None:
    """Versions of one model must look the same from outside. Raises StartError."""
    first = versions[0].spec
    if len({engine.spec.fingerprint for engine in versions}) < len(versions):
        raise StartError(f"model {name}: the same version was given twice; name each folder once")
    for engine in versions[1:]:
        spec = engine.spec
        if not spec.looks_like(first):
            raise StartError(
                f"model {name}: versions {first.fingerprint.hex()[:12]} and {spec.fingerprint.hex()[:12]} take or give "
                "different tensors; serve them under different names"
            )
    feedbacks = {engine.spec.feedback for engine in versions if engine.spec.feedback is not None}
    if len(feedbacks) > 1:
        raise StartError(
            f"model {name}: feedback: its versions declare different ones, expected the same in each config.json"
        )


def make_store(settings: Settings) -> Store:
    """A store that may be served on. Raises StartError."""
    try:
        store = open_store(settings.store, timeout_ms=settings.store_timeout_ms, wait_replicas=settings.wait_replicas)
    except StoreError as error:
        raise StartError(without_secrets(str(error), settings.store)) from error
    try:
        store.check()
    except StoreError as error:
        store.close()
        raise StartError(without_secrets(str(error), settings.store)) from error
    return store


def without_secrets(text: str, url: str) -> str:
    """The text without the user and the password of a store's URL."""
    scheme, _, rest = url.partition(":")
    secrets, found, _ = rest.lstrip("/").rpartition("@")
    if scheme == "sqlite":
        return text
    text = re.sub(r"(password=)[^&\s'\"]+", r"\1***", text)
    return text.replace(secrets, "***").replace(repr(secrets)[1:-1], "***") if found else text


def session_limits(settings: Settings) -> Limits:
    return Limits(
        max_requests=settings.max_requests,
        max_request_bytes=settings.max_request_bytes,
        max_session_requests=settings.max_session_requests,
        max_log_steps=settings.max_log_steps,
        default_ttl_ms=settings.default_ttl_ms,
        retry_delay_ms=settings.retry_delay_ms,
        tick=TickLimits(settings.max_slice_steps, settings.max_long_steps),
    )


def wire_limits(settings: Settings) -> WireLimits:
    return WireLimits(
        max_chunk_steps=settings.max_chunk_steps,
        max_frame_items=settings.max_frame_items,
        max_log_steps=settings.max_log_steps,
        max_message_bytes=settings.max_message_bytes,
        default_timeout_ms=settings.default_timeout_ms,
        max_stream_frames=settings.max_stream_frames,
    )


def expected_cost(costs: Costs) -> Cost:
    """Seconds of an engine call, from those measured at warm-up for the next larger batch."""
    tables: dict[bytes, tuple[list[int], dict[int, float]]] = {}

    def cost(call: Call) -> float:
        fingerprint = call.served.spec.fingerprint
        found = tables.get(fingerprint)
        if found is None:
            table = costs[fingerprint]
            found = tables[fingerprint] = (sorted(table), table)
        sizes, table = found
        size = sizes[min(bisect_left(sizes, call.batch), len(sizes) - 1)]
        return table[size] * call.steps

    return cost


def announce(models: dict[str, Models], meter: PrometheusMeter, store: Store, settings: Settings) -> None:
    """One line for each model, and one for the store."""
    show_models(models, meter)
    for name, versions in models.items():
        for served in versions:
            engine, spec = served.engine, served.spec
            exact = "exact" if engine.exact else f"not exact (differs by up to {engine.tolerance:.1e})"
            fingerprint = spec.fingerprint.hex()[:12]
            say(f"model {name} {fingerprint}: {engine.numerics}; {exact}; {served.slots.count} hot sessions")
    meter.store_opened(store.name, store.facts)
    say(f"store {store.name}: {without_secrets(settings.store.rpartition('@')[2], settings.store)}")  # never a password


def show_models(models: dict[str, Models], meter: PrometheusMeter) -> None:
    """Puts what is served into the metrics."""
    rows = []
    for name, versions in models.items():
        for served in versions:
            engine, fingerprint = served.engine, served.spec.fingerprint.hex()
            current = served is versions.default
            rows.append(ModelRow(name, fingerprint, engine.name, engine.device, engine.numerics, engine.exact, current))
    meter.show_models(rows)


def own_version() -> str:
    try:
        return version("cellkeeper")
    except PackageNotFoundError:
        return "unknown"
