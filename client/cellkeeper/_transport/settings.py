"""The settings of a client, checked."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import grpc

from .._session.arguments import invalid, seconds_from_0, timeout_seconds, whole_number
from ..errors import InvalidArgument
from ..types import Backoff
from .credentials import Tls, Token, TokenSource
from .target import checked_targets
from .websocket_address import WebSocketAddress, checked_addresses

DEFAULT_TARGET = "localhost:50051"


class ClientSettings:
    """The parameters of AsyncClient, which documents them, checked; timeouts in seconds.

    credentials: None: plain text. channel_options: gRPC's. websockets: for the targets, in their order; empty: frames
    go over gRPC. Raises InvalidArgument, which names the parameter.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        timeout: float,
        attempt_timeout: float,
        connect_timeout: float,
        window_steps: int,
        buffer_steps: int,
        buffer_bytes: int,
        max_frame_items: int,
        backoff: Backoff | None,
        credentials: grpc.ChannelCredentials | None,
        tls: Tls | bool,
        token: TokenSource | None,
        websocket: str | Sequence[str] | None,
    ) -> None:
        self.targets = checked_targets(target)
        self.timeout = timeout_seconds(timeout, 30.0)
        self.attempt_timeout = timeout_seconds(attempt_timeout, 10.0, "attempt_timeout")
        self.connect_timeout = seconds_from_0(connect_timeout, "connect_timeout")
        self.window_steps = whole_number(window_steps, "window_steps", 1)
        self.max_frame_items = whole_number(max_frame_items, "max_frame_items", 1)
        self.buffer_steps = whole_number(buffer_steps, "buffer_steps", 1)
        self.buffer_bytes = whole_number(buffer_bytes, "buffer_bytes", 0)
        if self.buffer_steps < self.window_steps:
            why = "the client must keep at least as many answered inputs as it may have unanswered ones"
            raise invalid("buffer_steps", str(self.buffer_steps), f"at least window_steps, {self.window_steps}: {why}")
        # A path, for instance, would otherwise mean plain text.
        _check_kind("tls", tls, "True, False or a Tls", bool, Tls)
        _check_kind("credentials", credentials, "grpc.ChannelCredentials", grpc.ChannelCredentials)
        _check_backoff(backoff)
        if credentials is not None and tls:
            text = "credentials, tls: got both, expected one of them"
            raise InvalidArgument(text, reason="INVALID_FIELD", field="credentials")
        if credentials is not None and websocket is not None:
            text = "credentials, websocket: got both, expected tls instead of credentials, which are for gRPC only"
            raise InvalidArgument(text, reason="INVALID_FIELD", field="credentials")
        if tls is True:
            tls = Tls()
        self.backoff = backoff or Backoff()
        self.credentials = tls.credentials() if tls else credentials
        self.channel_options = tls.options() if tls else ()
        self.token = Token(token)
        self.websockets = checked_addresses(websocket, self.targets, tls or None)

    def window_steps_for(self, max_log_steps: int) -> int:
        """Returns the most unanswered time steps of one session.

        max_log_steps: how many time steps the server's log holds; 0: no limit. The window stays well below it, so that
        checkpoints can follow the acknowledgements.
        """
        return min(self.window_steps, max(1, max_log_steps // 2)) if max_log_steps else self.window_steps

    def websocket_of(self, target: str) -> WebSocketAddress | None:
        """Returns the address of the target's WebSocket; None: frames to that target go over gRPC."""
        return self.websockets[self.targets.index(target)] if self.websockets else None


def _check_backoff(given: Backoff | None) -> None:
    """Refuses pauses without a length, in which a client would only make attempts."""
    _check_kind("backoff", given, "a Backoff", Backoff)
    if given is not None:
        for name in ("first_seconds", "max_seconds"):
            field, seconds = f"backoff.{name}", getattr(given, name)
            if not isinstance(seconds, Real):
                raise invalid(field, repr(seconds), "seconds above 0")
            timeout_seconds(seconds, 0.0, field)


def _check_kind(field: str, given: object, expected: str, *kinds: type) -> None:
    if given is not None and not isinstance(given, kinds):
        raise invalid(field, type(given).__name__, expected)
