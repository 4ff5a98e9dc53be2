"""Checks one endpoint from outside: that it is reachable, encrypted, protected and serving, and what it serves."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

from .._transport.channel import HEALTH
from .._transport.credentials import Tls
from .._transport.readiness import SERVING
from .._transport.target import checked_target, is_loopback, proxy_options
from .._transport.wire import model_of
from ..errors import CellkeeperError, InvalidArgument
from ..types import Model
from .finding import Finding, fail, ok, warn

EXPIRES_SOON = timedelta(days=21)


class EndpointCheck:
    """One endpoint and how to access it. models: None if it did not say. Use as a context manager."""

    def __init__(self, target: str, tls: Tls | None, token: str | None, timeout: float) -> None:
        self.target = target
        self.serving = False
        self.models: list[Model] | None = None
        self.token = token
        self.tls = tls
        self._timeout = timeout
        if tls is None:
            self._channel = grpc.insecure_channel(target, proxy_options(target))
        else:
            self._channel = grpc.secure_channel(target, tls.credentials(), (*proxy_options(target), *tls.options()))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def run(self) -> list[Finding]:
        """Runs the checks from the outside in. Stops where it cannot get further."""
        try:
            checked_target(self.target)
        except InvalidArgument as error:
            return [fail(self.target, "reach", str(error), "correct the endpoint")]
        began = time.monotonic()
        trouble = self._reach()
        spent = time.monotonic() - began
        if trouble:
            text = f"not reached in {spent:.2g} s: {trouble}"
            advice = "check that it runs, that its port is open, that its name resolves, and whether it expects TLS"
            return [fail(self.target, "reach", text, advice)]
        reached = ok(self.target, "reach", f"in {1000 * spent:.0f} ms")
        return [reached, self._tls(), self._health(), *self._auth(), *self._list()]

    def _reach(self) -> str:
        """Tries once to connect. Returns what went wrong, or "". Does not wait for a server that refuses."""
        outcome = threading.Event()
        ready = grpc.ChannelConnectivity.READY
        states: list[grpc.ChannelConnectivity] = []

        def seen(state: grpc.ChannelConnectivity) -> None:
            states.append(state)
            if state in (ready, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                outcome.set()

        self._channel.subscribe(seen, try_to_connect=True)
        outcome.wait(self._timeout)
        self._channel.unsubscribe(seen)
        if states and states[-1] is ready:
            return ""
        if not outcome.is_set():
            return "the attempt to connect got no answer"
        try:  # the state does not say why; a call does
            self._ask(())
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return _words(error)
        return ""

    def _tls(self) -> Finding:
        if self.tls is None:
            if is_loopback(self.target):
                return ok(self.target, "TLS", "none, on a local address")
            return warn(
                self.target,
                "TLS",
                "none: anyone on the network path can read and alter the traffic",
                "docs/security.md",
            )
        try:
            expires = _expiry(self.target, self.tls, self._timeout)
        except (OSError, ValueError, InvalidArgument) as error:
            return warn(
                self.target, "TLS", f"encrypted; its certificate could not be read ({error})", "check it by hand"
            )
        left = expires - datetime.now(timezone.utc)
        if left < EXPIRES_SOON:
            return warn(self.target, "TLS", f"its certificate expires in {left.days} days", "renew it")
        return ok(self.target, "TLS", f"encrypted; its certificate is valid for {left.days} days")

    def _health(self) -> Finding:
        check = self._channel.unary_unary(HEALTH, request_serializer=None, response_deserializer=None)
        try:
            reply = check(b"", timeout=self._timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            return warn(
                self.target, "health", f"no answer to the health check: {_words(error)}", "let health checks through"
            )
        if reply != SERVING:
            return fail(self.target, "health", "NOT_SERVING", "it is starting or shutting down: wait, or check its log")
        self.serving = True
        return ok(self.target, "health", "SERVING")

    def _auth(self) -> list[Finding]:
        """Checks whether a call without a token is accepted."""
        try:
            self._ask(())
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                findings = [ok(self.target, "auth", "refuses calls without a token")]
                if self.token is None:
                    findings.append(fail(self.target, "auth", "no token was given", "give one with --token-file"))
                return findings
            return []  # listing the models reports any other error
        if is_loopback(self.target):
            return [ok(self.target, "auth", "none, on a local address")]
        return [
            warn(self.target, "auth", "none: anyone who can reach it can step and read sessions", "docs/security.md")
        ]

    def _list(self) -> list[Finding]:
        try:
            self.models = [model_of(info) for info in self._ask(self.metadata).models]
        except CellkeeperError as error:
            return [fail(self.target, "model", str(error), "use a client as new as the server")]
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.UNAUTHENTICATED and self.token is None:
                return []  # reported above
            refused = code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            advice = "use another token" if refused else "check its log"
            return [fail(self.target, "model", f"its models cannot be listed: {_words(error)}", advice)]
        names = [f"{model.name} {model.fingerprint.hex()[:12]} ({model.numerics})" for model in self.models]
        return [ok(self.target, "model", ", ".join(names))] if names else []

    def _ask(self, metadata: tuple[tuple[str, str], ...]) -> pb.ListModelsResponse:
        stub: Any = CellkeeperStub(self._channel)  # type: ignore[no-untyped-call]
        answer: pb.ListModelsResponse = stub.ListModels(
            pb.ListModelsRequest(), timeout=self._timeout, metadata=metadata
        )
        return answer

    def __enter__(self) -> EndpointCheck:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def _expiry(target: str, tls: Tls, timeout: float) -> datetime:
    """Returns when the certificate expires.

    Raises OSError if the handshake fails, ValueError for a bad target, InvalidArgument for files that cannot be used.
    """
    host, _, port = target.rpartition(":")
    context = tls.context()
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host.strip("[]"), int(port)), timeout) as plain,
        context.wrap_socket(plain, server_hostname=tls.server_name or host.strip("[]")) as secured,
    ):
        certificate = secured.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), timezone.utc)


def _words(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"
