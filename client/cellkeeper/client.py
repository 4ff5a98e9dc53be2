"""The blocking client: runs the asyncio client in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from ._session.arguments import several_ids
from ._transport.blocking import Blocking, blocking, declared_as
from ._transport.bulk_delete import listed
from ._transport.carry_over import WindowOf
from ._transport.loop_thread import LoopThread
from .aio import AsyncClient
from .errors import GroupError
from .sync_group import Group
from .sync_session import Session
from .types import CarriedOver, Counters, Deleted, SessionInfo

T = TypeVar("T")

__all__ = ["Client", "Group", "Session"]


class Client(Blocking[AsyncClient]):
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

    @declared_as(AsyncClient.__init__)
    def __init__(self, *arguments: Any, **options: Any) -> None:
        core = AsyncClient(*arguments, **options)
        super().__init__(LoopThread(core.close), core)

    def __repr__(self) -> str:
        return f"<Client {', '.join(self._core.targets)}{', closed' if self._thread.closed else ''}>"

    def __enter__(self) -> Client:
        self._thread.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    wait_ready = blocking(AsyncClient.wait_ready)

    def close(self) -> None:
        """Ends every waiting call with Closed, and closes the connections. Sessions stay at the server.

        Closing again does nothing.
        """
        self._thread.close()

    @property
    def counters(self) -> Counters:
        """What this client has done since it was created."""
        return self._core.counters

    @declared_as(AsyncClient.session)
    def session(self, session: str, **options: Any) -> Session:
        return Session(self._thread, self._thread.run(self._core.session(session, **options)))

    open = session

    @declared_as(AsyncClient.group)
    def group(self, sessions: Iterable[str], **options: Any) -> Group:
        ids = several_ids(sessions)  # in the caller's thread: the iterable may use this client
        try:
            return Group(self._thread, self._thread.run(self._core.group(ids, **options)))
        except GroupError as error:
            if error.group is not None:
                error.group = Group(self._thread, error.group)
            raise

    session_info = blocking(AsyncClient.session_info)

    @declared_as(AsyncClient.sessions)
    def sessions(self, prefix: str = "", **options: Any) -> Iterator[SessionInfo]:
        source = self._core.sessions(prefix, **options)
        while (info := self._thread.run(_next(source), "sessions")) is not None:
            yield info

    delete = blocking(AsyncClient.delete)

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

    reset = blocking(AsyncClient.reset)

    @declared_as(AsyncClient.carry_over)
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
        making = self._core._new_carry_over(policy, model, fingerprint, window_of, timeout)
        carry_over = self._thread.run(making, "carry_over")
        carry_over.choose(prefix, sessions)
        while (page := self._thread.run(carry_over.page(), "carry_over")) is not None:
            windows = [(info, window_of(info) if window_of else None) for info in page]
            self._thread.run(carry_over.carry(windows), "carry_over")
            if on_progress is not None:
                on_progress(carry_over.result)
        return carry_over.result

    models = blocking(AsyncClient.models)
    model = blocking(AsyncClient.model)


async def _next(source: AsyncIterator[T]) -> T | None:
    async for item in source:
        return item
    return None
