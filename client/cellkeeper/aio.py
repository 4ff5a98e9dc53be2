"""The asyncio client."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import timedelta
from typing import Any
from weakref import finalize

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import ArrayLike

from ._session.arguments import (
    id_text,
    invalid,
    output_names,
    session_id,
    timeout_seconds,
    ttl_milliseconds,
)
from ._session.arguments import position as checked_position
from ._session.event_loop import check_loop
from ._session.not_copied import NotCopied
from ._session.time_limit import TimeLeft
from ._transport.calls import itself
from ._transport.connection import Connection
from ._transport.credentials import Tls, TokenSource
from ._transport.forks import INHERITED, check_process, connects, disown_after_fork
from ._transport.readiness import wait_until_ready
from ._transport.requests import request_id
from ._transport.settings import DEFAULT_TARGET, ClientSettings
from ._transport.wire import model_of, position_message, position_of, state_messages
from .administration import AsyncAdministration
from .errors import CellkeeperError, Closed, ForkedProcess, InvalidArgument, ModelChanged
from .group import AsyncGroup
from .position import Position
from .session import AsyncSession
from .types import Backoff, Counters, Model

__all__ = ["AsyncClient", "AsyncGroup", "AsyncSession"]


class AsyncClient(NotCopied, AsyncAdministration):
    """Talks to one or several Cellkeeper endpoints. Belongs to the event loop in which it is first used.

    target: "host:port", or several: each session prefers one of them, and uses the next one while that fails. timeout:
    seconds for each call, including retries, unless the call names its own. attempt_timeout: seconds without an answer
    after which an attempt is abandoned and made again. connect_timeout: seconds for which a client that has not yet
    reached any server keeps trying one that refuses the connection; after that, calls raise Unavailable. Raise it to
    wait for a server that starts later; a server that was reached before is retried until the call's deadline.
    window_steps: the most unanswered time steps of one session. buffer_steps, buffer_bytes: answered inputs to keep for
    each session; the client replays them if a server lost them. outputs: what steps return by default. max_frame_items:
    the most chunks in one message; a lower limit of the server takes precedence. backoff: the pauses between retries.
    tls: True, or a Tls with files of its own; False: plain text. credentials: gRPC credentials, instead of `tls`.
    token: a bearer token, the path of the file that holds it, or a callable that returns it (called in the event loop's
    thread, so it must not block); a new token takes effect without any call failing. websocket: "ws://host:port" of the
    server's --http-listen ("wss://..." with `tls`), or one for each target, in the same order: steps go over a
    WebSocket, which is faster; everything else goes over gRPC. It needs the package websockets (pip install
    'cellkeeper[websocket]').
    """

    def __init__(
        self,
        target: str | Sequence[str] = DEFAULT_TARGET,
        *,
        timeout: float = 30.0,
        attempt_timeout: float = 10.0,
        connect_timeout: float = 0.8,
        window_steps: int = 64,
        buffer_steps: int = 1024,
        buffer_bytes: int = 1 << 20,
        outputs: Sequence[str] = ("prediction",),
        max_frame_items: int = 256,
        backoff: Backoff | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        tls: Tls | bool = False,
        token: TokenSource | None = None,
        websocket: str | Sequence[str] | None = None,
    ) -> None:
        check_process()
        self._settings = settings = ClientSettings(
            target,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            connect_timeout=connect_timeout,
            window_steps=window_steps,
            buffer_steps=buffer_steps,
            buffer_bytes=buffer_bytes,
            max_frame_items=max_frame_items,
            backoff=backoff,
            credentials=credentials,
            tls=tls,
            token=token,
            websocket=websocket,
        )
        self.targets = settings.targets
        self.timeout = settings.timeout
        self.outputs = output_names(outputs)
        self.counters = Counters()
        self._models: dict[tuple[str, bytes], Model] = {}
        self._connection: Connection | None = None
        self._finalizer: finalize[Any, AsyncClient] | None = None
        self._closed: CellkeeperError | None = None

    def __repr__(self) -> str:
        return f"<AsyncClient {', '.join(self.targets)}{', closed' if self._closed else ''}>"

    async def __aenter__(self) -> AsyncClient:
        self._connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def wait_ready(self, timeout: float | timedelta | None = None) -> None:
        """Waits until a server is ready: it answers, accepts the client's token, serves a model, and reaches its store.

        timeout: seconds; None: the client's. With several endpoints, one that is ready is enough. connect_timeout does
        not apply. Raises DeadlineExceeded, which says what was wrong last (connection refused, NOT_SERVING, the store
        ...), and immediately what waiting cannot fix, such as AccessDenied.
        """
        connection, seconds = self._connected(), timeout_seconds(timeout, self.timeout)
        await wait_until_ready(connection.endpoints, self._settings, connection.closing, seconds)

    async def close(self) -> None:
        """Ends every waiting call with Closed, and closes the connections. Sessions stay at the server.

        Closing again does nothing. Raises WrongEventLoop if the client belongs to another event loop that is not
        closed.
        """
        if self._closed:
            return
        connection = self._connection
        loop_ended = connection is not None and connection.loop.is_closed()
        if connection is not None and not loop_ended:
            check_loop(connection.loop)
        self._closed = Closed("the client was closed")
        if self._finalizer is not None:
            self._finalizer.detach()
        if connection is not None:
            if loop_ended:  # no caller waits, and nothing can be awaited in that loop any more
                connection.disown(self._closed)
            else:
                await connection.close(Closed("the client was closed"))

    def disown(self) -> None:
        """Called in a forked process: the client and its sessions raise on every use from now on."""
        self._closed = ForkedProcess(INHERITED)
        if self._connection is not None:
            self._connection.disown(self._closed)

    # ------------------------------------------------------------------------------------------ sessions

    async def session(
        self,
        session: str,
        *,
        model: str = "",
        ttl: float | timedelta | None = None,
        expect: Position | None = None,
        at: Position | None = None,
        initial_state: Mapping[str, ArrayLike] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> AsyncSession:
        """Creates the session, or continues it after its last step. `open` is another name for this method.

        session: its id, 1 to 256 bytes of UTF-8. model: its name; optional while the server serves exactly one. ttl:
        seconds (or a timedelta) of idle time after which the session expires; 0: never; None: the server's default, or
        the session's own. expect: a position whose history the session must have; the session is never created then,
        and may be further on. at: as `expect`, and the object starts at this position, instead of after the session's
        last step: a step that the session already has returns its outputs again (`replayed`), or raises StepConflict
        if its inputs differ; so does a chunk of which the session has only the beginning. initial_state: tensors by
        name, in the shapes of `model.states` ([layers, size] for an LSTM's h), for a new session only. outputs: what
        its steps return by default; None: the client's. timeout: seconds for the call, including retries; None: the
        client's.

        With `expect` or `at`, raises SessionNotFound, GenerationChanged or HistoryChanged if there is no such history;
        StepGap if the server is behind that position (it lost steps: open without it, and send the missing ones again);
        StepCompacted if the server has compacted that position and cannot check it. Otherwise raises InvalidArgument,
        which names the field, and Unavailable or DeadlineExceeded, after which it is safe to repeat the call.
        """
        session, model, ttl_ms = session_id(session), id_text(model, "model"), ttl_milliseconds(ttl)
        expect, at = checked_position(expect, "expect"), checked_position(at, "at")
        if expect is not None and at is not None:
            raise invalid("expect", "a Position", "None together with `at`, which checks the same")
        outputs = self.outputs if outputs is None else output_names(outputs)
        left = TimeLeft(timeout_seconds(timeout, self.timeout))
        state = []
        if initial_state is not None:
            state = state_messages(await self.model(model, timeout=left()), initial_state, "initial_state")
        known = at or expect
        request = pb.OpenRequest(
            model=model,
            session=session,
            request_id=request_id(),
            expect=None if known is None else position_message(known),
            ttl_ms=ttl_ms,
            initial_state=state,
        )
        opened = await self._call("Open", request, session, left())
        info = await self._served(session, model, opened.fingerprint, left())
        self._connected().endpoints.limit_frames(info)
        position = at or position_of(opened.position)
        return AsyncSession(self, session, info, position, opened.created, outputs)

    open = session

    async def group(
        self,
        sessions: Iterable[str],
        *,
        model: str = "",
        ttl: float | timedelta | None = None,
        expect: Mapping[str, Position] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> AsyncGroup:
        """Opens many sessions of one model with a few calls, to be stepped as one.

        Each is created, or continued after its last step. sessions: their ids, each once, in the order of the rows of
        `AsyncGroup.step`. model, ttl, outputs: as in `session`, for all of them. expect: by id, a position whose
        history the session must have. timeout: seconds, including retries; None: the client's. Raises InvalidArgument
        for invalid ids, and GroupError if some sessions cannot be opened: its `errors` says which and why, and its
        `group` has the others.
        """
        outputs = self.outputs if outputs is None else output_names(outputs)
        left = TimeLeft(timeout_seconds(timeout, self.timeout))
        group = AsyncGroup(self, await self.model(id_text(model, "model"), timeout=left()), ttl, outputs)
        self._connected().endpoints.limit_frames(group.model)
        await group.add(sessions, expect=expect, timeout=left())
        return group

    # ------------------------------------------------------------------------------------------ inside

    def _connected(self) -> Connection:
        """Returns the connections, which the first call makes. Raises Closed, ForkedProcess and WrongEventLoop."""
        if self._closed:
            raise copy(self._closed)
        connection = self._connection
        if connection is None:
            check_process()
            connects()
            disown_after_fork(self)
            connection = self._connection = Connection(self._settings, self.counters)
            self._finalizer = finalize(self, _left_open, connection)
            self._finalizer.atexit = False
        else:
            check_loop(connection.loop)
        return connection

    async def _call(
        self, method: str, request: Any, session: str, timeout: float | None, read: Callable[[Any], Any] = itself
    ) -> Any:
        seconds = timeout_seconds(timeout, self.timeout)
        calls = self._connected().calls
        return await calls.call(method, request, session=session, timeout=seconds, read=read)

    async def _served(self, session: str, name: str, fingerprint: bytes, timeout: float | None) -> Model:
        """Asks the session's own endpoint: another server may not serve its version yet, or no longer. Raises
        ModelChanged if none does: the session was opened, and then its version replaced."""
        key = (name, fingerprint)
        if key not in self._models:
            request = pb.GetModelRequest(model=name, fingerprint=fingerprint)
            try:
                self._models[key] = await self._call("GetModel", request, session, timeout, model_of)
            except InvalidArgument as error:
                if error.field != "fingerprint":
                    raise
                text = f"session {session!r} belongs to model version {fingerprint.hex()[:12]}, which is not served now"
                raise ModelChanged(text, reason="MODEL_CHANGED") from error
        return self._models[key]


def _left_open(connection: Connection) -> None:
    """Warns of a client that was garbage-collected without being closed. Runs in any thread."""
    if connection.loop.is_closed():  # its connections ended with it
        return
    text = "an AsyncClient was not closed: use `async with`, or await its close()"
    warnings.warn(text, ResourceWarning, stacklevel=2)
    with suppress(RuntimeError):  # the loop was closed meanwhile
        connection.loop.call_soon_threadsafe(connection.endpoints.abandon)
