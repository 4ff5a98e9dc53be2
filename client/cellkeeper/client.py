"""The blocking client: runs the asyncio client in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import TypeVar

import grpc
from numpy.typing import ArrayLike

from ._session.arguments import several_ids
from ._session.not_copied import NotCopied
from ._transport.bulk_delete import listed
from ._transport.carry_over import WindowOf
from ._transport.credentials import Tls, TokenSource
from ._transport.loop_thread import LoopThread
from ._transport.settings import DEFAULT_TARGET
from .aio import AsyncClient
from .errors import GroupError
from .position import Position
from .sync_group import Group
from .sync_session import Session
from .types import Backoff, CarriedOver, Counters, Deleted, Model, SessionInfo, StepReply

T = TypeVar("T")

__all__ = ["Client", "Group", "Session"]


class Client(NotCopied):
    """Talks to one or several Cellkeeper endpoints. Safe to use from several threads.

    target: "host:port", or several: each session prefers one of them, and uses the next one while that fails. timeout:
    seconds for each call, including retries, unless the call names its own. attempt_timeout: seconds without an answer
    after which an attempt is abandoned and made again. connect_timeout: seconds for which a client that has not yet
    reached any server keeps trying one that refuses the connection; after that, calls raise Unavailable. Raise it to
    wait for a server that starts later; a server that was reached before is retried until the call's deadline.
    window_steps: the most unanswered time steps of one session. buffer_steps, buffer_bytes: answered inputs to keep for
    each session; the client replays them if a server lost them. outputs: what steps return by default. max_frame_items:
    the most chunks in one message; a lower limit of the server takes precedence. backoff: the pauses between retries.
    tls: True, or a Tls with files of its own; False: plain text. credentials: gRPC credentials, instead of `tls`.
    token: a bearer token, the path of the file that holds it, or a callable that returns it (called in the client's own
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
        self._core = AsyncClient(
            target,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            connect_timeout=connect_timeout,
            window_steps=window_steps,
            buffer_steps=buffer_steps,
            buffer_bytes=buffer_bytes,
            outputs=outputs,
            max_frame_items=max_frame_items,
            backoff=backoff,
            credentials=credentials,
            tls=tls,
            token=token,
            websocket=websocket,
        )
        self._thread = LoopThread(self._core.close)

    def __repr__(self) -> str:
        return f"<Client {', '.join(self._core.targets)}{', closed' if self._thread.closed else ''}>"

    def __enter__(self) -> Client:
        self._thread.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, timeout: float | timedelta | None = None) -> None:
        """Waits until a server is ready: it answers, accepts the client's token, serves a model, and reaches its store.

        timeout: seconds; None: the client's. With several endpoints, one that is ready is enough. connect_timeout does
        not apply. Raises DeadlineExceeded, which says what was wrong last (connection refused, NOT_SERVING, the store
        ...), and immediately what waiting cannot fix, such as AccessDenied.
        """
        self._thread.run(self._core.wait_ready(timeout))

    def close(self) -> None:
        """Ends every waiting call with Closed, and closes the connections. Sessions stay at the server.

        Closing again does nothing.
        """
        self._thread.close()

    @property
    def counters(self) -> Counters:
        """What this client has done since it was created."""
        return self._core.counters

    def session(
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
    ) -> Session:
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
        opening = self._core.session(
            session,
            model=model,
            ttl=ttl,
            expect=expect,
            at=at,
            initial_state=initial_state,
            outputs=outputs,
            timeout=timeout,
        )
        return Session(self._thread, self._thread.run(opening))

    open = session

    def group(
        self,
        sessions: Iterable[str],
        *,
        model: str = "",
        ttl: float | timedelta | None = None,
        expect: Mapping[str, Position] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Group:
        """Opens many sessions of one model with a few calls, to be stepped as one.

        Each is created, or continued after its last step. sessions: their ids, each once, in the order of the rows of
        `Group.step`. model, ttl, outputs: as in `session`, for all of them. expect: by id, a position whose history the
        session must have. timeout: seconds, including retries; None: the client's. Raises InvalidArgument for invalid
        ids, and GroupError if some sessions cannot be opened: its `errors` says which and why, and its `group` has the
        others.
        """
        ids = several_ids(sessions)  # in the caller's thread: the iterable may use this client
        opening = self._core.group(ids, model=model, ttl=ttl, expect=expect, outputs=outputs, timeout=timeout)
        try:
            return Group(self._thread, self._thread.run(opening))
        except GroupError as error:
            if error.group is not None:
                error.group = Group(self._thread, error.group)
            raise

    def session_info(self, session: str, *, model: str = "", timeout: float | None = None) -> SessionInfo:
        """Reads what the server knows of a session: position, age, idle time and TTL in seconds, whether it is hot.

        It changes nothing. session: its id. model: its name; optional while the server serves exactly one. timeout:
        seconds for the call, including retries; None: the client's. Raises SessionNotFound, and RecordDamaged, whose
        `position` is what can still be read.
        """
        return self._thread.run(self._core.session_info(session, model=model, timeout=timeout))

    def session_state(self, session: str, *, model: str = "", timeout: float | None = None) -> StepReply:
        """Reads a session's committed state without opening the session, which takes the right `read` alone.

        Returns a reply whose `state` has the tensors by name, and whose `position` says when. It restarts the TTL, as a
        step does. session: its id. model: its name; optional while the server serves exactly one. timeout: seconds for
        the call, including retries; None: the client's. Raises SessionNotFound, and ModelChanged if the session's
        version of the model is not served.
        """
        return self._thread.run(self._core.session_state(session, model=model, timeout=timeout))

    def sessions(self, prefix: str = "", *, model: str = "", timeout: float | None = None) -> Iterator[SessionInfo]:
        """Lists the sessions whose id starts with `prefix`, in no particular order, page by page.

        prefix: empty: all sessions. model: its name; optional while the server serves exactly one. timeout: seconds for
        each page, including retries; None: the client's. Sessions that are created or deleted meanwhile may be missing
        or listed. Those with damaged records are listed too, with the reason in `damage`.
        """
        source = self._core.sessions(prefix, model=model, timeout=timeout)
        while (info := self._thread.run(_next(source), "sessions")) is not None:
            yield info

    def delete(self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None) -> bool:
        """Deletes that generation of the session. Returns False if it was already gone, which is not an error.

        session: its id. generation: 16 bytes, from a Position or session_info; empty: delete the session only if its
        record is damaged (RecordDamaged). model: its name; optional while the server serves exactly one. timeout:
        seconds for the call, including retries; None: the client's. Raises Unavailable and DeadlineExceeded, after
        which it is safe to repeat the call: it deletes no other generation.
        """
        return self._thread.run(self._core.delete(session, generation, model=model, timeout=timeout))

    def delete_many(
        self,
        sessions: Iterable[SessionInfo],
        *,
        model: str = "",
        timeout: float | None = None,
        on_progress: Callable[[Deleted], None] | None = None,
    ) -> Deleted:
        """Deletes sessions, several in one request, and counts the outcomes.

        It deletes only the generation that each session was listed with. sessions: as `sessions` lists them:
        `client.delete_many(client.sessions("old/"))`. model: its name; optional while the server serves exactly one.
        timeout: seconds for each request. on_progress: called after each request with the counts so far. A session that
        fails is counted and does not hold up the others: see `failures`. If a run is interrupted, start it again.
        Raises InvalidArgument for anything that is not a SessionInfo.
        """
        bulk = self._thread.run(self._core._new_bulk_delete(model, timeout), "delete_many")
        source = iter(listed(sessions))
        while page := list(islice(source, bulk.room)):
            self._thread.run(bulk.delete(page), "delete_many")
            if on_progress is not None:
                on_progress(bulk.result)
        return bulk.result

    def reset(self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None) -> Position:
        """Ends that generation of the session and starts a new one at step 0. Returns the new position.

        The new generation belongs to the model version that takes new sessions, even if the session's own is no longer
        served. session: its id. generation: 16 bytes, from a Position or session_info. model: its name; optional while
        the server serves exactly one. timeout: seconds for the call, including retries; None: the client's. Raises
        SessionNotFound, and GenerationChanged if the session has another generation: read it again before deciding.
        """
        return self._thread.run(self._core.reset(session, generation, model=model, timeout=timeout))

    def carry_over(
        self,
        policy: str,
        *,
        model: str = "",
        prefix: str = "",
        sessions: Iterable[str] | None = None,
        window_of: WindowOf | None = None,
        fingerprint: bytes = b"",
        timeout: float | None = None,
        on_progress: Callable[[CarriedOver], None] | None = None,
    ) -> CarriedOver:
        """Carries sessions over to another version of their model, and counts the outcomes.

        policy: "keep" the state, "rerun" a window of inputs, or "reset", as in the session's own carry_over. model: its
        name; optional while the server serves exactly one. prefix: of the sessions' ids. sessions: these ids and no
        others. window_of: with the policy "rerun", returns a session's window ([W, F], or [W] token ids), or None to
        leave that session as it is. It is called in the caller's thread. fingerprint: 32 bytes, of the new version;
        empty: the one that takes new sessions. timeout: seconds for each request. on_progress: called after each page
        of sessions with the counts so far.

        A session that fails is counted and does not hold up the others: see `failures`. If a run is interrupted, start
        it again. Sessions of the other version that are created meanwhile may be missed. Raises InvalidArgument for an
        unknown policy, model or fingerprint, and Unavailable and DeadlineExceeded from the calls that list sessions.
        """
        making = self._core._new_carry_over(policy, model, fingerprint, window_of, timeout)
        carry_over = self._thread.run(making, "carry_over")
        carry_over.choose(prefix, sessions)
        while (page := self._thread.run(carry_over.page(), "carry_over")) is not None:
            windows = [(info, window_of(info) if window_of else None) for info in page]
            self._thread.run(carry_over.carry(windows), "carry_over")
            if on_progress is not None:
                on_progress(carry_over.result)
        return carry_over.result

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """Lists every served version of every model; the first of each name takes new sessions.

        timeout: seconds for the call, including retries; None: the client's. Raises AccessDenied, Unavailable and
        DeadlineExceeded.
        """
        return self._thread.run(self._core.models(timeout=timeout))

    def model(self, name: str = "", fingerprint: bytes = b"", *, timeout: float | None = None) -> Model:
        """Reads one model: its input, outputs, states and limits.

        name: optional while the server serves exactly one. fingerprint: 32 bytes: that version; empty: the one that
        takes new sessions. timeout: seconds for the call, including retries; None: the client's. Raises InvalidArgument
        if no such model is served.
        """
        return self._thread.run(self._core.model(name, fingerprint, timeout=timeout))


async def _next(source: AsyncIterator[T]) -> T | None:
    async for item in source:
        return item
    return None
