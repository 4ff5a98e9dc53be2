"""The metrics of several processes that serve together, as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.error import HTTPError
from urllib.request import urlopen

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

SCRAPE_SECONDS = 5.0
PROBE_SECONDS = 6.0  # longer than a process gives its own loop


class MergedMetrics:
    """Asks every process when it is asked itself. count: how many there are."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._urls: list[str] = []
        self._ending = False

    def add(self, url: str) -> None:
        """Where the metrics of one of them are."""
        self._urls.append(url)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format. Raises OSError where a process does not answer, or is not there yet:
        sums without it would look as if its counters had gone back."""
        if len(self._urls) < self._count:
            raise OSError(f"{len(self._urls)} of {self._count} workers serve")
        registry = CollectorRegistry()
        registry.register(_Sums([self._scrape(url) for url in self._urls]))
        return generate_latest(registry)

    def end(self) -> None:
        """They were told to end."""
        self._ending = True

    def why_dead(self) -> str:
        """Why this process and the others should be killed; empty: they live. What still loads lives."""
        return self._first_refusal("/healthz")

    def why_not_ready(self) -> str:
        """Why no request should be sent to their port; empty: all of them are ready."""
        if self._ending:
            return "draining"
        if len(self._urls) < self._count:
            return f"{len(self._urls)} of {self._count} workers serve"
        return self._first_refusal("/readyz")

    def _first_refusal(self, path: str) -> str:
        refusals = (_refusal(url.removesuffix("/metrics") + path) for url in list(self._urls))
        return next((f"worker {number}: {why}" for number, why in enumerate(refusals, 1) if why), "")

    def _scrape(self, url: str) -> str:
        with urlopen(url, timeout=SCRAPE_SECONDS) as answer:
            return str(answer.read().decode())


def _refusal(url: str) -> str:
    """What a probe says; empty: all is well."""
    try:
        urlopen(url, timeout=PROBE_SECONDS).close()
    except HTTPError as refused:
        with refused:
            return refused.read(200).decode(errors="replace").strip()
    except OSError as error:
        return str(error)
    return ""


class _Sums(Collector):
    """Samples of the same name and labels are added up; of what only says what something is, one is kept."""

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
                    known = own.get(at, 0.0)
                    own[at] = sample.value if family.name.endswith("_info") else known + sample.value
        for name, family in families.items():
            for (sample_name, labels), value in values[name].items():
                family.add_sample(sample_name, dict(labels), value)
            yield family
