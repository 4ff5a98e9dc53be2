"""Wires the server together: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from cellkeeper_service.access.quotas import Allowances, Quota
from cellkeeper_service.access.tokens import TokenFile
from cellkeeper_service.address import address_text
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.guarded_meter import GuardedMeter
from cellkeeper_service.core.limits import Clock
from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.store_calls import StoreCalls
from cellkeeper_service.domain.clock import unix_ms
from cellkeeper_service.domain.store import Store
from cellkeeper_service.logs import say
from cellkeeper_service.metrics import MetricsServer, PrometheusMeter
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.rpc import grpc_core
from cellkeeper_service.rpc.authenticator import Authenticator
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.half_sent import HalfSent
from cellkeeper_service.rpc.kserve.descriptor import contract as kserve_contract
from cellkeeper_service.rpc.kserve.inference import Service
from cellkeeper_service.rpc.kserve.servicer import About, KServeServicer
from cellkeeper_service.rpc.kserve.statistics import Statistics
from cellkeeper_service.rpc.kserve.tensor_names import TensorNames, read_names
from cellkeeper_service.rpc.method import CONTRACT, Method, methods
from cellkeeper_service.rpc.open_streams import OpenStreams
from cellkeeper_service.rpc.server import RpcServer, Transport
from cellkeeper_service.rpc.servicer import Servicer
from cellkeeper_service.rpc.tls import Certificates
from cellkeeper_service.rpc.tracing import Tracing, start_tracing
from cellkeeper_service.rpc.unread import Unread
from cellkeeper_service.server import event_loop
from cellkeeper_service.server.config import Settings, split_address
from cellkeeper_service.server.http_front import check_installed, make_front, start_front
from cellkeeper_service.server.limits import session_limits, wire_limits
from cellkeeper_service.server.open_files import allow_connections
from cellkeeper_service.server.opening import make_store, without_secrets
from cellkeeper_service.server.process_limits import check_threads
from cellkeeper_service.server.readiness import ENDING, Readiness
from cellkeeper_service.server.reload import HangUps, Reloader
from cellkeeper_service.server.versions import (
    Costs,
    expected_cost,
    load,
    load_engines,
    make_models,
    serve_version,
    show_models,
)

if TYPE_CHECKING:
    from cellkeeper_service.rpc.http.front import HttpFront

GC_THRESHOLD = 20_000
"""New objects between two runs of the cyclic garbage collector. A tick makes a few thousand objects that live until
their commit. Python's default of 700 takes a tenth of the server's time, and finds nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that is read, opened and listening before the event loop runs.

    names: what KServe's clients call tensors, by model. tokens: None if authentication is disabled. certificates: None
    for plain text.
    """

    models: dict[str, Models]
    names: dict[str, TensorNames]
    costs: Costs
    store: Store
    meter: PrometheusMeter
    metrics_url: str
    readiness: Readiness
    tracing: Tracing
    hang_ups: HangUps
    tokens: TokenFile | None
    certificates: Certificates | None
    max_connections: int


def serve(settings: Settings, tell_parent: Callable[[str], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT.

    tell_parent: for one of several workers; called once, with the URL of its metrics. Raises StartError if it cannot
    start, and EngineLost if a device fails later, after the requests that needed it have been refused.
    """
    grpc_core.check_installed()
    settings.check()
    split_address(settings.listen, "--listen")
    place = split_address(settings.metrics_listen, "--metrics-listen")
    if settings.http_listen:
        split_address(settings.http_listen, "--http-listen")
        check_installed()
    max_connections = allow_connections(settings)
    tokens = certificates = None
    if settings.tokens:
        tokens = TokenFile(settings.tokens, default_quota(settings), counts_sessions=settings.max_ttl_ms > 0)
    if settings.tls_cert:
        certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    hang_ups = HangUps()
    meter, readiness = PrometheusMeter(own_version()), Readiness()
    probes = readiness.why_dead, readiness.why_not_ready
    with (
        closing(start_tracing(settings.tracing, os.environ, own_version())) as tracing,
        closing(MetricsServer(meter.exposition, *place, *probes)) as metrics,
    ):
        engines, costs = load_engines(settings)
        models = make_models(engines, settings)
        specs = {name: one.default.spec for name, one in models.items()}
        names = read_names(settings.kserve_names, specs, settings.kserve_layout)
        store = make_store(settings)
        try:
            check_threads(store_threads(store, settings))
            prepared = Prepared(
                models=models,
                names=names,
                costs=costs,
                store=store,
                meter=meter,
                metrics_url=metrics.url,
                readiness=readiness,
                tracing=tracing,
                hang_ups=hang_ups,
                tokens=tokens,
                certificates=certificates,
                max_connections=max_connections,
            )
            event_loop.run(_serve(settings, prepared, tell_parent))
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # it is already ending, with an exit status of its own
            store.close()


