"""One side of a comparison: the server, client and store processes of one commit."""

from __future__ import annotations

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


class Side:
    """note: what differs from the other side beside the code; "" where nothing does."""

    def __init__(self, checkout: Checkout, store: str, bundle: Path, folder: Path, running: ExitStack) -> None:
        """store: redis, sqlite or memory; it gets one of its own. folder: for its files, of its own. Raises
        CheckoutError where the commit's server does not start, neither with `bundle` nor with one that it writes."""
        self.note = ""
        self._pids: dict[str, int] = {}
        url = "memory:" if store == "memory" else f"sqlite:{folder / 'sessions.db'}"
        if store == "redis":
            redis = running.enter_context(RedisServer({"appendfsync": "everysec"}))
            self._pids["redis"], url = redis.pid, redis.url
        try:
            self._server = running.enter_context(ServerProcess([bundle], url, variables=checkout.variables))
        except RuntimeError as error:
            own = checkout.write_model(folder, bundle.name)
            self.note = (
                f"{checkout.name} serves a bundle that its own bench wrote; of this checkout's its server says: "
            )
            self.note += last_line(str(error))
            try:
                self._server = running.enter_context(ServerProcess([own], url, variables=checkout.variables))
            except RuntimeError as again:
                why = last_line(str(again))
                raise CheckoutError(f"{checkout.name}: its server does not start: {why}") from again
        self._client = ClientProcess(f"cellkeeper {store}", self._server.target, variables=checkout.variables)
        running.callback(self._client.close)
        self._pids |= {"server": self._server.pid, "client": self._client.pid}

    def measure(self, load: Load, seconds: float) -> dict[str, Any]:
        """The figures of load.Measured and, by part, cpu_us_per_step; or {"error": text}. CPU time and steps are of
        the whole load, its short warm-up included."""
        steps = self._server.metric(STEPS)
        before = {part: cpu_seconds(pid) for part, pid in self._pids.items()}
        self._client.begin(load, seconds)
        figures = self._client.end()
        spent = {part: cpu_seconds(pid) - before[part] for part, pid in self._pids.items()}
        steps = self._server.metric(STEPS) - steps
        if "error" in figures:
            return figures
        if steps <= 0:
            return {"error": f"{STEPS} did not grow"}
        return figures | {"cpu_us_per_step": {part: spent[part] / steps * 1e6 for part in PARTS if part in spent}}
