"""The last minutes of the metrics, for people who look at one process without Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric

from .families import PHASES

SAMPLE_SECONDS = 5.0
KEPT = 120
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

Labels = tuple[tuple[str, str], ...]
Values = Mapping[str, Mapping[Labels, float]]
"""The metrics at one time, by the sample's name and its labels."""


class Recent:
    """Samples the metrics when told to, and keeps what happened in the last KEPT intervals between two samples.

    An interval is computed once, when it ends: computing all of them takes a tenth of a second for each model, during
    which the event loop would do nothing else.
    """

    sample_seconds = SAMPLE_SECONDS

    def __init__(self, collect: Callable[[], Iterable[Metric]], now: Callable[[], float]) -> None:
        """collect: returns every family, as a registry does. now: the monotonic clock, in seconds."""
        self._collect = collect
        self._now = now
        self._last: tuple[float, Values] | None = None  # a sample, and when it was taken
        self._intervals: deque[tuple[float, dict[str, Any]]] = deque(maxlen=KEPT)  # each with its end

    def look(self) -> None:
        """Takes a sample. Call every SAMPLE_SECONDS."""
        values: dict[str, dict[Labels, float]] = defaultdict(dict)
        for family in self._collect():
            if family.name in FAMILIES:
                for sample in family.samples:
                    values[sample.name][tuple(sample.labels.items())] = sample.value
        now, last = self._now(), self._last
        self._last = now, values
        if last is not None:
            began, before = last
            self._intervals.append((now, _between(before, values, max(now - began, 1e-9))))

    def shown(self) -> dict[str, Any]:
        """Returns the samples as JSON, oldest first. Each covers the time since the one before it."""
        now = self._now()
        return {
            "sample_seconds": SAMPLE_SECONDS,
            "samples": [{"age_seconds": now - at, **interval} for at, interval in self._intervals],
        }


FAMILIES = frozenset(
    {
        "cellkeeper_chunk_seconds",
        "cellkeeper_steps",
        "cellkeeper_chunks",
        "cellkeeper_batch_size",
        "cellkeeper_queue_depth",
        "cellkeeper_hot_sessions",
        "cellkeeper_rejections",
        "cellkeeper_commits",
        "cellkeeper_store_round_trips",
        "cellkeeper_store_errors",
        "cellkeeper_store_seconds",
    }
)


def _between(before: Values, after: Values, seconds: float) -> dict[str, Any]:
    def rate(name: str) -> float:
        return sum(_rates(before, after, name, "", seconds).values())

    calls = _rates(before, after, "cellkeeper_store_round_trips_total", "call", seconds)
    failed = _rates(before, after, "cellkeeper_store_errors_total", "call", seconds)
    batches = _buckets(before, after, "cellkeeper_batch_size", "").get("", [])
    chunks = _buckets(before, after, "cellkeeper_chunk_seconds", "phase")
    waits = _buckets(before, after, "cellkeeper_store_seconds", "call")
    sessions = _grown(before, after, "cellkeeper_batch_size_sum")
    return {
        "seconds": seconds,
        "steps_per_second": rate("cellkeeper_steps_total"),
        "chunks_per_second": rate("cellkeeper_chunks_total"),
        "latency_seconds": {phase: _quantiles(chunks.get(phase, [])) for phase in PHASES},
        "batches_per_second": batches[-1][1] / seconds if batches else 0.0,
        "batch_size_mean": sessions / batches[-1][1] if batches and batches[-1][1] else None,
        "queue_depth": sum(after.get("cellkeeper_queue_depth", {}).values()),
        "hot_sessions": _by(after.get("cellkeeper_hot_sessions", {}), "model"),
        "rejections_per_second": _rates(before, after, "cellkeeper_rejections_total", "reason", seconds),
        "commits_per_second": _rates(before, after, "cellkeeper_commits_total", "result", seconds),
        "store": {
            call: {
                "calls_per_second": calls[call],
                "errors_per_second": failed.get(call, 0.0),
                "seconds": _quantiles(waits.get(call, [])),
            }
            for call in calls
        },
    }


def _by(values: Mapping[Labels, float], label: str) -> dict[str, float]:
    """Returns the sums by a label's value; "" for samples without the label."""
    found: dict[str, float] = defaultdict(float)
    for labels, value in values.items():
        found[dict(labels).get(label, "")] += value
    return dict(found)


def _rates(before: Values, after: Values, name: str, label: str, seconds: float) -> dict[str, float]:
    """Returns the growth per second by the label's value, without values that did not grow."""
    early, late = _by(before.get(name, {}), label), _by(after.get(name, {}), label)
    grown = {value: count - early.get(value, 0.0) for value, count in late.items()}
    return {value: count / seconds for value, count in grown.items() if count > 0}


def _grown(before: Values, after: Values, name: str) -> float:
    return sum(after.get(name, {}).values()) - sum(before.get(name, {}).values())


def _buckets(before: Values, after: Values, name: str, label: str) -> dict[str, list[tuple[float, float]]]:
    """Returns the buckets' upper bounds, ascending, each with how many values between the samples were at most that, by
    a label's value; "" for buckets without the label."""
    found: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for sign, sample in ((1, after), (-1, before)):
        for labels, value in sample.get(f"{name}_bucket", {}).items():
            of = dict(labels)
            found[of.get(label, "")][float(of["le"])] += sign * value
    return {value: sorted(buckets.items()) for value, buckets in found.items()}


def _quantiles(buckets: list[tuple[float, float]]) -> dict[str, float] | None:
    """Returns QUANTILES by name, interpolated linearly within a bucket; None if there were no values."""
    if not buckets or buckets[-1][1] <= 0:
        return None
    bounds, counts = zip(*buckets, strict=True)
    found = {}
    for name, quantile in QUANTILES.items():
        rank = quantile * counts[-1]
        at = bisect_left(counts, rank)
        low, below = (bounds[at - 1], counts[at - 1]) if at else (0.0, 0.0)
        share = (rank - below) / (counts[at] - below)
        found[name] = low if bounds[at] == float("inf") else low + share * (bounds[at] - low)
    return found