async def _serve(settings: Settings, prepared: Prepared, tell_parent: Callable[[str], None] | None) -> None:
    share_port = tell_parent is not None
    parts = make_parts(settings, prepared, share_port=share_port)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if tell_parent is not None:
        event_loop.end_with_parent(stopping.set)

    listen_host, _ = split_address(settings.listen, "--listen")
    gc.freeze()  # the collector need not visit what lives as long as the server
    gc.set_threshold(GC_THRESHOLD)
    parts.loop.start(stopping.set)
    port = await parts.server.start(settings.listen)
    http_url = "" if parts.front is None else await start_front(parts.front, settings, share_port=share_port)
    watch = asyncio.get_running_loop().create_task(parts.authenticator.watch(), name="tokens")
    prepared.readiness.serving(parts.loop.store_calls.reach)
    announce(prepared.models, prepared.meter, prepared.store, settings)
    say(f"listening on {address_text(listen_host, port)}")
    say(f"metrics on {prepared.metrics_url}")
    if http_url:
        say(f"http on {http_url}")
    if tell_parent is not None:
        tell_parent(prepared.metrics_url)
    prepared.hang_ups.hand_over(parts.reloader.request)
    await stopping.wait()

    prepared.readiness.end()
    await _stop(settings, parts)
    watch.cancel()  # not earlier: while streams drain, a token that is withdrawn must still end its own
    await parts.reloader.close()
    parts.loop.store_calls.close()
    say("stopped")


def store_threads(store: Store, settings: Settings) -> int:
    """Returns how many threads the calls of the store may take: none for one that answers at once."""
    return 0 if store.name == "memory" else settings.store_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What runs in the event loop. front: None without --http-listen."""

    loop: CoreLoop
    authenticator: Authenticator
    server: RpcServer
    front: HttpFront | None
    reloader: Reloader


def make_parts(settings: Settings, prepared: Prepared, *, share_port: bool) -> Parts:
    """Returns the parts, for the running event loop, wired and not started. share_port: with other workers."""
    models, meter = prepared.models, prepared.meter
    counted = GuardedMeter(meter)
    clock = Clock(time.monotonic, unix_ms)
    window_s, delay_ms = settings.max_ttl_ms / 1000, settings.retry_delay_ms
    allowances = Allowances(default_quota(settings), window_s, retry_delay_ms=delay_ms)
    core = Core(models, session_limits(settings), clock, counted, owe=allowances.owe)
    calls = StoreCalls(prepared.store, store_threads(prepared.store, settings), counted)
    loop = CoreLoop(core, calls, expected_cost(prepared.costs))
    wire = wire_limits(settings)
    authenticator = Authenticator(Catalog(models, wire), prepared.tokens, allowances)
    most_slow = max(settings.max_request_bytes // settings.max_message_bytes, 1)
    unread = Unread(settings.message_timeout_ms, settings.max_unread_rpcs, most_slow)
    half_sent = HalfSent(settings.max_request_bytes, settings.max_message_bytes)
    streams = OpenStreams(authenticator, counted, unread, half_sent)
    servicer = Servicer(authenticator, loop, counted, unread, streams)
    served = methods(servicer, wire)
    contracts = [CONTRACT]
    if settings.kserve == "on":
        served |= kserve_methods(settings, prepared, servicer)
        contracts.append(kserve_contract())
    front = None
    if settings.http_listen:
        front = make_front(settings, own_version(), models, wire, servicer, meter, prepared.certificates)
    transport = Transport(
        max_message_bytes=settings.max_message_bytes,
        max_connections=prepared.max_connections,
        ping_ms=settings.ping_ms,
        max_rpcs=settings.max_rpcs,
        max_connection_rpcs=settings.max_connection_rpcs,
        share_port=share_port,
        certificates=prepared.certificates,
        reflection=authenticator.is_open,
    )
    server = RpcServer(prepared.tracing.traced(served), contracts, streams, transport)
    reloader = make_reloader(settings, models, prepared.costs, meter)
    meter.watch_queue(lambda: core.unanswered)
    meter.watch_hot_sessions(lambda: {name: core.cached_count(name) for name in models})
    watch_files(prepared, reloader)
    return Parts(loop=loop, authenticator=authenticator, server=server, front=front, reloader=reloader)


async def _stop(settings: Settings, parts: Parts) -> None:
    """Ends serving: first announces it, then finishes the requests in progress."""
    await parts.server.announce_end()
    if settings.drain_delay_ms and parts.loop.running:
        say(f"stopping: serving for another {settings.drain_delay_ms} ms, so that load balancers notice")
        await asyncio.sleep(settings.drain_delay_ms / 1000)
    say("stopping: finishing requests in progress")
    grace_seconds = settings.drain_timeout_ms / 1000
    if parts.front is not None:
        await parts.front.stop_listening()
    await parts.server.close(grace_seconds)
    await asyncio.wait_for(_drain(parts.loop, parts.server, grace_seconds), grace_seconds + 5)
    if parts.front is not None:
        await parts.front.stop()


async def _drain(loop: CoreLoop, server: RpcServer, grace_seconds: float) -> None:
    """Refuses new requests, and closes the connections after the replies to the others have left."""
    try:
        await asyncio.wait_for(loop.drain(), grace_seconds)
    except asyncio.TimeoutError:
        say("stopping: some requests did not finish in time; they were not acknowledged")
    await server.stop(1.0)


def kserve_methods(settings: Settings, prepared: Prepared, beside: Servicer) -> dict[str, Method]:
    """Returns the RPCs of KServe's protocol by their paths. beside: a servicer of the same core."""
    models, meter = prepared.models, prepared.meter
    longest_ms = settings.max_ttl_ms or settings.kserve_end_ttl_ms
    service = Service(prepared.names, min(settings.kserve_end_ttl_ms, longest_ms))

    async def why_not_ready() -> str:
        return ENDING if prepared.readiness.ending else await beside.core.store_calls.reach()

    about = About(own_version(), session_limits(settings).default_ttl_ms, why_not_ready)
    statistics = Statistics(list(models), meter.engine_calls)
    return KServeServicer(beside, service, statistics, about).methods(wire_limits(settings))


