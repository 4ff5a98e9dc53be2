"""The blocking client: the asyncio one, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar
from weakref import finalize

import grpc
from numpy.typing import ArrayLike

from ._session.blocking_answer import Waiter
from ._session.step_call import StepCall
from ._transport.carry_over import WindowOf
from ._transport.credentials import Tls, TokenSource
from ._transport.forks import INHERITED, belongs_here
from .aio import DEFAULT_TARGET, AsyncClient
from .errors import CellkeeperError, Closed, ForkedProcess
from .position import Position
from .session import AsyncSession
from .sync_session import Session
from .types import Backoff, CarriedOver, Counters, Model, SessionInfo, StepReply

T = TypeVar("T")

END_SECONDS = 1.0  # for what is still running when a client is closed

__all__ = ["Client", "Session"]


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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_serve, args=(self._loop, self._core), name="cellkeeper-client", daemon=True
        )
        self._thread.start()
        self._lock = threading.Lock()
        self._closed: CellkeeperError | None = None
        self._finalizer = finalize(self, _left_open, self._loop)
        self._finalizer.atexit = False
        belongs_here(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every waiting call with Closed, and the connections. Sessions stay at the server."""
        with self._lock:
            if self._closed is not None:
                return
            self._closed = Closed("the client was closed")
            self._finalizer.detach()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def disown(self) -> None:
        """In a forked process: every use of it, and of its sessions, raises from now on."""
        self._lock = threading.Lock()  # another thread may have held the old one
        self._closed = ForkedProcess(INHERITED)

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
        """Creates the session, or continues it where it stands; see AsyncClient.open."""
        opening = self._core.open(
            session,
            model=model,
            ttl=ttl,
            expect=expect,
            initial_state=initial_state,
            outputs=outputs,
            timeout=timeout,
        )
        return Session(self, self.run(opening))

    def session_info(self, session: str, *, model: str = "", timeout: float | None = None) -> SessionInfo:
        """Where a session stands, its ages and TTL. Raises SessionNotFound."""
        return self.run(self._core.session_info(session, model=model, timeout=timeout))

    def sessions(self, prefix: str = "", *, model: str = "", timeout: float | None = None) -> Iterator[SessionInfo]:
        """The sessions whose id starts with `prefix`, in no particular order; read page by page."""
        source = self._core.sessions(prefix, model=model, timeout=timeout)
        while (info := self.run(_next(source))) is not None:
            yield info

    def delete(self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None) -> bool:
        """Ends that life of the session. False: it was over already, which is no error. An empty generation ends a
        session whose record is damaged (RecordDamaged), and no other."""
        return self.run(self._core.delete(session, generation, model=model, timeout=timeout))

    def reset(self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None) -> Position:
        """Ends that generation of the session and starts another at step 0; see AsyncClient.reset."""
        return self.run(self._core.reset(session, generation, model=model, timeout=timeout))

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
        carriage = self.run(self._core._carriage(policy, model, fingerprint, window_of, timeout))
        page = self.run(carriage.page(prefix) if sessions is None else carriage.named(sessions))
        while page is not None:
            self.run(carriage.carry([(info, window_of(info) if window_of else None) for info in page]))
            page = self.run(carriage.page(prefix)) if sessions is None else None
        return carriage.result

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """Every served version; the first of a name takes new sessions."""
        return self.run(self._core.models(timeout=timeout))

    def model(self, name: str = "", fingerprint: bytes = b"", *, timeout: float | None = None) -> Model:
        """A model: the version of that fingerprint, or the one that takes new sessions."""
        return self.run(self._core.model(name, fingerprint, timeout=timeout))

    def _step(
        self, core: AsyncSession, x: ArrayLike, outputs: Sequence[str] | None, timeout: float | None
    ) -> StepReply:
        """One step, without the task that `run` needs."""
        raw, single = core._inputs.convert(x)
        waiter = Waiter()

        def submit() -> StepCall:
            return core._submit_raw(raw, single, outputs, timeout, waiter)

        try:
            self._soon(waiter.start, submit)
            return waiter.wait()
        except BaseException:  # Ctrl-C, or what another signal's handler raises; or the step's own error
            if not waiter.told:
                with suppress(Closed, ForkedProcess):
                    self._soon(waiter.give_up, core._give_up)
            raise

    def _soon(self, work: Callable[..., object], *arguments: object) -> None:
        """Calls `work` in the client's thread, later. Raises Closed."""
        with self._lock:
            if self._closed is not None:
                raise copy(self._closed)
            self._loop.call_soon_threadsafe(work, *arguments)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the client's thread and waits for it."""
        with self._lock:
            if self._closed is not None:
                work.close()
                raise copy(self._closed)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C, or what another signal's handler raises; or the work's own error
            future.cancel()
            raise


async def _next(source: AsyncIterator[T]) -> T | None:
    async for item in source:
        return item
    return None


def _serve(loop: asyncio.AbstractEventLoop, core: AsyncClient) -> None:
    """The client's thread, until its loop is stopped."""
    loop.run_forever()
    try:
        loop.run_until_complete(core.close())
        loop.run_until_complete(_end_tasks())
    finally:
        loop.close()


def _left_open(loop: asyncio.AbstractEventLoop) -> None:
    """A client was collected without being closed, in whatever thread, maybe its own: nothing is waited for."""
    warnings.warn("a Client was not closed: use `with`, or call its close()", ResourceWarning, stacklevel=2)
    loop.call_soon_threadsafe(loop.stop)


async def _end_tasks() -> None:
    """Callers that were just told that the client is closed, and gRPC's own tasks, come to their end: an event loop
    must not be closed with tasks in it."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=END_SECONDS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
