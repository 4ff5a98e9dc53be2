"""The blocking client: the asyncio one, in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

import grpc
from numpy.typing import ArrayLike

from ._transport.carry_over import WindowOf
from ._transport.credentials import Tls, TokenSource
from ._transport.loop_thread import LoopThread
from .aio import DEFAULT_TARGET, AsyncClient
from .errors import GroupError
from .position import Position
from .sync_group import Group
from .sync_session import Session
from .types import Backoff, CarriedOver, Counters, Model, SessionInfo

T = TypeVar("T")

__all__ = ["Client", "Group", "Session"]


class Client:
    """Talks to one or several Cellkeeper endpoints. Safe to use from several threads.

    The parameters are those of AsyncClient.
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
        )
        self._thread = LoopThread(self._core.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every waiting call with Closed, and the connections. Sessions stay at the server."""
        self._thread.close()

    @property
    def counters(self) -> Counters:
        """What this client did since it was made."""
        return self._core.counters

    def session(
        self,
        session: str,
        *,
        model: str = "",
        ttl: float | timedelta | None = None,
        expect: Position | None = None,
        initial_state: Mapping[str, ArrayLike] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Creates the session, or continues it where it stands; see AsyncClient.session."""
        opening = self._core.session(
            session,
            model=model,
            ttl=ttl,
            expect=expect,
            initial_state=initial_state,
            outputs=outputs,
            timeout=timeout,
        )
        return Session(self._thread, self._thread.run(opening))

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
        """Opens many sessions of one model by few calls, to be stepped as one: created, or continued where they stand.

        sessions: their ids, each once, in the order of the rows of `Group.step`. expect: by id, the position whose
        history is insisted on. Raises GroupError where some cannot be opened: its `errors` says which and why, and its
        `group` has the others. See AsyncClient.group.
        """
        opening = self._core.group(sessions, model=model, ttl=ttl, expect=expect, outputs=outputs, timeout=timeout)
        try:
            return Group(self._thread, self._thread.run(opening))
        except GroupError as error:
            if error.group is not None:
                error.group = Group(self._thread, error.group)
            raise

    def session_info(self, session: str, *, model: str = "", timeout: float | None = None) -> SessionInfo:
        """Where a session stands, its ages and TTL. Raises SessionNotFound."""
        return self._thread.run(self._core.session_info(session, model=model, timeout=timeout))

    def sessions(self, prefix: str = "", *, model: str = "", timeout: float | None = None) -> Iterator[SessionInfo]:
        """The sessions whose id starts with `prefix`, in no particular order; read page by page."""
        source = self._core.sessions(prefix, model=model, timeout=timeout)
        while (info := self._thread.run(_next(source))) is not None:
            yield info

    def delete(self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None) -> bool:
        """Deletes that generation of the session. Returns False if it was gone already, which is no error. An empty
        generation deletes a session whose record is damaged (RecordDamaged), and no other."""
        return self._thread.run(self._core.delete(session, generation, model=model, timeout=timeout))

    def reset(self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None) -> Position:
        """Ends that generation of the session and starts another at step 0; see AsyncClient.reset."""
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
    ) -> CarriedOver:
        """Hands sessions over to another version of their model, and counts what became of them; see
        AsyncClient.carry_over. `window_of` is called in the caller's thread."""
        carry_over = self._thread.run(self._core._new_carry_over(policy, model, fingerprint, window_of, timeout))
        page = self._thread.run(carry_over.page(prefix) if sessions is None else carry_over.named(sessions))
        while page is not None:
            self._thread.run(carry_over.carry([(info, window_of(info) if window_of else None) for info in page]))
            page = self._thread.run(carry_over.page(prefix)) if sessions is None else None
        return carry_over.result

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """Every served version; the first of a name takes new sessions."""
        return self._thread.run(self._core.models(timeout=timeout))

    def model(self, name: str = "", fingerprint: bytes = b"", *, timeout: float | None = None) -> Model:
        """A model: the version of that fingerprint, or the one that takes new sessions."""
        return self._thread.run(self._core.model(name, fingerprint, timeout=timeout))


async def _next(source: AsyncIterator[T]) -> T | None:
    async for item in source:
        return item
    return None
