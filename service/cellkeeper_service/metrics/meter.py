"""The service's metrics: the meter, and most families with their labels. A session id is never a label."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple, get_args

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cellkeeper_service.domain.meter import EvictionReason, Meter, StepTimes, StoreCallName
from cellkeeper_service.domain.store import Outcome, StoreFacts
from cellkeeper_service.errors import Reason

from .families import COMMITS, FRAMES, HTTP_REQUESTS, STATES, STEPS, STORE_CALLS, TICKS, Families

# A creation timestamp for every counter would double the number of series, and nobody uses it.
disable_created_metrics()  # type: ignore[no-untyped-call]

ReloadResult = Literal["changed", "unchanged", "refused", "abandoned"]


class PrometheusMeter(Meter):
    """Has a registry of its own. Safe to call from several threads.

    Counters are shown from the start, with 0: Prometheus sees no increase if a series begins with its first event, so
    that an alert about it would not fire.
    """

    def __init__(self, version: str = "") -> None:
        """version: of the service, for cellkeeper_build_info."""
        self.registry = CollectorRegistry()
        self._steps = Families(*STEPS)
        self._states = Families(*STATES)
        self._gauges = _Gauges(version)
        self._ticks, self._store_calls = Families(*TICKS), Families(*STORE_CALLS)
        self._frames, self._commits = Families(*FRAMES), Families(*COMMITS)
        self._http_seconds = Families(*HTTP_REQUESTS)
        often = self._steps, self._ticks, self._commits, self._store_calls, self._frames, self._http_seconds
        for collector in (*often, self._states, self._gauges):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)  # memory, processor time and open files; on Linux only

        self._loads = self._counters(
            "cellkeeper_loads",
            "Record loads, by whether the session was hot at its position (hot) or not (cold).",
            "model",
            "kind",
        )
        self._rebuilt = self._counters(
            "cellkeeper_load_replayed_steps", "Time steps recomputed from input logs in cold loads.", "model"
        )
        self._checkpoints = self._counters("cellkeeper_checkpoints", "Commits that wrote a checkpoint.", "model")
        self._evictions = self._counters(
            "cellkeeper_evictions",
            "Hot sessions evicted: the arena was full (capacity), the record has changed (stale), or the version is no "
            "longer served (retired).",
            "model",
            "reason",
        )
        self._rejections = self._counters(
            "cellkeeper_rejections", "Requests and items refused, by reason in lower case.", "reason"
        )
        self._non_finite = self._counters(
            "cellkeeper_non_finite_chunks", "Chunks refused because an output or a state was not finite.", "model"
        )
        self._http_requests = self._counters(
            "cellkeeper_http_requests",
            "HTTP requests, by the template of their path. Status 499: the client did not wait for the answer.",
            "method",
            "route",
            "status",
        )
        self._reloads = self._counters(
            "cellkeeper_reloads",
            "Reloads of the model folders after SIGHUP, by result: changed, unchanged, refused or abandoned.",
            "result",
        )
        for reason in Reason:
            self._rejections(reason.value)
        for result in get_args(ReloadResult):
            self._reloads(result)
        for outcome in Outcome:
            self._commits.tally(outcome.value)
        for call in get_args(StoreCallName):
            self._store_calls.tally(call)
        for direction in ("in", "out"):
            self._frames.tally(direction)

    # ------------------------------------------------------------------------------------- events (Meter)

    def steps_done(self, model: str, steps: int, times: StepTimes, replayed: bool, count: int) -> None:
        applied = 0 if replayed else steps
        row = times.queue, times.load, times.compute, times.commit, times.total, applied, replayed
        self._steps.note(model, row, count)

    def rejected(self, reason: str) -> None:
        self._rejections(reason).inc()

    def tick(self, model: str, batch: int, steps: int) -> None:
        self._ticks.note(model, (batch, batch * steps))

    def loaded(self, model: str, hot: bool) -> None:
        self._loads(model, "hot" if hot else "cold").inc()

    def rebuilt(self, model: str, steps: int) -> None:
        self._rebuilt(model).inc(steps)

    def committed(self, outcome: str, count: int) -> None:
        self._commits.note(outcome, (count,))

    def checkpointed(self, model: str) -> None:
        self._checkpoints(model).inc()

    def evicted(self, model: str, reason: EvictionReason) -> None:
        self._evictions(model, reason).inc()

    def non_finite(self, model: str) -> None:
        self._non_finite(model).inc()

    def store_call(self, call: StoreCallName, items: int, seconds: float, failed: bool) -> None:
        self._store_calls.note(call, (items, failed, seconds))

    def state_change(self, model: str, norm: float, relative_change: float) -> None:
        self._states.note(model, (norm, relative_change))

    def frame(self, direction: str, items: int) -> None:
        self._frames.note(direction, (items,))

    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answered HTTP request. route: the template of its path."""
        self._http_requests(method, route, str(status)).inc()
        self._http_seconds.note(route, (seconds,))

    def engine_calls(self, model: str) -> int:
        """Returns how many engine calls there were for the model."""
        return self._ticks.rows(model)

    # ------------------------------------------------------------------------------------- what is shown as it is

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Sets the function that returns, at every scrape, how many requests and frame items are unanswered."""
        self._gauges.queue_depth = depth

    def watch_hot_sessions(self, hot: Callable[[], Mapping[str, int]]) -> None:
        """Sets the function that returns, at every scrape, the number of hot sessions of each model."""
        self._gauges.hot_sessions = hot

    def watch_files(self, failed: Callable[[], Mapping[str, bool]], expiry: Callable[[], float | None]) -> None:
        """Sets the functions that return, at every scrape, whether the last reload of each kind of file failed, and the
        Unix time at which the certificate expires (None: there is none)."""
        self._gauges.reloads_failed = failed
        self._gauges.certificate_expiry = expiry

    def show_models(self, rows: Sequence[ModelRow]) -> None:
        """Shows exactly these versions in cellkeeper_model_info and cellkeeper_current_model_info."""
        for model in {row.model for row in rows}:
            self._start(model)
        self._gauges.models = list(rows)

    def _start(self, model: str) -> None:
        self._steps.tally(model)
        self._ticks.tally(model)
        for kind in ("hot", "cold"):
            self._loads(model, kind)
        for reason in get_args(EvictionReason):
            self._evictions(model, reason)
        for counter in (self._rebuilt, self._checkpoints, self._non_finite):
            counter(model)

    def reloaded(self, result: ReloadResult) -> None:
        self._reloads(result).inc()

    def store_opened(self, kind: str, facts: Callable[[], StoreFacts]) -> None:
        """Shows the store in cellkeeper_store_info and _restarts_total; `facts` is called at every scrape."""
        self._gauges.store = (kind, facts)

    def exposition(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    # labels() validates and locks at every call. There are few combinations, so each is looked up only once.

    def _counters(self, name: str, text: str, *labels: str) -> Callable[..., Counter]:
        return cache(Counter(name, text, labels, registry=self.registry).labels)


class ModelRow(NamedTuple):
    """A model version in cellkeeper_model_info. fingerprint: hexadecimal. current: it takes new sessions."""

    model: str
    fingerprint: str
    engine: str
    device: str
    numerics: str
    exact: bool
    current: bool


class _Gauges(Collector):
    """Metrics whose values are read at each scrape instead of being counted."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.queue_depth: Callable[[], int] = int
        self.hot_sessions: Callable[[], Mapping[str, int]] = dict
        self.reloads_failed: Callable[[], Mapping[str, bool]] = dict
        self.certificate_expiry: Callable[[], float | None] = lambda: None
        self.models: list[ModelRow] = []
        self.store: tuple[str, Callable[[], StoreFacts]] | None = None

    def collect(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily("cellkeeper_queue_depth", "Unanswered requests and frame items.")
        queue.add_metric((), self.queue_depth())
        hot = GaugeMetricFamily("cellkeeper_hot_sessions", "Sessions whose state is in a slot.", labels=("model",))
        for model, sessions in self.hot_sessions().items():
            hot.add_metric((model,), sessions)
        models = GaugeMetricFamily(
            "cellkeeper_model_info",
            "The model versions that are served.",
            labels=("model", "fingerprint", "engine", "device", "numerics", "exact"),
        )
        current = GaugeMetricFamily(
            "cellkeeper_current_model_info",
            "The version of each model that takes new sessions.",
            labels=("model", "fingerprint"),
        )
        for row in self.models:
            models.add_metric((*row[:5], "true" if row.exact else "false"), 1)
            if row.current:
                current.add_metric(row[:2], 1)
        build = GaugeMetricFamily("cellkeeper_build_info", "This build of the service.", labels=("version", "python"))
        build.add_metric((self.version, platform.python_version()), 1)
        store = GaugeMetricFamily(
            "cellkeeper_store_info",
            "The store, as it was when this service started.",
            labels=("kind", "persistence", "eviction", "replicas"),
        )
        restarts = CounterMetricFamily(
            "cellkeeper_store_restarts", "Restarts of the store's servers that this process noticed."
        )
        if self.store is not None:
            kind, ask = self.store
            facts = ask()
            store.add_metric((kind, facts.persistence, facts.eviction, str(facts.replicas)), 1)
            restarts.add_metric((), facts.restarts)
        failed = GaugeMetricFamily(
            "cellkeeper_last_reload_failed",
            "1 while what was last read of the models' folders (models), the token file (tokens) or the certificate's "
            "files (certificate) cannot be used, so that the previous ones stay in force; otherwise 0.",
            labels=("file",),
        )
        for file, has_failed in self.reloads_failed().items():
            failed.add_metric((file,), has_failed)
        expiry = GaugeMetricFamily(
            "cellkeeper_certificate_expiry_timestamp_seconds",
            "Unix time at which the server's TLS certificate expires. Only with --tls-cert.",
        )
        if (expires := self.certificate_expiry()) is not None:
            expiry.add_metric((), expires)
        return iter((queue, hot, models, current, build, store, restarts, failed, expiry))
