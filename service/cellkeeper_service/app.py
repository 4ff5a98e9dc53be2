"""Wiring: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cellkeeper_service.access.quotas import Allowances, Quota
from cellkeeper_service.access.tokens import TokenFile
from cellkeeper_service.config import Settings, split_address
from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.domain.store import Store, StoreError
from cellkeeper_service.engine.load import load_engine, warm
from cellkeeper_service.errors import StartError
from cellkeeper_service.metrics import MetricsServer, PrometheusMeter
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.door import Door
from cellkeeper_service.rpc.server import RpcServer, Transport
from cellkeeper_service.rpc.servicer import Servicer
from cellkeeper_service.rpc.tls import Certificates
from cellkeeper_service.scheduler.scheduler import Scheduler
from cellkeeper_service.scheduler.store_calls import StoreCalls
from cellkeeper_service.sessions.limits import Clock, Limits
from cellkeeper_service.sessions.planner import TickLimits
from cellkeeper_service.sessions.served import Models, Served
from cellkeeper_service.sessions.sessions import Call, Sessions
from cellkeeper_service.store.open import open_store

MAX_SLOTS = 1 << 18
Cost = Callable[[Call], float]


def serve(settings: Settings, *, share_port: bool = False) -> None:
    """Serves until SIGTERM or SIGINT. Raises StartError where it cannot begin."""
    if settings.max_log_steps < 2 * settings.max_chunk_steps:
        raise StartError(
            f"max_log_steps: got {settings.max_log_steps}, expected at least twice max_chunk_steps "
            f"({settings.max_chunk_steps})"
        )
    for address, flag in ((settings.listen, "--listen"), (settings.metrics_listen, "--metrics-listen")):
        split_address(address, flag)
    tokens, certificates = read_tokens(settings), read_certificates(settings)
    engines, costs = load_engines(settings)
    models = make_models(engines, settings)
    store = make_store(settings)
    try:
        asyncio.run(_serve(settings, models, store, costs, share_port, tokens, certificates))
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it is ending already, and the status says how
        store.close()


async def _serve(
    settings: Settings,
    models: dict[str, Models],
    store: Store,
    costs: dict[bytes, dict[int, float]],
    share_port: bool,
    tokens: TokenFile | None,
    certificates: Certificates | None,
) -> None:
    meter = PrometheusMeter(own_version())
    clock = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000)
    sessions = Sessions(models, session_limits(settings), clock, meter)
    threads = 0 if store.name == "memory" else settings.store_threads
    store_calls = StoreCalls(store, threads, meter)
    scheduler = Scheduler(sessions, store_calls, expected_cost(costs))
    door = make_door(Catalog(models, wire_limits(settings)), tokens, settings)
    limits = settings.max_message_bytes, settings.max_rpcs, settings.max_connection_rpcs
    transport = Transport(*limits, share_port, certificates, reflection=door.is_open)
    server = RpcServer(Servicer(door, scheduler, meter), transport)

    meter.watch_queue(lambda: sessions.unanswered)
    meter.watch_hot_sessions(lambda: {name: sessions.hot_count(name) for name in models})
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    host, port = split_address(settings.metrics_listen, "--metrics-listen")
    metrics = MetricsServer(meter.exposition, host, port, lambda: not stopping.is_set())
    try:
        listen_host, _ = split_address(settings.listen, "--listen")
        gc.freeze()  # what lives as long as the server need not be looked at again
        scheduler.start(stopping.set)
        port = await server.start(settings.listen)
        watch = asyncio.get_running_loop().create_task(door.watch(), name="tokens")
        announce(models, meter, store, settings)
        say(f"listening on {listen_host}:{port}")
        say(f"metrics on {metrics.url}")
        await stopping.wait()
        watch.cancel()
        say("stopping: finishing what is under way")
        await server.refuse_new()
        grace_seconds = settings.drain_timeout_ms / 1000
        await asyncio.wait_for(_drain(scheduler, server, grace_seconds), grace_seconds + 5)
        store_calls.close()
        say("stopped")
    finally:
        metrics.close()


async def _drain(scheduler: Scheduler, server: RpcServer, grace_seconds: float) -> None:
    """New requests are refused from here on; the replies to the others leave before the connections close."""
    try:
        await asyncio.wait_for(scheduler.drain(), grace_seconds)
    except asyncio.TimeoutError:
        say("stopping: some requests were not finished in time; they were not acknowledged")
    await server.stop(1.0)


def load_engines(settings: Settings) -> tuple[list[Engine], dict[bytes, dict[int, float]]]:
    """The engines of all bundles, and of each what a call costs: seconds by batch size."""
    engines, costs = [], {}
    for folder in settings.models:
        engine = load_engine(read_bundle(Path(folder)), settings.device, settings.max_batch, settings.threads)
        costs[engine.spec.fingerprint] = warm(engine)
        engines.append(engine)
    return engines, costs


def make_models(engines: list[Engine], settings: Settings) -> dict[str, Models]:
    """Versions by model name, in the order given: the first of a name takes new sessions."""
    by_name: dict[str, list[Engine]] = {}
    for engine in engines:
        by_name.setdefault(engine.spec.name, []).append(engine)
    for name, versions in by_name.items():
        check_versions(name, versions)
    budget_bytes = settings.arena_mib * 1024 * 1024 // len(engines)
    models = {}
    for name, versions in by_name.items():
        served = []
        for engine in versions:
            slots = min(budget_bytes // (2 * max(engine.spec.state_bytes, 1)), MAX_SLOTS)
            if slots < settings.max_batch:
                raise StartError(
                    f"arena_mib: {settings.arena_mib} MiB have room for {slots} hot sessions of {name}, "
                    f"and a batch has {settings.max_batch}; raise --arena-mib or lower --max-batch"
                )
            served.append(Served(engine, slots, settings.max_replay_steps))
        models[name] = Models(served, settings.accept_other_numerics)
    return models


def check_versions(name: str, versions: list[Engine]) -> None:
    """Versions of one model must look the same from outside. Raises StartError."""
    first = versions[0].spec
    if len({engine.spec.fingerprint for engine in versions}) < len(versions):
        raise StartError(f"model {name}: the same version was given twice; name each folder once")
    for engine in versions[1:]:
        spec = engine.spec
        same = (spec.input, spec.vocabulary, spec.missing_values, spec.outputs, spec.states) == (
            first.input,
            first.vocabulary,
            first.missing_values,
            first.outputs,
            first.states,
        )
        if not same:
            raise StartError(
                f"model {name}: versions {first.fingerprint.hex()[:12]} and {spec.fingerprint.hex()[:12]} take or give "
                "different tensors; serve them under different names"
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
    if scheme == "sqlite" or not found:
        return text
    return text.replace(secrets, "***").replace(repr(secrets)[1:-1], "***")


def read_tokens(settings: Settings) -> TokenFile | None:
    """None: nobody is asked for any. Raises StartError."""
    if not settings.tokens:
        return None
    return TokenFile(settings.tokens, default_quota(settings), counts_sessions=settings.max_ttl_ms > 0)


def read_certificates(settings: Settings) -> Certificates | None:
    """None: plain text. Raises StartError."""
    if not settings.tls_cert:
        return None
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def make_door(catalog: Catalog, tokens: TokenFile | None, settings: Settings) -> Door:
    """Who is let in, and to how much."""
    default = default_quota(settings)
    if tokens is None and not default:
        return Door(catalog)
    allowances = Allowances(default, settings.max_ttl_ms / 1000, time.monotonic, settings.retry_delay_ms)
    return Door(catalog, tokens, allowances)


def default_quota(settings: Settings) -> Quota:
    return Quota(settings.tenant_sessions, settings.tenant_steps_per_second, settings.tenant_inflight)


def session_limits(settings: Settings) -> Limits:
    return Limits(
        max_requests=settings.max_requests,
        max_request_bytes=settings.max_request_bytes,
        max_session_requests=settings.max_session_requests,
        max_log_steps=settings.max_log_steps,
        default_ttl_ms=settings.default_ttl_ms or settings.max_ttl_ms,
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
        max_ttl_ms=settings.max_ttl_ms,
    )


def expected_cost(costs: dict[bytes, dict[int, float]]) -> Cost:
    """Seconds of an engine call, from those measured at warm-up for the next larger batch."""
    tables = {fingerprint: (sorted(table), table) for fingerprint, table in costs.items()}

    def cost(call: Call) -> float:
        sizes, table = tables[call.served.spec.fingerprint]
        size = sizes[min(bisect_left(sizes, call.batch), len(sizes) - 1)]
        return table[size] * call.steps

    return cost


def announce(models: dict[str, Models], meter: PrometheusMeter, store: Store, settings: Settings) -> None:
    """One line for each model, and one for the store."""
    for name, versions in models.items():
        for served in versions:
            engine, spec = served.engine, served.spec
            fingerprint = spec.fingerprint.hex()
            exact = "exact" if engine.exact else f"not exact (differs by up to {engine.tolerance:.1e})"
            meter.model_loaded(name, fingerprint, engine.name, engine.device, engine.numerics, engine.exact)
            say(f"model {name} {fingerprint[:12]}: {engine.numerics}; {exact}; {served.slots.count} hot sessions")
    say(f"store {store.name}: {settings.store.rpartition('@')[2]}")  # never a password
    if settings.tokens and not settings.tls_cert:
        say("tokens without TLS: whoever can read the network's packets can read them; see --tls-cert")


def own_version() -> str:
    try:
        return version("cellkeeper")
    except PackageNotFoundError:
        return "unknown"


def say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)
