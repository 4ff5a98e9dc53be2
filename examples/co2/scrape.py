"""Adds up what /metrics shows over the restarts of a server."""

from __future__ import annotations

import urllib.request
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

PHASES = ("queue", "load", "compute", "commit", "total")


class Scrapes:
    """Counters and the histogram of step seconds, summed over every added scrape."""

    def __init__(self) -> None:
        self._counters: defaultdict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self._buckets: dict[str, defaultdict[float, float]] = {phase: defaultdict(float) for phase in PHASES}

    def add(self, url: str) -> None:
        """Scrapes once. Call it before each process ends, since a new process counts from 0."""
        with urllib.request.urlopen(url, timeout=10) as reply:
            text = reply.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if family.type == "counter":
                    self._counters[sample.name, tuple(sorted(sample.labels.items()))] += sample.value
                elif sample.name == "cellkeeper_chunk_seconds_bucket":
                    self._buckets[sample.labels["phase"]][float(sample.labels["le"])] += sample.value

    def count(self, name: str, **labels: str) -> int:
        """Returns a counter, summed over the labels that are not given."""
        wanted = labels.items()
        return int(sum(n for (found, having), n in self._counters.items() if found == name and wanted <= set(having)))

    def quantile_ms(self, phase: str, quantile: float) -> float:
        """Returns the milliseconds that this share of the chunks stayed below, interpolated; NaN without chunks."""
        bounds = sorted(self._buckets[phase].items())
        if not bounds or bounds[-1][1] == 0:
            return float("nan")
        rank = quantile * bounds[-1][1]
        low_bound, low_count = 0.0, 0.0
        for bound, count in bounds:
            if count >= rank:
                if bound == float("inf"):
                    return low_bound * 1e3
                share = (rank - low_count) / max(count - low_count, 1.0)
                return (low_bound + (bound - low_bound) * share) * 1e3
            low_bound, low_count = bound, count
        return low_bound * 1e3
