"""Merges the metrics and probes of several worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

SCRAPE_SECONDS = 5.0
PROBE_SECONDS = 6.0  # longer than a process waits for its own event loop
REASON_BYTES = 1000  # a store's reason, with what to do about it, is longer than a line
_OPENER = build_opener(ProxyHandler({}))  # a proxy that the environment names cannot reach this machine's loopback


class MergedMetrics:
    """The metrics and probes of all workers, each of which is asked at every request. count: how many there are."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._urls: list[str] = []
        self._ending = False

    def add(self, url: str) -> None:
        """Adds a worker, by the URL of its metrics."""
        self._urls.append(url)

    def exposition(self) -> bytes:
        """Returns the merged metrics in Prometheus' text format.

        Raises OSError if a worker does not answer or is not there yet: sums without it would look as if counters had
        gone backwards.
        """
        if len(self._urls) < self._count:
            raise OSError(f"{len(self._urls)} of {self._count} workers are serving")
        registry = CollectorRegistry()
        registry.register(_Sums([_answer(url, SCRAPE_SECONDS).decode() for url in self._urls]))
        return generate_latest(registry)

    def end(self) -> None:
        """Notes that the workers were told to end."""
        self._ending = True

    def why_dead(self) -> str:
        """Returns why this process and the workers should be killed; empty if all live. Loading counts as alive."""
        return self._first_refusal("/healthz")

    def why_not_ready(self) -> str:
        """Returns why no requests should be sent to the workers' port; empty if all workers are ready."""
        if self._ending:
            return "draining"
        if len(self._urls) < self._count:
            return f"{len(self._urls)} of {self._count} workers are serving"
        return self._first_refusal("/readyz")

    def _first_refusal(self, path: str) -> str:
        refusals = (_refusal(url.removesuffix("/metrics") + path) for url in list(self._urls))
        return next((f"worker {number}: {why}" for number, why in enumerate(refusals, 1) if why), "")


def _answer(url: str, timeout_s: float) -> bytes:
    """Returns what a worker answers. Raises HTTPError for a refusal, and OSError if there is no whole answer."""
    try:
        with _OPENER.open(url, timeout=timeout_s) as answer:
            return bytes(answer.read())
    except HTTPException as error:  # the worker ended while it answered
        raise OSError(f"{url}: {type(error).__name__}: {error}") from error


def _refusal(url: str) -> str:
    """Returns why a probe failed; empty if it succeeded."""
    try:
        _answer(url, PROBE_SECONDS)
    except HTTPError as refused:
        with refused:
            return refused.read(REASON_BYTES).decode(errors="replace").strip() or str(refused)
    except OSError as error:
        return str(error)
    return ""


class _Sums(Collector):
    """Adds up samples of the same name and labels. Of an info metric it keeps one, of a time the earliest."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text):
                families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                own = values.setdefault(family.name, {})
                for sample in family.samples:
                    at = (sample.name, tuple(sample.labels.items()))
                    if at not in own or family.name.endswith("_info"):
                        own[at] = sample.value
                    elif family.name.endswith(("_time_seconds", "_timestamp_seconds")):
                        own[at] = min(own[at], sample.value)
                    else:
                        own[at] += sample.value
        for name, family in families.items():
            for (sample_name, labels), value in values[name].items():
                family.add_sample(sample_name, dict(labels), value)
            yield family
