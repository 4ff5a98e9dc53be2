"""Accepts gRPC calls on one address, and starts their methods."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from . import grpc_core
from .completion_queue import CompletionQueue
from .grpc_call import REFUSAL_SECONDS, GrpcCall
from .method import Method

ASKED_CALLS = 32
"""How many calls gRPC may hand over before the loop has looked at the first. Others wait in gRPC."""


class Listener:
    """Serves the methods by their paths ("/package.Service/Method"). Must be created on the event loop."""

    def __init__(self, methods: Mapping[str, Method], options: Sequence[tuple[str, int]], max_rpcs: int) -> None:
        """options: of gRPC's server. max_rpcs: concurrent calls; more are refused with RESOURCE_EXHAUSTED."""
        self._methods = {path.encode(): method for path, method in methods.items()}
        self._max_rpcs = max_rpcs
        self._queue = CompletionQueue()
        self._server = grpc_core.new_server(self._queue.core, options)
        self._loop = asyncio.get_running_loop()
        self._calls: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._stopped = asyncio.Event()

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Returns the port, or 0 if the server cannot listen there."""
        return grpc_core.listen(self._server, address, credentials)

    def start(self) -> None:
        self._server.start()
        for _ in range(ASKED_CALLS):
            grpc_core.request_call(self._server, self._queue.core, self._accepted)

    async def stop(self, grace_seconds: float) -> None:
        """Accepts no more connections and calls, and returns when all calls are over.

        Those that do not end within `grace_seconds` are cancelled. If it is called again, the shorter time counts.
        """
        if not self._stopping:
            self._queue.take_arrived()  # calls that gRPC reads later get CANCELLED, which no client sends again
            self._stopping = True
            self._server.shutdown(self._queue.core, self._shut_down)
        try:
            await asyncio.wait_for(self._stopped.wait(), grace_seconds)
        except asyncio.TimeoutError:
            self._server.cancel_all_calls()
            await self._stopped.wait()
        if self._calls:
            await asyncio.wait(self._calls)

    async def close(self) -> None:
        """Releases what a stopped listener holds."""
        await self._queue.close()

    def _accepted(self, event: grpc_core.Event) -> None:
        if not event.success:  # the server stops
            return
        if self._stopping:  # gRPC took the call before, and the loop sees it only now
            self._refuse(event.call, grpc.StatusCode.UNAVAILABLE, "The server is shutting down")
            return
        grpc_core.request_call(self._server, self._queue.core, self._accepted)
        method = self._methods.get(event.call_details.method)
        if method is None:
            self._refuse(event.call, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        elif len(self._calls) < self._max_rpcs:
            self._begin(event, method)
        else:  # a call that has ended counts until its task's callbacks run; its client may send the next one before
            self._loop.call_soon(self._begin_or_refuse, event, method)

    def _begin_or_refuse(self, event: grpc_core.Event, method: Method) -> None:
        if len(self._calls) < self._max_rpcs:
            self._begin(event, method)
        else:
            self._refuse(event.call, grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")

    def _begin(self, event: grpc_core.Event, method: Method) -> None:
        task = GrpcCall(event, method, self._queue).task
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _shut_down(self, event: grpc_core.Event) -> None:
        self._stopped.set()

    def _refuse(self, call: Any, code: grpc.StatusCode, details: str) -> None:
        def refuse() -> None:
            if not self._stopped.is_set():  # the queue takes no more operations: gRPC would abort the process
                grpc_core.send_status(call, code, details, (), first=True)

        self._loop.call_later(REFUSAL_SECONDS, refuse)  # it may be a stream
