"""The asyncio client."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import timedelta
from types import TracebackType
from typing import Any
from weakref import finalize

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import ArrayLike

from ._session.arguments import generation_bytes, id_text, session_id, timeout_seconds, ttl_milliseconds
from ._session.event_loop import check_loop
from ._session.frame_format import FrameFormat
from ._session.group_sender import GroupSender
from ._session.session_sender import SessionSender
from ._transport.calls import itself, only_result
from ._transport.carry_over import CarryOver, WindowOf
from ._transport.connection import Connection
from ._transport.credentials import Tls, TokenSource
from ._transport.forks import INHERITED, check_process, connects, disown_after_fork
from ._transport.requests import open_request, reset_request
from ._transport.senders import Senders
from ._transport.settings import checked_settings
from ._transport.wire import model_of, position_of, session_info_of, state_messages
from .errors import CellkeeperError, Closed, ForkedProcess, InvalidArgument
from .group import AsyncGroup
from .position import Position
from .session import AsyncSession
from .types import Backoff, CarriedOver, Counters, Model, SessionInfo

__all__ = ["AsyncClient", "AsyncGroup", "AsyncSession"]

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
        self._settings = settings = checked_settings(
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
        )
        self.targets = settings.targets
        self.timeout = settings.timeout
        self.outputs = tuple(outputs)
        self.counters = Counters()
        self._models: dict[tuple[str, bytes], Model] = {}
        self._senders = Senders(settings, self.counters)
        self._connection: Connection | None = None
        self._finalizer: finalize[Any, AsyncClient] | None = None
        self._closed: CellkeeperError | None = None

    async def __aenter__(self) -> AsyncClient:
        self._connected()
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
        connection = self._connection
        loop_ended = connection is not None and connection.loop.is_closed()
        if connection is not None and not loop_ended:
            check_loop(connection.loop)
        self._closed = Closed("the client was closed")
        if self._finalizer is not None:
            self._finalizer.detach()
        if loop_ended:  # no caller waits, and nothing can be awaited there any more
            self._senders.disown(self._closed)
            return
        self._senders.close(Closed("the client was closed"))
        if connection is not None:
            await connection.close()

    def disown(self) -> None:
        """In a forked process: every use of it, and of its sessions, raises from now on."""
        self._closed = ForkedProcess(INHERITED)
        self._senders.disown(self._closed)

    # ------------------------------------------------------------------------------------------ sessions

    async def session(
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
        """Creates the session, or continues it where it stands. `open` is another name for this method.

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
        request = open_request(session, model, ttl_ms, expect, state)
        opened = await self._call("Open", request, session, timeout)
        info = await self._served(session, model, opened.fingerprint, timeout)
        self._limit_frames(info.max_frame_items)
        return AsyncSession(
            self, session, info, self._new_sender, position_of(opened.position), opened.created, outputs or self.outputs
        )

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
        """Opens many sessions of one model by few calls, to be stepped as one: created, or continued where they stand.

        sessions: their ids, each once, in the order of the rows of `AsyncGroup.step`. model, ttl, outputs: as in
        `session`, for all of them. expect: by id, the position whose history is insisted on. timeout: seconds for each
        call. Raises GroupError where some cannot be opened: its `errors` says which and why, and its `group` has the
        others.
        """
        group = AsyncGroup(self, await self.model(model, timeout=timeout), ttl, outputs or self.outputs)
        self._limit_frames(group.model.max_frame_items)
        await group.add(sessions, expect=expect, timeout=timeout)
        return group

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
        """Deletes that generation of the session. Returns False if it was gone already, which is no error. An empty
        generation deletes a session whose record is damaged (RecordDamaged), and no other."""
        item = pb.DeleteRequest.Item(session=session_id(session), generation=generation_bytes(generation))
        request = pb.DeleteRequest(model=model, items=[item])
        return bool((await self._call("Delete", request, session, timeout, only_result)).deleted)

    async def reset(
        self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None
    ) -> Position:
        """Ends that generation of the session and starts another at step 0, of the version that takes new sessions;
        also where its own version is not served. Raises SessionNotFound, and GenerationChanged where another one stands
        there."""
        request = reset_request(session_id(session), model, generation_bytes(generation))
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
        carry_over = await self._new_carry_over(policy, model, fingerprint, window_of, timeout)
        if sessions is not None:
            infos = await carry_over.named(sessions)
            await carry_over.carry([(info, window_of(info) if window_of else None) for info in infos])
            return carry_over.result
        while (page := await carry_over.page(prefix)) is not None:
            await carry_over.carry([(info, window_of(info) if window_of else None) for info in page])
        return carry_over.result

    async def _new_carry_over(
        self, policy: str, model: str, fingerprint: bytes, window_of: WindowOf | None, timeout: float | None
    ) -> CarryOver:
        if (window_of is None) == (policy == "rerun"):
            text = f"window_of: got {window_of!r} with {policy!r}, expected a function with 'rerun', and with it only"
            raise InvalidArgument(text, reason="INVALID_FIELD", field="window_of")
        target = await self.model(model, fingerprint, timeout=timeout)
        return CarryOver(self, target, policy, timeout)

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

    def _connected(self) -> Connection:
        """The connections, made at the first use. Raises Closed, ForkedProcess and WrongEventLoop."""
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
        """Asked where the session is: another server may not serve its version yet, or not any more."""
        key = (name, fingerprint)
        if key not in self._models:
            request = pb.GetModelRequest(model=name, fingerprint=fingerprint)
            self._models[key] = await self._call("GetModel", request, session, timeout, model_of)
        return self._models[key]

    def _new_sender(self, session: str, model: Model, position: Position) -> SessionSender:
        return self._senders.session(self._connected(), session, model, position)

    def _new_group_sender(self, model: Model) -> GroupSender:
        return self._senders.group(self._connected(), model)

    def _frame_format(self, model: Model, outputs: tuple[str, ...]) -> FrameFormat:
        return self._senders.frame_format(model, outputs)

    def _endpoint_of(self, session: str) -> object:
        return self._connected().endpoints.first(session)

    def _limit_frames(self, items: int) -> None:
        if items:
            self._connected().endpoints.limit_frames(items)


def _left_open(connection: Connection) -> None:
    """A client was collected without being closed, in whatever thread."""
    if connection.loop.is_closed():  # its connections have ended with it
        return
    text = "an AsyncClient was not closed: use `async with`, or await its close()"
    warnings.warn(text, ResourceWarning, stacklevel=2)
    with suppress(RuntimeError):  # the loop was closed meanwhile
        connection.loop.call_soon_threadsafe(connection.endpoints.abandon)
