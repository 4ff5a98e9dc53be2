"""One side of a comparison: the server, client and store processes of one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .checkout import Checkout, CheckoutError, last_line
from .client_process import ClientProcess
from .cores import cpu_seconds
from .load import Load

STEPS = "cellkeeper_steps_total"
PARTS = ("server", "client", "redis")

OWN = "cellkeeper"
"""The contender whose client is the official one."""


class Side:
    """One side of a comparison. note: what differs from the other side besides the code; "" if nothing does."""

    def __init__(
        self,
        checkout: Checkout,
        store: str,
        bundle: Path,
        folder: Path,
        running: ExitStack,
        others: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Starts the processes.

        store: redis, sqlite or memory, for this side alone. folder: for its own files. others: the interpreters of
        clients besides the official one, by their contenders' names. options: further arguments of the server. Raises
        CheckoutError if the commit's server starts neither with `bundle` nor with a bundle that it writes itself.
        """
        self.note = ""
        self._pids: dict[str, int] = {}
        program = (checkout.python, "-m", "cellkeeper_service")
        url = "memory:" if store == "memory" else f"sqlite:{folder / 'sessions.db'}"
        if store == "redis":
            redis = running.enter_context(RedisServer({"appendfsync": "everysec"}))
            self._pids["redis"], url = redis.pid, redis.url
        try:
            self._server = running.enter_context(ServerProcess([bundle], url, options, checkout.variables, program))
        except RuntimeError as error:
            own = checkout.write_model(folder, bundle.name)
            self.note = (
                f"{checkout.name} serves a bundle that its own bench wrote; of this checkout's its server says: "
            )
            self.note += last_line(str(error))
            try:
                self._server = running.enter_context(ServerProcess([own], url, options, checkout.variables, program))
            except RuntimeError as again:
                why = last_line(str(again))
                raise CheckoutError(f"{checkout.name}: its server does not start: {why}") from again
        self._pids["server"] = self._server.pid
        target, path = self._server.target, {"PYTHONPATH": checkout.path}
        self._clients = {OWN: ClientProcess(OWN, target, checkout.python, checkout.variables)}
        for contender, python in (others or {}).items():
            self._clients[contender] = ClientProcess(contender, target, python, path)
        for client in self._clients.values():
            running.callback(client.close)

    def measure(self, load: Load, seconds: float, contender: str = OWN) -> dict[str, Any]:
        """Returns the figures of load.Measured and, by part, cpu_us_per_step; or {"error": text}.

        CPU time and steps are for the whole load, including its short warm-up. contender: whose client sends it.
        """
        client = self._clients[contender]
        pids = {**self._pids, "client": client.pid}
        steps = self._server.metric(STEPS)
        before = {part: cpu_seconds(pid) for part, pid in pids.items()}
        client.begin(load, seconds)
        figures = client.end()
        spent = {part: cpu_seconds(pid) - before[part] for part, pid in pids.items()}
        steps = self._server.metric(STEPS) - steps
        if "error" in figures:
            return figures
        if steps <= 0:
            return {"error": f"{STEPS} did not grow"}
        return figures | {"cpu_us_per_step": {part: spent[part] / steps * 1e6 for part in PARTS if part in spent}}
