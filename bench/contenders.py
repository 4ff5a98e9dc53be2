"""Starts the servers that the cases need, and a client process for each."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .case import Case
from .client_process import ClientProcess
from .models import MAIN
from .triton_server import TritonServer
from .weights import write_model

TRITONS_CLIENT = ("triton", "kserve")
"""Contenders that use Triton's client, in Triton's virtual environment: Triton, and Cellkeeper through KServe."""

ENDING_SECONDS = 1.0  # clients see a crash before the process is gone
COLD_ARENA_MIB = 4  # for hot states: a sixteenth of the cold load's sessions


class Contenders:
    """The contenders of a run.

    clients: by contender. beside: the clients of second processes. missing: contenders that are not available, and why.
    """

    def __init__(self, folder: Path, running: ExitStack, triton: TritonServer | None, why_not: str) -> None:
        self.clients: dict[str, ClientProcess] = {}
        self.beside: dict[str, ClientProcess] = {}
        self.missing: dict[str, str] = {}
        self._folder, self._running, self._triton, self._why_not = folder, running, triton, why_not
        self._targets: dict[str, str] = {}
        self._tritons: dict[str, list[subprocess.Popen[bytes]]] = {}  # each one's servers, the last of which runs
        self._bundles: list[Path] = []
        self._redis: dict[str, RedisServer] = {}

    def start(self, cases: Sequence[Case]) -> None:
        models = sorted({case.load.model for case in cases})
        self._bundles = [write_model(self._folder, model) for model in models]
        for case in cases:
            name = case.contender
            if name in self.missing or (name in self.clients and (case.beside is None or name in self.beside)):
                continue
            if name.startswith(TRITONS_CLIENT) and self._triton is None:
                self.missing[name] = self._why_not
                continue
            if name not in self._targets:
                self._targets[name] = self._target(name, self._bundles)
                self.clients[name] = self._client(name, self._targets[name])
            if case.beside is not None:
                self.beside[name] = self._client(name, self._targets[name])

    def renew(self, name: str) -> bool:
        """Starts a Triton that has ended again, with new clients. Returns whether it had ended."""
        if name not in self._tritons:
            return False
        try:
            self._tritons[name][-1].wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        self._targets[name] = self._target(name, self._bundles)
        for clients in (self.clients, self.beside):
            if name in clients:
                clients[name].close()
                clients[name] = self._client(name, self._targets[name])
        return True

    def _client(self, name: str, target: str) -> ClientProcess:
        triton = self._triton if name.startswith(TRITONS_CLIENT) else None
        client = ClientProcess(name, target, triton.python if triton else sys.executable)
        self._running.callback(client.close)
        return client

    def _target(self, name: str, bundles: list[Path]) -> str:
        """Returns the client's target: an address, a store's URL, or the folder of the bundles."""
        kind, _, store = name.partition(" ")
        if kind == "websocket":
            server = ServerProcess(bundles, self._store_url(store), http=True)
            self._running.enter_context(server)
            return f"{server.target} {server.websocket}"
        if kind == "cellkeeper":
            options = ["--arena-mib", str(COLD_ARENA_MIB)] if store.endswith("-cold") else []
            served = [path for path in bundles if path.name == MAIN] if options else bundles
            server = ServerProcess(served, self._store_url(store), options)
            return self._running.enter_context(server).target
        if kind == "kserve":
            names = ",".join(f"{path.name}/X=input,{path.name}/Y=prediction" for path in bundles)
            server = ServerProcess(bundles, self._store_url(store), ["--kserve", "on", "--kserve-names", names])
            return self._running.enter_context(server).target
        if kind == "triton" and self._triton is not None:
            # one for each: its stream crashes the server now and then, which must not affect the other's figures
            earlier = self._tritons.setdefault(name, [])
            folder = self._folder / f"{name.replace(' ', '-')}-{len(earlier)}"
            target, process = self._triton.start(bundles, folder, self._running)
            earlier.append(process)
            return target
        if kind == "echo":
            return self._running.enter_context(own_server("bench.servers.echo"))
        if kind == "naive":
            words = [self._store_url(store), str(self._folder)]
            return self._running.enter_context(own_server("bench.servers.naive", words))
        if kind == "commit":
            return self._store_url(name)
        return str(self._folder)

    def _store_url(self, store: str) -> str:
        """Returns the URL of a new store for this contender. Redis servers are shared, with a database for each."""
        kind = store.split()[-1]
        if kind == "memory":
            return "memory:"
        if kind.startswith("sqlite"):
            return f"sqlite:{self._folder / store.replace(' ', '-')}.db"
        policy = "always" if kind == "redis-always" else "everysec"
        if policy not in self._redis:
            self._redis[policy] = self._running.enter_context(RedisServer({"appendfsync": policy}))
        database = len(self._targets)
        return self._redis[policy].url.removesuffix("/0") + f"/{database}"


@contextmanager
def own_server(module: str, words: Sequence[str] = ()) -> Iterator[str]:
    """Starts a program of the bench that prints where it listens."""
    command = [sys.executable, "-m", module, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        line = process.stdout.readline() if process.stdout else ""
        found = re.search(r"listening on (\S+)", line)
        if found is None:
            raise RuntimeError(f"{module} did not start")
        yield found.group(1)
    finally:
        process.kill()
        process.wait()
