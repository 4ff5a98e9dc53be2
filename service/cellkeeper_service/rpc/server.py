"""The gRPC server: the given services, with standard health checking and reflection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from cellkeeper_service.address import check_free
from cellkeeper_service.errors import StartError

from .contract import Contract
from .health import Public
from .open_streams import OpenStreams
from .tls import Certificates

LISTENERS = 4
"""gRPC for Python accepts one call at a time, by a chain of hops between the loop and another thread. Under load, calls
queue there unseen. Each listener has its own chain, and the kernel spreads connections over the listeners."""

LEAST_PENDING = 3000
"""The most calls that gRPC itself lets wait until the loop accepts them. Beyond 1000, it ends some of them at random,
whoever sent them, and a loop that is busy for a moment may have more."""

STREAM_PATIENCE_SECONDS = 1.0
"""The official client ends its stream within a round trip of being asked. Other clients may ignore the request."""


@dataclass(frozen=True, slots=True)
class Transport:
    """Limits and options of the gRPC listeners.

    max_message_bytes: of one message, in either direction.
    max_connections: over all listeners, each of which closes at once what comes beyond its share.
    ping_ms: between two pings on a connection over which nothing comes. A client that has vanished without a sign would
    otherwise hold its connection for hours.
    max_rpcs: concurrent calls on one listener, streams included; gRPC refuses more with RESOURCE_EXHAUSTED. As
    many, and at least LEAST_PENDING, may wait until the loop accepts them; gRPC ends more with CANCELLED.
    max_connection_rpcs: concurrent calls on one connection, which the client respects by queueing further ones; 0: no
    limit.
    share_port: other processes may listen on the same port.
    certificates: for TLS; None: plain text.
    reflection: serve reflection, to everybody.
    """

    max_message_bytes: int
    max_connections: int
    ping_ms: int
    max_rpcs: int
    max_connection_rpcs: int = 0
    share_port: bool = False
    certificates: Certificates | None = None
    reflection: bool = True


class RpcServer:
    """Serves the handlers on several listeners. contracts: those of the handlers' services, for health and reflection.
    streams: the services' open streams, which `close` ends."""

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler[Any, Any]],
        contracts: Sequence[Contract],
        streams: OpenStreams,
        transport: Transport,
        interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
    ) -> None:
        listeners = LISTENERS if hasattr(socket, "SO_REUSEPORT") else 1
        options = [
            ("grpc.max_receive_message_length", transport.max_message_bytes),
            ("grpc.max_send_message_length", transport.max_message_bytes),
            ("grpc.max_allowed_incoming_connections", max(transport.max_connections // listeners, 1)),
            ("grpc.so_reuseport", 1),
            ("grpc.server.max_pending_requests", max(transport.max_rpcs, LEAST_PENDING)),
            ("grpc.server.max_pending_requests_hard_limit", max(transport.max_rpcs, LEAST_PENDING)),
            ("grpc.keepalive_time_ms", transport.ping_ms),
            ("grpc.http2.ping_timeout_ms", max(transport.ping_ms // 2, 1)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        if transport.max_connection_rpcs:
            options.append(("grpc.max_concurrent_streams", transport.max_connection_rpcs))
            options.append(("grpc.http.overload_protection", 0))  # it refuses what clients rightly count as free
        self._contracts = contracts
        self._streams = streams
        self._share_port = transport.share_port
        self._closing: list[asyncio.Task[None]] = []
        self._certificates = transport.certificates
        self._public = Public()
        self._listeners = [
            grpc.aio.server(options=options, maximum_concurrent_rpcs=transport.max_rpcs, interceptors=interceptors)
            for _ in range(listeners)
        ]
        for listener in self._listeners:
            listener.add_generic_rpc_handlers(handlers)
            listener.add_generic_rpc_handlers((self._public.health_handlers(),))
            if transport.reflection:
                listener.add_generic_rpc_handlers((self._public.reflection_handlers(contracts),))

    async def start(self, address: str) -> int:
        """Listens, begins to serve, and returns the port. Raises StartError."""
        host, _, asked = address.rpartition(":")
        if not self._share_port:
            try:
                check_free(host.strip("[]"), int(asked))  # gRPC would report it too, but in its own log lines
            except OSError as error:
                raise StartError(f"cannot listen on {address} ({error}); choose another with --listen") from error
        port = 0
        for listener in self._listeners:
            try:
                place = f"{host}:{port}" if port else address
                if self._certificates is None:
                    port = listener.add_insecure_port(place)
                else:
                    port = listener.add_secure_port(place, self._certificates.credentials())
            except RuntimeError as error:
                raise _not_free(address) from error
            if port == 0:
                raise _not_free(address)
            await listener.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return port

    async def announce_end(self) -> None:
        """Reports NOT_SERVING to load balancers. The server still accepts everything."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def close(self, grace_seconds: float) -> None:
        """Stops accepting connections and calls, and tells clients so (GOAWAY).

        Returns when the streams have ended, each after its pending messages are answered; other calls have
        `grace_seconds` to finish.
        """
        self._closing = [asyncio.create_task(listener.stop(grace_seconds)) for listener in self._listeners]
        await self._streams.end(STREAM_PATIENCE_SECONDS)

    async def stop(self, grace_seconds: float) -> None:
        """Waits for calls in flight, for at most `grace_seconds`."""
        await asyncio.gather(*(listener.stop(grace_seconds) for listener in self._listeners), *self._closing)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for name in ("", *(contract.name for contract in self._contracts)):
            await self._public.set_status(name, status)


def _not_free(address: str) -> StartError:
    return StartError(f"cannot listen on {address}: is the port taken? choose another with --listen")
