"""The gRPC server: the given services, with standard health checking and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2

from cellkeeper_service.address import check_free
from cellkeeper_service.errors import StartError

from .contract import services_of
from .health import Public
from .listener import Listener
from .method import Method
from .open_streams import OpenStreams
from .tls import Certificates

LEAST_PENDING = 3000
"""The most calls that gRPC itself lets wait until the loop accepts them. Beyond 1000, it ends some of them at random,
whoever sent them, and a loop that is busy for a moment may have more."""

STREAM_PATIENCE_SECONDS = 1.0
"""The official client ends its stream within a round trip of being asked. Other clients may ignore the request."""


@dataclass(frozen=True, slots=True)
class Transport:
    """Limits and options of the gRPC server.

    max_message_bytes: of one message, in either direction.
    max_connections: gRPC closes at once what comes beyond them.
    ping_ms: between two pings on a connection over which nothing comes. A client that has vanished without a sign would
    otherwise hold its connection for hours.
    max_rpcs: concurrent calls, streams included; more are refused with RESOURCE_EXHAUSTED. As many, and at least
    LEAST_PENDING, may wait until the loop accepts them; gRPC ends more with CANCELLED.
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
    """Serves the methods, by their paths. contracts: the files of their services, for health and reflection. streams:
    the services' open streams, which `close` ends. Must be created on the event loop."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        contracts: Sequence[FileDescriptorProto],
        streams: OpenStreams,
        transport: Transport,
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", transport.max_message_bytes),
            ("grpc.max_send_message_length", transport.max_message_bytes),
            ("grpc.max_allowed_incoming_connections", transport.max_connections),
            ("grpc.so_reuseport", int(transport.share_port)),
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
        self._transport = transport
        self._closing: asyncio.Task[None] | None = None
        self._public = Public()
        every = {**methods, **self._public.health_methods()}
        if transport.reflection:
            every |= self._public.reflection_methods(contracts)
        self._listener = Listener(every, options, transport.max_rpcs)

    async def start(self, address: str) -> int:
        """Listens, begins to serve, and returns the port. Raises StartError."""
        host, _, asked = address.rpartition(":")
        if not self._transport.share_port:
            try:
                check_free(host.strip("[]"), int(asked))  # gRPC would report it too, but in its own log lines
            except OSError as error:
                raise StartError(f"cannot listen on {address} ({error}); choose another with --listen") from error
        certificates = self._transport.certificates
        # gRPC takes no empty host for all addresses, as the other ports do; this it takes for those of IPv4, too
        every = address if host else f"[::]:{asked}"
        port = self._listener.listen(every, None if certificates is None else certificates.credentials())
        if port == 0:
            raise StartError(f"cannot listen on {address}: is the port taken? choose another with --listen")
        self._listener.start()
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
        self._closing = asyncio.create_task(self._listener.stop(grace_seconds))
        await self._streams.end(STREAM_PATIENCE_SECONDS)

    async def stop(self, grace_seconds: float) -> None:
        """Waits for calls in flight, for at most `grace_seconds`."""
        await self._listener.stop(grace_seconds)
        if self._closing is not None:
            await self._closing
        await self._listener.close()

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for name in ("", *services_of(self._contracts)):
            await self._public.set_status(name, status)
