"""Families for every engine call, store call, message and HTTP request, and for a sample of the states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cellkeeper_service.domain.meter import SAMPLE_EVERY_CALLS

from .per_model import SECONDS
from .tally import Tally

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
NORMS = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 9))
CHANGES = tuple(10.0 ** (exponent / 2) for exponent in range(-12, 5))


class Column(NamedTuple):
    """One family of a group. bounds: of a histogram's buckets; empty: a counter, which sums the column. rows: a counter
    of the events, without a column of its own."""

    name: str
    text: str
    bounds: Sequence[float] = ()
    rows: bool = False


class Families(Collector):
    """Families with the same single label, whose values are noted together, one row per event: see Tally."""

    def __init__(self, label: str, *columns: Column) -> None:
        self._label = label
        self._columns = columns
        self._bounds = [column.bounds for column in columns if not column.rows]
        self._tallies: dict[str, Tally] = {}

    def tally(self, value: str) -> Tally:
        """Returns the tally of a label's value, which is shown from now on."""
        return self._tallies.setdefault(value, Tally(self._bounds))

    def note(self, value: str, *row: float) -> None:
        """Notes an event. value: of the label. row: one number for each column without `rows`."""
        tally = self._tallies.get(value) or self.tally(value)
        tally.note(row)

    def rows(self, value: str) -> int:
        """Returns how many rows were noted for a label's value."""
        tally = self._tallies.get(value)
        return 0 if tally is None else int(tally.rows)

    def collect(self) -> Iterator[Metric]:
        tallies = list(self._tallies.items())
        number = 0
        for column in self._columns:
            family: HistogramMetricFamily | CounterMetricFamily
            if column.bounds:
                family = HistogramMetricFamily(column.name, column.text, labels=(self._label,))
                for value, tally in tallies:
                    family.add_metric((value,), tally.buckets(number), tally.sum(number))
            else:
                family = CounterMetricFamily(column.name, column.text, labels=(self._label,))
                for value, tally in tallies:
                    family.add_metric((value,), tally.rows if column.rows else tally.sum(number))
            number += not column.rows
            yield family


def tick_families() -> Families:
    return Families(
        "model",
        Column("cellkeeper_batch_size", "Sessions in one engine call.", BATCHES),
        Column(
            "cellkeeper_computed_steps",
            "Time steps that engine calls computed, over all their sessions: applied, peeked, forecast, replayed or "
            "dropped.",
        ),
    )


def store_families() -> Families:
    return Families(
        "call",
        Column(
            "cellkeeper_store_round_trips", "Store calls: load, commit, delete, scan, or probe by /readyz.", rows=True
        ),
        Column("cellkeeper_store_items", "Sessions in store calls."),
        Column("cellkeeper_store_errors", "Store calls that failed."),
        Column("cellkeeper_store_seconds", "Duration of a store call in seconds.", SECONDS),
    )


def frame_families() -> Families:
    return Families(
        "direction",
        Column("cellkeeper_frames", "Step messages, by direction.", rows=True),
        Column("cellkeeper_frame_items", "Items in step messages."),
    )


def http_families() -> Families:
    return Families(
        "route",
        Column(
            "cellkeeper_http_request_seconds",
            "Duration of an HTTP request in seconds; of a WebSocket, the time that it was open.",
            SECONDS,
        ),
    )


def commit_families() -> Families:
    return Families(
        "result",
        Column(
            "cellkeeper_commits",
            "Chunks and other changes, by the result of the commit that carried them: committed, conflict (another one "
            "came first), refused (the store is full or read-only), unreached (it is down) or unknown (no answer).",
        ),
    )


def state_families() -> Families:
    """How large states are and how much they change, which shows drift and collapse."""
    sampled = f"Sampled: one session in every {SAMPLE_EVERY_CALLS}th engine call."
    change = "Norm of a state's change over a chunk, divided by the larger of its norms before and after: 0 to 2."
    return Families(
        "model",
        Column("cellkeeper_state_norm", f"Euclidean norm of a session's state after a chunk. {sampled}", NORMS),
        Column("cellkeeper_state_relative_change", f"{change} {sampled}", CHANGES),
    )
