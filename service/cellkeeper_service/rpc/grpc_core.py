"""The parts of grpcio that are not public, in one place: its core library, as its own servers call it.

All of grpcio's servers start operations on a call and take their results from a completion queue. Each operation has a
tag, which comes back with its event; here every tag is a function of the event.

What is not public may change with any release of grpcio. The extra `server` therefore limits the releases to TESTED,
`make check-dist` serves with the oldest and the newest, and `check_installed` looks for every name in USED.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import grpc

from cellkeeper_service.errors import StartError

try:
    from grpc._cython import cygrpc  # type: ignore[attr-defined]
except ImportError:  # `check_installed` says so in one line
    cygrpc = None

TESTED = ">=1.71.0,<1.86"
USED: dict[str, Sequence[str]] = {
    "BatchOperationEvent": ("batch_operations", "tag"),
    "Call": ("cancel", "peer", "start_server_batch"),
    "CallDetails": ("deadline", "method"),
    "CompletionQueue": ("poll", "shutdown"),
    "ReceiveCloseOnServerOperation": ("cancelled",),
    "ReceiveMessageOperation": ("message",),
    "RequestCallEvent": ("call", "call_details", "invocation_metadata", "success", "tag"),
    "SendInitialMetadataOperation": (),
    "SendMessageOperation": (),
    "SendStatusFromServerOperation": (),
    "Server": ("add_http2_port", "cancel_all_calls", "register_completion_queue", "request_call", "shutdown", "start"),
    "auth_context": (),
}
"""What the server uses of `grpc._cython.cygrpc`: names, and attributes of those that are classes."""

Event = Any
OnLoop = Callable[[Event], None]
"""A tag that is called on the loop."""

NO_FLAGS = 0
MORE_FOLLOW = 1
"""GRPC_WRITE_BUFFER_HINT: the message may wait for the next one, to leave in the same packet."""


NEVER = 1e18
"""gRPC's deadline for a call without one is later than this, and not an infinite number."""


class Quiet(NamedTuple):
    """A tag whose event seldom concerns the loop.

    handle: called once, on the thread that takes the event; returns True if nothing remains to be done. on_loop: called
    on the loop otherwise.
    """

    handle: Callable[[Event], bool]
    on_loop: OnLoop


def check_installed() -> None:
    """Raises StartError if the installed grpcio lacks something that the server uses."""
    for name in _used_names():
        found: Any = cygrpc
        for part in name.split("."):
            if not hasattr(found, part):
                raise StartError(
                    f"grpcio {version('grpcio')} has no cygrpc.{name}, which the server uses; "
                    f"pip install 'cellkeeper[server]' 'grpcio{TESTED}'"
                )
            found = getattr(found, part)


def _used_names() -> Iterator[str]:
    for name, attributes in USED.items():
        yield name
        yield from (f"{name}.{attribute}" for attribute in attributes)


def new_queue() -> Any:
    return cygrpc.CompletionQueue()


def is_event(taken: Event) -> bool:
    """Returns False for what `poll` returns if there is no event, or if the queue has shut down."""
    return taken.tag is not None


def new_server(queue: Any, options: Iterable[tuple[str, int]]) -> Any:
    server = cygrpc.Server(tuple(options), False)
    server.register_completion_queue(queue)
    return server


def listen(server: Any, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """Returns the port, or 0 if the server cannot listen there."""
    if credentials is None:
        return int(server.add_http2_port(address.encode()))
    return int(server.add_http2_port(address.encode(), credentials._credentials))  # type: ignore[attr-defined]


def request_call(server: Any, queue: Any, accepted: OnLoop) -> None:
    """Asks for one call. Its event has `success` (False: the server stops), `call`, `call_details` and
    `invocation_metadata`."""
    server.request_call(queue, queue, accepted)


def deadline_of(accepted: Event) -> float | None:
    """Returns when the call must have ended, in seconds of the wall clock; None if its client did not say."""
    deadline = float(accepted.call_details.deadline)
    return deadline if deadline < NEVER else None


def receive_message(call: Any, arrived: OnLoop) -> None:
    """See `message_of`."""
    _start(call, (cygrpc.ReceiveMessageOperation(NO_FLAGS),), arrived)


def message_of(event: Event) -> bytes | None:
    """Returns the message that was received, or None if no more follow."""
    data: bytes | None = event.batch_operations[0].message()
    return data


def receive_close(call: Any, closed: Quiet) -> None:
    """See `was_cancelled`. The event comes when the call is over, for each call."""
    _start(call, (cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), closed)


def was_cancelled(event: Event) -> bool:
    """Returns True if the call ended without a status: by its client, its deadline or its connection."""
    return bool(event.batch_operations[0].cancelled())


def send_message(call: Any, data: bytes, sent: Quiet, *, first: bool, more: bool) -> None:
    """Only one message can be on its way. first: nothing was sent before. more: the next message follows at once.

    The first one does not wait for others: with it gRPC would also hold back the headers, and the event would not come.
    """
    message = cygrpc.SendMessageOperation(data, MORE_FOLLOW if more and not first else NO_FLAGS)
    _start(call, (_headers(), message) if first else (message,), sent)


def send_status(
    call: Any,
    code: grpc.StatusCode,
    details: str,
    metadata: Sequence[tuple[str, str | bytes]],
    *,
    first: bool,
    data: bytes | None = None,
) -> None:
    """Ends the call. first: nothing was sent before. data: a last message."""
    operations = [_headers()] if first else []
    if data is not None:
        operations.append(cygrpc.SendMessageOperation(data, NO_FLAGS))
    number = code.value[0]
    operations.append(cygrpc.SendStatusFromServerOperation(tuple(metadata), number, details.encode(), NO_FLAGS))
    _start(call, operations, _UNAWAITED)


def cancel(call: Any, code: grpc.StatusCode, details: str) -> None:
    """Ends the call at once, also if it cannot be given a status in the ordinary way. Its event is that of
    `receive_close`."""
    call.cancel(code.value[0], details)


def names_of_peer(call: Any) -> dict[str, Sequence[bytes]]:
    """Returns the names in the client's certificate, and what else gRPC knows of the connection's security."""
    return {name.decode(): value for name, value in (cygrpc.auth_context(call) or {}).items()}


def _headers() -> Any:
    return cygrpc.SendInitialMetadataOperation((), NO_FLAGS)


def _start(call: Any, operations: Sequence[Any], tag: OnLoop | Quiet) -> None:
    error = call.start_server_batch(operations, tag)
    if error:
        raise RuntimeError(f"gRPC refuses {[type(one).__name__ for one in operations]}: error {error}")


_UNAWAITED = Quiet(lambda event: True, lambda event: None)
