"""The blocking client: the asyncio one, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

import grpc
from numpy.typing import ArrayLike

from ._errors import Closed
from ._model import Model
from ._pipeline import Pipeline
from ._position import Position
from ._reply import Array, Counters, SessionInfo, StepReply
from ._retry import Backoff
from .aio import DEFAULT_TARGET, AsyncClient, AsyncSession

T = TypeVar("T")


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
        window_steps: int = 64,
        buffer_steps: int = 1024,
        buffer_bytes: int = 1 << 20,
        outputs: Sequence[str] = ("prediction",),
        max_frame_items: int = 256,
        backoff: Backoff | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._core = AsyncClient(
            target,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            window_steps=window_steps,
            buffer_steps=buffer_steps,
            buffer_bytes=buffer_bytes,
            outputs=outputs,
            max_frame_items=max_frame_items,
            backoff=backoff,
            credentials=credentials,
        )
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_quiet_poller)
        self._thread = threading.Thread(target=self._loop.run_forever, name="cellkeeper-client", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every waiting call with Closed, and the connections. Sessions stay at the server."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._core.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def counters(self) -> Counters:
        """What this client did since it was made."""
        return self._core.counters

    def session(
        self,
        session: str,
        *,
        model: str = "",
        ttl: float | None = None,
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
        """Ends that life of the session. False: it was over already, which is no error."""
        return self.run(self._core.delete(session, generation, model=model, timeout=timeout))

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """Every served version; the first of a name takes new sessions."""
        return self.run(self._core.models(timeout=timeout))

    def model(self, name: str = "", fingerprint: bytes = b"", *, timeout: float | None = None) -> Model:
        """A model: the version of that fingerprint, or the one that takes new sessions."""
        return self.run(self._core.model(name, fingerprint, timeout=timeout))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the client's thread and waits for it."""
        with self._lock:
            if self._closed:
                work.close()
                raise Closed("the client was closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


class Session:
    """A session where its server left it. Made by `Client.session`. Its methods are those of AsyncSession."""

    def __init__(self, client: Client, core: AsyncSession) -> None:
        self._client = client
        self._core = core

    @property
    def id(self) -> str:
        return self._core.id

    @property
    def model(self) -> Model:
        """The model version it belongs to."""
        return self._core.model

    @property
    def created(self) -> bool:
        """Opening it made it."""
        return self._core.created

    @property
    def position(self) -> Position:
        """Behind the last time step whose answer is here."""
        return self._core.position

    @property
    def generation(self) -> bytes:
        """16 bytes that name this life of the session."""
        return self._core.generation

    @property
    def last_reply(self) -> StepReply | None:
        """Of the latest step that was answered."""
        return self._core.last_reply

    def step(self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Applies x ([F] or [T, F]; token ids: one integer or [T]) exactly once; see AsyncSession.step."""
        return self._client.run(self._core.step(x, outputs=outputs, timeout=timeout))

    def step_reply(
        self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> StepReply:
        """Like `step`, with everything that the reply holds."""
        return self._client.run(self._core.step_reply(x, outputs=outputs, timeout=timeout))

    def stream(
        self,
        samples: Iterable[ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> Iterator[Array]:
        """Applies samples, pipelined, and yields the first output of each, in order; see AsyncSession.stream.

        `samples` is read in the caller's thread, `window` time steps ahead at most. A live source wants window=1,
        so that each answer comes before the next sample is waited for.
        """
        replies = self.stream_replies(samples, outputs=outputs, timeout=timeout, window=window, chunk_steps=chunk_steps)
        for reply in replies:
            yield reply.output

    def stream_replies(
        self,
        samples: Iterable[ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> Iterator[StepReply]:
        """Like `stream`, with whole replies."""
        pipeline = self._core.pipeline(outputs, timeout, window, chunk_steps)
        source = iter(samples)
        try:
            while True:
                batch = list(islice(source, pipeline.room))
                replies = self._client.run(_advance(pipeline, batch))
                if not replies:
                    return
                for reply in replies:
                    self._core.last_reply = reply
                    yield reply
        finally:
            with self._client._lock:
                if not self._client._closed:
                    self._client._loop.call_soon_threadsafe(self._core.withdraw)

    def peek(self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> StepReply:
        """What x would give at this point; nothing of it is kept."""
        return self._client.run(self._core.peek(x, outputs=outputs, timeout=timeout))

    def reset(self, *, timeout: float | None = None) -> Position:
        """Starts a new life at step 0."""
        return self._client.run(self._core.reset(timeout=timeout))

    def set_state(
        self, state: Mapping[str, ArrayLike], *, step: int | None = None, timeout: float | None = None
    ) -> Position:
        """Starts a new life from the given state tensors, counting from `step` (where it stands by default)."""
        return self._client.run(self._core.set_state(state, step=step, timeout=timeout))

    def fork(self, target: str, *, position: Position | None = None, timeout: float | None = None) -> Session:
        """A new session `target` that starts from this one's committed state, or from that at `position`."""
        return Session(self._client, self._client.run(self._core.fork(target, position=position, timeout=timeout)))

    def delete(self, *, timeout: float | None = None) -> bool:
        """Ends this life of the session. False: it was over already, which is no error."""
        return self._client.run(self._core.delete(timeout=timeout))

    def state(self, *, timeout: float | None = None) -> dict[str, Array]:
        """The committed state, as named tensors."""
        return self._client.run(self._core.state(timeout=timeout))

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Where it stands at the server, its ages and TTL."""
        return self._client.run(self._core.info(timeout=timeout))

    def close(self) -> None:
        """Forgets the session here; it stays at the server."""
        self._client.run(self._core.close())

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _advance(pipeline: Pipeline, samples: list[ArrayLike]) -> list[StepReply]:
    pipeline.push(samples)
    return await pipeline.pull()


async def _next(source: AsyncIterator[T]) -> T | None:
    async for item in source:
        return item
    return None


def _quiet_poller(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # grpc's poller wakes every loop of the process for each event; those that find nothing complain.
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
