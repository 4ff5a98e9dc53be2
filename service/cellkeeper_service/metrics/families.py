"""Families for every chunk, engine call, store call, message and HTTP request, and for a sample of the states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cellkeeper_service.domain.meter import SAMPLE_EVERY_CALLS

from .tally import Tally

PHASES = ("queue", "load", "compute", "commit", "total")
SECONDS = (
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3,
    50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
NORMS = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 9))
CHANGES = tuple(10.0 ** (exponent / 2) for exponent in range(-12, 5))


class Column(NamedTuple):
    """One family of a group. bounds: of a histogram's buckets; empty: a counter, which sums the column. rows: a counter
    of the events, without a column of its own. phases: values of a further label, each with a column of its own."""

    name: str
    text: str
    bounds: Sequence[float] = ()
    rows: bool = False
    phases: Sequence[str] = ()

    @property
    def further_labels(self) -> list[tuple[str, ...]]:
        """The labels, beside the group's, of each of its columns."""
        return [(phase,) for phase in self.phases] or [()]


class Families(Collector):
    """Families with the same label, whose values are noted together, one row per event: see Tally."""

    def __init__(self, label: str, *columns: Column) -> None:
        self._label = label
        self._columns = columns
        self._bounds = [column.bounds for column in columns if not column.rows for _ in column.further_labels]
        self._tallies: dict[str, Tally] = {}

    def tally(self, value: str) -> Tally:
        """Returns the tally of a label's value, which is shown from now on."""
        return self._tallies.setdefault(value, Tally(self._bounds))

    def note(self, value: str, row: tuple[float, ...], times: int = 1) -> None:
        """Notes `times` equal events. value: of the label. row: a number for each column, but none for `rows`."""
        tally = self._tallies.get(value) or self.tally(value)
        tally.note(row, times)

    def rows(self, value: str) -> int:
        """Returns how many rows were noted for a label's value."""
        tally = self._tallies.get(value)
        return 0 if tally is None else int(tally.rows)

    def collect(self) -> Iterator[Metric]:
        tallies = list(self._tallies.items())
        number = 0
        for column in self._columns:
            family: HistogramMetricFamily | CounterMetricFamily
            labels = (self._label, "phase") if column.phases else (self._label,)
            places = list(enumerate(column.further_labels, number))
            if column.bounds:
                family = HistogramMetricFamily(column.name, column.text, labels=labels)
                for value, tally in tallies:
                    for at, further in places:
                        family.add_metric((value, *further), tally.buckets(at), tally.sum(at))
            else:
                family = CounterMetricFamily(column.name, column.text, labels=labels)
                for value, tally in tallies:
                    family.add_metric((value,), tally.rows if column.rows else tally.sum(number))
            number += 0 if column.rows else len(places)
            yield family


STEPS = (
    "model",
    Column(
        "cellkeeper_chunk_seconds",
        "Seconds that a chunk spent by phase: waiting for a tick (queue), load, compute, commit, and in total.",
        SECONDS,
        phases=PHASES,
    ),
    Column(
        "cellkeeper_steps",
        "Time steps of answered chunks, also of peeks; those answered from the log do not count again.",
    ),
    Column("cellkeeper_chunks", "Chunks answered.", rows=True),
    Column("cellkeeper_duplicates_replayed", "Chunks that had been applied before and were answered from the log."),
)
TICKS = (
    "model",
    Column("cellkeeper_batch_size", "Sessions in one engine call.", BATCHES),
    Column(
        "cellkeeper_computed_steps",
        "Time steps that engine calls computed, over all their sessions: applied, peeked, forecast, replayed or "
        "dropped.",
    ),
)
STORE_CALLS = (
    "call",
    Column("cellkeeper_store_round_trips", "Store calls: load, commit, delete, scan, or probe by /readyz.", rows=True),
    Column("cellkeeper_store_items", "Sessions in store calls."),
    Column("cellkeeper_store_errors", "Store calls that failed."),
    Column("cellkeeper_store_seconds", "Duration of a store call in seconds.", SECONDS),
)
FRAMES = (
    "direction",
    Column("cellkeeper_frames", "Step messages, by direction.", rows=True),
    Column("cellkeeper_frame_items", "Items in step messages."),
)
HTTP_REQUESTS = (
    "route",
    Column(
        "cellkeeper_http_request_seconds",
        "Duration of an HTTP request in seconds; of a WebSocket, the time that it was open.",
        SECONDS,
    ),
)
COMMITS = (
    "result",
    Column(
        "cellkeeper_commits",
        "Chunks and other changes, by the result of the commit that carried them: committed, conflict (another one "
        "came first), refused (the store is full or read-only), unreached (it is down) or unknown (no answer).",
    ),
)
_SAMPLED = f"Sampled: one session in every {SAMPLE_EVERY_CALLS}th engine call."
STATES = (
    "model",
    Column("cellkeeper_state_norm", f"Euclidean norm of a session's state after a chunk. {_SAMPLED}", NORMS),
    Column(
        "cellkeeper_state_relative_change",
        "Norm of a state's change over a chunk, divided by the larger of its norms before and after: 0 to 2. "
        f"{_SAMPLED}",
        CHANGES,
    ),
)
"""How large states are and how much they change, which shows drift and collapse."""