def make_reloader(settings: Settings, models: dict[str, Models], costs: Costs, meter: PrometheusMeter) -> Reloader:
    """Returns the reloader, which reads the models' folders again on request."""
    names = {served.spec.fingerprint: name for name, versions in models.items() for served in versions}
    folders = [Path(folder) for folder in settings.models]

    def load_version(bundle: Bundle, between: Callable[[], None]) -> Version:
        return serve_version(load(bundle, settings, costs, between), settings, len(folders))

    return Reloader(
        folders,
        [names[fingerprint] for fingerprint in list(costs)],
        models,
        load_version,
        keep=settings.keep_versions,
        count=meter.reloaded,
        on_change=lambda: show_models(models, meter),
    )


def watch_files(prepared: Prepared, reloader: Reloader) -> None:
    """Shows in the metrics whether the files that are read again could be used, and when the certificate expires."""
    tokens, certificates = prepared.tokens, prepared.certificates

    def failed() -> dict[str, bool]:
        found = {"models": reloader.failed}
        if tokens is not None:
            found["tokens"] = tokens.reload_failed
        if certificates is not None:
            found["certificate"] = certificates.reload_failed()
        return found

    prepared.meter.watch_files(failed, lambda: None if certificates is None else certificates.expiry())


def default_quota(settings: Settings) -> Quota:
    return Quota(settings.tenant_sessions, settings.tenant_steps_per_second, settings.tenant_inflight)


def announce(models: dict[str, Models], meter: PrometheusMeter, store: Store, settings: Settings) -> None:
    """Prints one line for each model version and one for the store, and shows both in the metrics."""
    show_models(models, meter)
    for name, versions in models.items():
        for served in versions:
            engine, spec = served.engine, served.spec
            exact = "exact" if engine.exact else f"not exact (differs by up to {engine.tolerance:.1e})"
            fingerprint = spec.fingerprint.hex()[:12]
            say(f"model {name} {fingerprint}: {engine.numerics}; {exact}; {served.slot_count} hot sessions")
    meter.store_opened(store.name, lambda: store.facts)
    say(f"store {store.name}: {without_secrets(settings.store.rpartition('@')[2], settings.store)}")  # never a password
    if (items := wire_limits(settings).max_frame_items) < settings.max_frame_items:
        say(f"max_frame_items: {items}, not {settings.max_frame_items}, so that replies fit into max_message_bytes")
    if settings.tokens and not settings.tls_cert:
        say("tokens without TLS: anyone who can read the network's packets can read them; see --tls-cert")


def own_version() -> str:
    try:
        return version("cellkeeper")
    except PackageNotFoundError:
        return "unknown"
