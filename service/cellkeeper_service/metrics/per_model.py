"""Families by model: every chunk's times, steps and replays."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cellkeeper_service.domain.meter import StepTimes

from .tally import Tally

PHASES = ("queue", "load", "compute", "commit", "total")
SECONDS = (
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3,
    50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_STEPS, _REPLAYED = len(PHASES), len(PHASES) + 1


class StepFamilies(Collector):
    """Times, steps and chunks, by model."""

    def __init__(self) -> None:
        self._models: dict[str, Tally] = {}

    def tally(self, model: str) -> Tally:
        """Returns the tally of a model's chunks. Its columns: the seconds of PHASES, steps, 1 if replayed."""
        return self._models.setdefault(model, Tally([SECONDS] * len(PHASES) + [(), ()]))

    def note(self, model: str, steps: int, times: StepTimes, replayed: bool, count: int) -> None:
        """Notes `count` chunks with the same times. Replayed steps are not counted again."""
        tally = self._models.get(model) or self.tally(model)
        row = (times.queue, times.load, times.compute, times.commit, times.total)
        tally.note((*row, 0.0, 1.0) if replayed else (*row, float(steps), 0.0), count)

    def collect(self) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            "cellkeeper_chunk_seconds",
            "Seconds that a chunk spent by phase: waiting for a tick (queue), load, compute, commit, and in total.",
            labels=("model", "phase"),
        )
        steps = CounterMetricFamily(
            "cellkeeper_steps",
            "Time steps of answered chunks, also of peeks; those answered from the log do not count again.",
            labels=("model",),
        )
        chunks = CounterMetricFamily("cellkeeper_chunks", "Chunks answered.", labels=("model",))
        replayed = CounterMetricFamily(
            "cellkeeper_duplicates_replayed",
            "Chunks that had been applied before and were answered from the log.",
            labels=("model",),
        )
        for model, tally in list(self._models.items()):
            rows = tally.rows
            for column, phase in enumerate(PHASES):
                seconds.add_metric((model, phase), tally.buckets(column), tally.sum(column))
            steps.add_metric((model,), tally.sum(_STEPS))
            chunks.add_metric((model,), rows)
            replayed.add_metric((model,), tally.sum(_REPLAYED))
        return iter((seconds, steps, chunks, replayed))
