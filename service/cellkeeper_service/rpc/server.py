"""The gRPC server: the service itself, with standard health and reflection beside it."""

from __future__ import annotations

import socket

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cellkeeper_service.errors import StartError

from . import decoding
from .servicer import Servicer

SERVICE = decoding.SERVICE.full_name


class RpcServer:
    def __init__(self, servicer: Servicer, max_message_bytes: int, max_rpcs: int, share_port: bool) -> None:
        """max_rpcs: calls under way, streams included; a further one gets RESOURCE_EXHAUSTED from gRPC itself.
        share_port: other processes may listen on the same port (SO_REUSEPORT)."""
        options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.so_reuseport", int(share_port)),
        ]
        self._share_port = share_port
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=max_rpcs)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server.add_generic_rpc_handlers((decoding.handlers(servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: str) -> int:
        """Listens, serving, and returns the port. Raises StartError."""
        if not self._share_port:
            _check_free(address)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {address}: is the port taken? choose another with --listen") from error
        if port == 0:
            raise StartError(f"cannot listen on {address}: is the port taken? choose another with --listen")
        await self._server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return port

    async def refuse_new(self) -> None:
        """Tells load balancers that this server is going away."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Lets calls under way end, for so long at the most."""
        await self._server.stop(grace_seconds)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)


def _check_free(address: str) -> None:
    """Raises StartError where nobody can listen at the address. gRPC would say so too, but on lines of its own."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, place = found[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise StartError(f"cannot listen on {address} ({error}); choose another with --listen") from error
