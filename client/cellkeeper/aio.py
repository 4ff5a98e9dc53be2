"""The asyncio client."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import timedelta
from types import TracebackType
from typing import Any
from weakref import WeakSet, finalize

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import ArrayLike

from ._session.arguments import generation_bytes, id_text, session_id, timeout_seconds, ttl_milliseconds
from ._session.deadlines import Deadlines
from ._session.event_loop import check_loop
from ._session.frame_format import Kinds, Layout
from ._session.history import History
from ._session.inputs import Inputs
from ._session.session_sender import Lane
from ._transport.calls import Calls, itself, only_result
from ._transport.carry_over import Carriage, WindowOf
from ._transport.credentials import Tls, Token, TokenSource
from ._transport.endpoint import Endpoint
from ._transport.endpoints import Endpoints
from ._transport.forks import INHERITED, belongs_here, check_process, connects
from ._transport.poller import ignore_poller_errors
from ._transport.target import checked_targets
from ._transport.wire import dtype_number, model_of, position_message, position_of, session_info_of, state_messages
from .errors import CellkeeperError, Closed, ForkedProcess, InvalidArgument
from .position import Position
from .session import AsyncSession
from .types import Backoff, CarriedOver, Counters, Model, SessionInfo

__all__ = ["AsyncClient", "AsyncSession"]

DEFAULT_TARGET = "localhost:50051"


class AsyncClient:
    """Talks to one or several Cellkeeper endpoints; belongs to the event loop it is first used in.

    target: "host:port", or several: a session goes to its own endpoint, and to the next one while that fails.
    timeout: seconds for each call, retries included, unless the call names another. attempt_timeout: seconds of
    silence after which an attempt is given up and made again. connect_timeout: seconds for which a client that has
    not reached any server yet tries one that refuses the connection; after that calls raise Unavailable. More of
    them wait for a server that starts later; one that was reached before is waited for until the call's deadline.
    window_steps: unanswered time steps of one session at most. buffer_steps, buffer_bytes: answered inputs kept for
    each session, sent again by themselves when a server lost them. outputs: what steps return by default. tls:
    True, or a Tls with files of its own; False: plain text. credentials: gRPC's own, instead of `tls`. token: a
    bearer token, a path of the file that holds it, or a callable that gives it (called in the event loop's thread,
    so it must not wait); a token that was replaced is sent without any call failing.
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
    ) -> None:
        check_process()
        self.targets = checked_targets(target)
        timeout = timeout_seconds(timeout, 30.0)
        attempt_timeout = timeout_seconds(attempt_timeout, 10.0, "attempt_timeout")
        if not connect_timeout >= 0:
            text = f"connect_timeout: got {connect_timeout}, expected seconds from 0"
            raise InvalidArgument(text, field="connect_timeout")
        for name, count in (("window_steps", window_steps), ("max_frame_items", max_frame_items)):
            if count < 1:
                raise InvalidArgument(f"{name}: got {count}, expected at least 1", field=name)
        if buffer_steps < window_steps:
            raise InvalidArgument(
                f"buffer_steps: got {buffer_steps}, expected at least window_steps, {window_steps}: "
                "what was answered must outlast what is on the way",
                field="buffer_steps",
            )
        self.timeout = timeout
        self.outputs = tuple(outputs)
        self.counters = Counters()
        self._attempt_timeout = attempt_timeout
        self._connect_timeout = connect_timeout
        self._window_steps = window_steps
        self._buffer_steps = buffer_steps
        self._buffer_bytes = buffer_bytes
        self._max_frame_items = max_frame_items
        self._backoff = backoff or Backoff()
        if credentials is not None and tls:
            raise InvalidArgument("credentials, tls: got both, expected one of them", field="credentials")
        if tls is True:
            tls = Tls()
        self._credentials = tls.credentials() if isinstance(tls, Tls) else credentials
        self._channel_options = tls.options() if isinstance(tls, Tls) else ()
        self._token = Token(token)
        self._models: dict[tuple[str, bytes], Model] = {}
        self._lanes: WeakSet[Lane] = WeakSet()
        self._kinds = Kinds()
        self._endpoints: Endpoints | None = None
        self._calls: Calls | None = None
        self._deadlines: Deadlines | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finalizer: finalize[Any, AsyncClient] | None = None
        self._closed: CellkeeperError | None = None

    async def __aenter__(self) -> AsyncClient:
        self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every waiting call with Closed, and the connections. Sessions stay at the server. Raises WrongEventLoop
        where it belongs to another event loop that is not closed."""
        if self._closed:
            return
        loop_ended = self._loop is not None and self._loop.is_closed()
        if self._loop is not None and not loop_ended:
            check_loop(self._loop)
        self._closed = Closed("the client was closed")
        if self._finalizer is not None:
            self._finalizer.detach()
        if loop_ended:  # nobody waits, and nothing can be awaited there any more
            for lane in list(self._lanes):
                lane.disown(self._closed)
            return
        for lane in list(self._lanes):
            lane.close(Closed("the client was closed"))
        self._lanes.clear()
        if self._deadlines is not None:
            self._deadlines.close()
        if self._endpoints is not None:
            await self._endpoints.close()

    def disown(self) -> None:
        """In a forked process: every use of it, and of its sessions, raises from now on."""
        self._closed = ForkedProcess(INHERITED)
        for lane in list(self._lanes):
            lane.disown(self._closed)

    # ------------------------------------------------------------------------------------------ sessions

    async def open(
        self,
        session: str,
        *,
        model: str = "",
        ttl: float | timedelta | None = None,
        expect: Position | None = None,
        initial_state: Mapping[str, ArrayLike] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> AsyncSession:
        """Creates the session, or continues it where it stands.

        session: 1..256 bytes of UTF-8. model: may be left out while the server has exactly one. ttl: seconds (or a
        timedelta) of idleness after which it is forgotten; 0: never; None: the server's default, or what it has.
        expect: insist on this position's history; the session is never created then. Raises SessionNotFound,
        GenerationChanged and HistoryChanged where another one stands there or none, StepGap where the server has not
        come that far (it lost steps: open without `expect` and send again what is missing), StepCompacted where it
        has gone on so far that it cannot tell any more. initial_state: state tensors by name, for a new session only.
        """
        session, ttl_ms = session_id(session), ttl_milliseconds(ttl)
        state = []
        if initial_state is not None:
            state = state_messages(await self.model(model, timeout=timeout), initial_state, "initial_state")
        request = pb.OpenRequest(
            model=model,
            session=session,
            request_id=os.urandom(16),
            expect=None if expect is None else position_message(expect),
            ttl_ms=ttl_ms,
            initial_state=state,
        )
        opened = await self._call("Open", request, session, timeout)
        info = await self._served(session, model, opened.fingerprint, timeout)
        return self._session(session, info, position_of(opened.position), opened.created, outputs)

    async def session_info(self, session: str, *, model: str = "", timeout: float | None = None) -> SessionInfo:
        """Where a session stands, its ages and TTL. Raises SessionNotFound."""
        request = pb.GetSessionRequest(model=model, session=session_id(session))
        info: SessionInfo = await self._call("GetSession", request, session, timeout, session_info_of)
        return info

    async def sessions(
        self, prefix: str = "", *, model: str = "", timeout: float | None = None
    ) -> AsyncIterator[SessionInfo]:
        """The sessions whose id starts with `prefix`, in no particular order."""
        token, prefix = "", id_text(prefix, "prefix")
        while True:
            request = pb.ListSessionsRequest(model=model, prefix=prefix, page_token=token)
            page = await self._call("ListSessions", request, prefix, timeout)
            for info in page.sessions:
                yield session_info_of(info)
            token = page.next_page_token
            if not token:
                return

    async def delete(self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None) -> bool:
        """Ends that life of the session. False: it was over already, which is no error. An empty generation ends a
        session whose record is damaged (RecordDamaged), and no other."""
        item = pb.DeleteRequest.Item(session=session_id(session), generation=generation_bytes(generation))
        request = pb.DeleteRequest(model=model, items=[item])
        return bool((await self._call("Delete", request, session, timeout, only_result)).deleted)

    async def reset(
        self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None
    ) -> Position:
        """Ends that generation of the session and starts another at step 0, of the version that takes new sessions;
        also where its own version is not served. Raises SessionNotFound, and GenerationChanged where another one stands
        there."""
        generation = generation_bytes(generation)
        item = pb.ResetRequest.Item(session=session_id(session), generation=generation, request_id=os.urandom(16))
        request = pb.ResetRequest(model=model, items=[item])
        return position_of((await self._call("Reset", request, session, timeout, only_result)).position)

    async def carry_over(
        self,
        policy: str,
        *,
        model: str = "",
        prefix: str = "",
        sessions: Iterable[str] | None = None,
        window_of: WindowOf | None = None,
        fingerprint: bytes = b"",
        timeout: float | None = None,
    ) -> CarriedOver:
        """Hands sessions over to another version of their model, and counts what became of them.

        policy: "keep", "rerun" or "reset", as in AsyncSession.carry_over. prefix: of the sessions' ids; sessions: these
        and no others. window_of: gives each session's window where the policy is "rerun"; None for one that stays as it
        is. fingerprint: of the new version; empty: the one that takes new sessions. timeout: seconds for each call.
        What fails for one session is counted, and holds up no other; a run that was broken off is simply started
        again. Sessions of the other version that are made meanwhile may be missed.
        """
        carriage = await self._carriage(policy, model, fingerprint, window_of, timeout)
        if sessions is not None:
            infos = await carriage.named(sessions)
            await carriage.carry([(info, window_of(info) if window_of else None) for info in infos])
            return carriage.result
        while (page := await carriage.page(prefix)) is not None:
            await carriage.carry([(info, window_of(info) if window_of else None) for info in page])
        return carriage.result

    async def _carriage(
        self, policy: str, model: str, fingerprint: bytes, window_of: WindowOf | None, timeout: float | None
    ) -> Carriage:
        if (window_of is None) == (policy == "rerun"):
            text = f"window_of: got {window_of!r} with {policy!r}, expected a function with 'rerun', and with it only"
            raise InvalidArgument(text, reason="INVALID_FIELD", field="window_of")
        target = await self.model(model, fingerprint, timeout=timeout)
        return Carriage(self, target, policy, timeout)

    # ------------------------------------------------------------------------------------------ models

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """Every served version; the first of a name takes new sessions."""
        answer = await self._call("ListModels", pb.ListModelsRequest(), "", timeout)
        return [model_of(info) for info in answer.models]

    async def model(self, name: str = "", fingerprint: bytes = b"", *, timeout: float | None = None) -> Model:
        """A model: the version of that fingerprint, or the one that takes new sessions."""
        request = pb.GetModelRequest(model=name, fingerprint=fingerprint)
        model: Model = await self._call("GetModel", request, name, timeout, model_of)
        return model

    # ------------------------------------------------------------------------------------------ inside

    def _started(self) -> tuple[Endpoints, Calls, Deadlines]:
        if self._closed:
            raise copy(self._closed)
        if self._endpoints is None or self._calls is None or self._deadlines is None:
            check_process()
            connects()
            belongs_here(self)
            self._loop = asyncio.get_running_loop()
            ignore_poller_errors(self._loop)
            self._endpoints = Endpoints(self.targets, self._endpoint)
            self._calls = Calls(
                self._endpoints,
                attempt_timeout=self._attempt_timeout,
                connect_timeout=self._connect_timeout,
                backoff=self._backoff,
                counters=self.counters,
                token=self._token,
            )
            self._deadlines = Deadlines(self._loop)
            self._finalizer = finalize(self, _left_open, self._loop, self._endpoints)
            self._finalizer.atexit = False
        elif self._loop is not None:
            check_loop(self._loop)
        return self._endpoints, self._calls, self._deadlines

    def _endpoint(
        self,
        target: str,
        redispatch: Callable[[Endpoint, list[Lane]], None],
        on_up: Callable[[Endpoint], None],
    ) -> Endpoint:
        return Endpoint(
            target,
            max_frame_items=self._max_frame_items,
            default_timeout=self.timeout,
            attempt_timeout=self._attempt_timeout,
            backoff=self._backoff,
            counters=self.counters,
            credentials=self._credentials,
            channel_options=self._channel_options,
            token=self._token,
            redispatch=redispatch,
            on_up=on_up,
        )

    async def _call(
        self, method: str, request: Any, session: str, timeout: float | None, read: Callable[[Any], Any] = itself
    ) -> Any:
        seconds = timeout_seconds(timeout, self.timeout)
        _, calls, _ = self._started()
        return await calls.call(method, request, session=session, timeout=seconds, read=read)

    async def _served(self, session: str, name: str, fingerprint: bytes, timeout: float | None) -> Model:
        """Asked where the session is: another server may not serve its version yet, or not any more."""
        key = (name, fingerprint)
        if key not in self._models:
            request = pb.GetModelRequest(model=name, fingerprint=fingerprint)
            self._models[key] = await self._call("GetModel", request, session, timeout, model_of)
        return self._models[key]

    def _session(
        self,
        session: str,
        model: Model,
        position: Position,
        created: bool,
        outputs: Sequence[str] | None,
    ) -> AsyncSession:
        endpoints, _, deadlines = self._started()
        if model.max_frame_items:
            endpoints.limit_frames(model.max_frame_items)
        inputs = Inputs(model)

        def lane_from(version: Model, start: Position) -> Lane:
            lane = Lane(
                session,
                Layout(version.name, dtype_number(version.input.dtype), version.input.shape),
                self._history(version, start),
                kinds=self._kinds,
                step_bytes=version.input.nbytes,
                dispatch=endpoints.dispatch,
                deadlines=deadlines,
                counters=self.counters,
                backoff=self._backoff,
                loop=asyncio.get_running_loop(),
            )
            self._lanes.add(lane)
            return lane

        return AsyncSession(self, session, model, inputs, lane_from, position, created, outputs or self.outputs)

    def _history(self, model: Model, position: Position) -> History:
        # Well below the server's log, so that its checkpoints can follow the acks.
        window = (
            min(self._window_steps, max(1, model.max_log_steps // 2)) if model.max_log_steps else self._window_steps
        )
        return History(
            position,
            step_bytes=model.input.nbytes,
            window_steps=window,
            buffer_steps=self._buffer_steps,
            buffer_bytes=self._buffer_bytes,
        )


def _left_open(loop: asyncio.AbstractEventLoop, endpoints: Endpoints) -> None:
    """A client was collected without being closed, in whatever thread."""
    if loop.is_closed():  # its connections have ended with it
        return
    text = "an AsyncClient was not closed: use `async with`, or await its close()"
    warnings.warn(text, ResourceWarning, stacklevel=2)
    with suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(endpoints.abandon)
