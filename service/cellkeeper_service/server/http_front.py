"""Makes the HTTP front if the settings ask for one. Only this front needs aiohttp."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cellkeeper_service.address import address_text
from cellkeeper_service.core.guarded_meter import GuardedMeter
from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.models import Models
from cellkeeper_service.errors import StartError
from cellkeeper_service.metrics import PrometheusMeter, Recent
from cellkeeper_service.rpc.authenticator import Authenticator
from cellkeeper_service.rpc.catalog import MAX_PAGE_SIZE, WireLimits
from cellkeeper_service.rpc.open_streams import OpenStreams
from cellkeeper_service.rpc.tls import Certificates
from cellkeeper_service.rpc.unread import Unread
from cellkeeper_service.server.config import Settings, split_address

if TYPE_CHECKING:
    from cellkeeper_service.rpc.http.front import HttpFront

INSTALL = "pip install 'cellkeeper[http]'"


def check_installed() -> None:
    """Raises StartError if aiohttp is missing."""
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise StartError(f"http_listen: the HTTP front needs aiohttp ({error}); {INSTALL}") from error


def make_front(
    settings: Settings,
    version: str,
    models: Mapping[str, Models],
    wire: WireLimits,
    authenticator: Authenticator,
    core: CoreLoop,
    meter: PrometheusMeter,
    unread: Unread,
    streams: OpenStreams,
    certificates: Certificates | None,
) -> HttpFront:
    """Returns the HTTP front, for the running event loop."""
    from cellkeeper_service.rpc.http.front import FrontLimits, HttpFront
    from cellkeeper_service.rpc.http.guard import Guard
    from cellkeeper_service.rpc.http.servicer import About, HttpServicer
    from cellkeeper_service.rpc.http.watch import MAX_HZ

    recent = Recent(meter.registry.collect, time.monotonic)
    limits = FrontLimits(settings.max_http_body_bytes, settings.max_http_connections, settings.message_timeout_ms)
    told = {
        "max_body_bytes": settings.max_http_body_bytes,
        "max_chunk_steps": wire.max_chunk_steps,
        "max_items": wire.max_frame_items,
        "max_page_size": MAX_PAGE_SIZE,
        "max_stream_unanswered": wire.max_stream_frames,
        "max_ttl_ms": wire.max_ttl_ms,
        "max_watch_hz": MAX_HZ,
        "default_timeout_ms": wire.default_timeout_ms,
    }
    servicer = HttpServicer(authenticator, core, GuardedMeter(meter), unread, streams)
    store = core.store_calls.store.name
    asks = not authenticator.is_open
    servicer.about = About(version, store, asks, told, recent, time.monotonic())
    host, _ = split_address(settings.http_listen, "--http-listen")
    guard = Guard(host, checks_host=not settings.tokens and not settings.tls_client_ca)
    return HttpFront(servicer, models, wire, limits, guard, meter, certificates)


async def start_front(front: HttpFront, settings: Settings, *, share_port: bool) -> str:
    """Starts listening, and returns the URL. Raises StartError."""
    host, port = split_address(settings.http_listen, "--http-listen")
    port = await front.start(host, port, share_port=share_port)
    return f"{'https' if settings.tls_cert else 'http'}://{address_text(host or '0.0.0.0', port)}/"
