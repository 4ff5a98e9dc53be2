"""An onnxruntime session whose calls have a time limit, because a graph may contain a loop that never ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnxruntime

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.errors import StartError

CHECKS = 10  # per limit: a call may exceed the limit by 1/CHECKS of it
FATAL = 4  # log severity, so that onnxruntime does not log a stopped call as an error


class LimitedSession:
    """Replaces a session while its graph is being tried. `close` ends its thread.

    onnxruntime checks its stop flag between nodes and loop iterations; it does not interrupt a single node.
    """

    def __init__(self, session: Any, limit_ms: int, place: str) -> None:
        self._session = session
        self._limit_ms, self._place = limit_ms, place
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = FATAL
        self._stop_at = float("inf")  # monotonic seconds
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._stop_late_calls, name="graph-trial", daemon=True)
        self._watch.start()

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Runs like the session's own method. Raises StartError if it takes longer than the limit."""
        with self._limited():
            results: list[Array] = self._session.run(outputs, feeds, self._options)
        return results

    def run_with_iobinding(self, binding: Any) -> None:
        """Runs like the session's own method. Raises StartError if it takes longer than the limit."""
        with self._limited():
            self._session.run_with_iobinding(binding, self._options)

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def close(self) -> None:
        self._closed.set()
        self._watch.join()

    @contextmanager
    def _limited(self) -> Iterator[None]:
        self._stop_at = time.monotonic() + self._limit_ms / 1000
        try:
            yield
        except Exception as error:  # onnxruntime's errors have no public base class
            if not self._options.terminate:
                raise
            raise StartError(
                f"{self._place}: one call took longer than {self._limit_ms} ms and was stopped; if it has a Loop or "
                "Scan, limit the number of its iterations, or raise the limit (trial_call_ms)"
            ) from error
        finally:
            self._stop_at = float("inf")

    def _stop_late_calls(self) -> None:
        while not self._closed.wait(self._limit_ms / 1000 / CHECKS):
            if time.monotonic() > self._stop_at:
                self._options.terminate = True
                return
