"""External clients step sessions through the proxy until told to stop; their answers are compared with offline runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from cellkeeper import Client
from cellkeeper_service.engine.load import load_engine, offline
from numpy.typing import NDArray

from tests.integration.deploy.stack import CheckFailed, wait_until

Floats = NDArray[np.float32]
STEP_TIMEOUT_S = 120.0


@dataclass
class Log:
    """The samples of one session, and the answers."""

    session: str
    number: int
    answers: list[Floats] = field(default_factory=list)
    error: Exception | None = None

    def sample(self, step: int) -> float:
        """Returns a made-up station's reading, in ppm."""
        return 330.0 + self.number + 0.02 * step + 3.0 * float(np.sin(0.12 * step + self.number))


class Journey:
    """A context manager. clients: each has its own connections, stream and sessions."""

    def __init__(self, target: str, clients: int, sessions_each: int) -> None:
        self.logs = [Log(f"station-{number}", number) for number in range(clients * sessions_each)]
        self._clients = [Client(target, timeout=STEP_TIMEOUT_S, connect_timeout=STEP_TIMEOUT_S) for _ in range(clients)]
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._travel, args=(self._clients[log.number % clients], log), daemon=True)
            for log in self.logs
        ]

    @property
    def steps(self) -> int:
        """How many steps were answered so far, over all sessions."""
        return sum(len(log.answers) for log in self.logs)

    @property
    def replayed_steps(self) -> int:
        """Steps that clients sent again because the store had lost them."""
        return sum(client.counters.replayed_steps for client in self._clients)

    def wait_steps(self, count: int) -> None:
        """Waits until every session has `count` more answers. Raises what a session's client raised."""
        goals = [len(log.answers) + count for log in self.logs]

        def reached() -> bool:
            self._raise()
            return all(len(log.answers) >= goal for log, goal in zip(self.logs, goals, strict=True))

        wait_until(reached, f"{count} more steps of every session")

    def end(self) -> None:
        """Finishes the steps in flight, and stops."""
        self._enough.set()
        for thread in self._threads:
            thread.join(STEP_TIMEOUT_S)
        self._raise()

    def differing(self, bundle: Path) -> int:
        """Returns how many answers differ in any bit from an offline run over all inputs of their session."""
        engine = load_engine(bundle, "cpu")
        different = 0
        for log in self.logs:
            sent = np.array([[log.sample(step)] for step in range(len(log.answers))], np.float32)
            expected = offline(engine, sent)["prediction"]
            different += int((np.stack(log.answers).view(np.uint32) != expected.view(np.uint32)).any(axis=1).sum())
        return different

    def _travel(self, client: Client, log: Log) -> None:
        try:
            session = client.session(log.session)
            while not self._enough.is_set():
                log.answers.append(session.step([log.sample(len(log.answers))]))
            if session.position.step != len(log.answers):
                raise CheckFailed(f"{log.session} stands at {session.position.step}, not at {len(log.answers)}")
        except Exception as error:  # noqa: BLE001  raised again where somebody waits
            log.error = error

    def _raise(self) -> None:
        for log in self.logs:
            if log.error is not None:
                raise CheckFailed(f"{log.session}: {type(log.error).__name__}: {log.error}") from log.error

    def __enter__(self) -> Journey:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        for client in self._clients:
            client.close()
