"""Loads the versions of every model from their folders, and prepares them to be served."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.load import load_engine, warm
from cellkeeper_service.errors import StartError
from cellkeeper_service.metrics import ModelRow, PrometheusMeter
from cellkeeper_service.model.bundle import Bundle, read_bundle
from cellkeeper_service.server.config import Settings

log = logging.getLogger(__name__)

MAX_SLOTS = 1 << 18
HOST_ARENA_MIB = 256  # unless --arena-mib says otherwise
Cost = Callable[[Batch], float]
Costs = dict[bytes, dict[int, float]]
"""For each version's fingerprint: the seconds of an engine call of one time step, by batch size."""


def load_engines(settings: Settings) -> tuple[list[Engine], Costs]:
    """Loads the engines of all bundles, and measures what their calls cost. Raises StartError."""
    costs: Costs = {}
    return [load(read_bundle(Path(folder)), settings, costs) for folder in settings.models], costs


def load(bundle: Bundle, settings: Settings, costs: Costs, between: Callable[[], None] = lambda: None) -> Engine:
    """Loads a bundle's engine, and measures into `costs` what its calls cost. between: see load_engine. Raises
    StartError."""
    limits = settings.max_batch, settings.threads
    with _enough_memory(f"load {bundle.spec.name}"):
        engine = load_engine(bundle, settings.device, *limits, between, settings.trial_call_ms, settings.precision)
        costs[engine.spec.fingerprint] = warm(engine)
    if engine.shared_condition:  # imports ask about it, but a bundle may be older, or written by hand
        log.warning(
            "model %s: the sessions of a call decide the condition of node %s together, so one may change what another "
            "gets; unless you know that each gets the same either way, import it again with --batch one",
            bundle.spec.name,
            engine.shared_condition,
        )
    return engine


def make_models(engines: list[Engine], settings: Settings) -> dict[str, Models]:
    """Returns the versions by model name, in the order given: the first of each model takes new sessions. Raises
    StartError."""
    by_name: dict[str, list[Engine]] = {}
    for engine in engines:
        by_name.setdefault(engine.spec.name, []).append(engine)
    for name, versions in by_name.items():
        check_versions(name, versions)
    models = {}
    for name, versions in by_name.items():
        served = [serve_version(engine, settings, len(engines)) for engine in versions]
        models[name] = Models(served, settings.accept_other_numerics)
    return models


def serve_version(engine: Engine, settings: Settings, shares: int) -> Version:
    """Returns the engine with its slots, which take one of `shares` equal parts of the arena's memory. Raises
    StartError."""
    arena_mib = settings.arena_mib or _default_arena_mib(engine)
    budget_bytes = arena_mib * 1024 * 1024 // shares
    slots = min(budget_bytes // (2 * max(engine.spec.state_bytes, 1)), MAX_SLOTS)
    if slots < settings.max_batch:
        raise StartError(
            f"arena_mib: {arena_mib} MiB hold {slots} hot sessions of {engine.spec.name}, expected at least max_batch "
            f"({settings.max_batch}); raise --arena-mib or lower --max-batch"
        )
    with _enough_memory(f"keep {slots} hot sessions of {engine.spec.name}"):
        return Version(engine, slots, settings.max_replay_steps)


@contextmanager
def _enough_memory(purpose: str) -> Iterator[None]:
    """Raises StartError if memory runs out inside."""
    try:
        yield
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        advice = "raise the process's memory limit, or lower --arena-mib or --max-batch"
        raise StartError(f"out of memory: cannot {purpose}{why}; {advice}") from error


def _default_arena_mib(engine: Engine) -> int:
    free_bytes = engine.free_bytes
    return HOST_ARENA_MIB if free_bytes is None else free_bytes // 2 // 2**20


def check_versions(name: str, versions: Sequence[Engine]) -> None:
    """Raises StartError if a model's versions differ in their tensors or feedback, or if one was given twice."""
    first = versions[0].spec
    if len({engine.spec.fingerprint for engine in versions}) < len(versions):
        raise StartError(f"model {name}: got the same version twice; name each folder once")
    for engine in versions[1:]:
        spec = engine.spec
        if not spec.looks_like(first):
            raise StartError(
                f"model {name}: versions {first.fingerprint.hex()[:12]} and {spec.fingerprint.hex()[:12]} have "
                "different tensors; serve them under different names"
            )
    feedbacks = {engine.spec.feedback for engine in versions if engine.spec.feedback is not None}
    if len(feedbacks) > 1:
        raise StartError(
            f"model {name}: feedback: its versions declare different ones, expected the same in each config.json"
        )


def expected_cost(costs: Costs) -> Cost:
    """Returns a function that estimates the seconds of an engine call from those measured at warm-up, for the next
    larger batch size that was measured."""
    tables: dict[bytes, tuple[list[int], dict[int, float]]] = {}

    def cost(batch: Batch) -> float:
        fingerprint = batch.version.spec.fingerprint
        found = tables.get(fingerprint)
        if found is None:
            table = costs[fingerprint]
            found = tables[fingerprint] = (sorted(table), table)
        sizes, table = found
        size = sizes[min(bisect_left(sizes, len(batch)), len(sizes) - 1)]
        return table[size] * batch.steps

    return cost


def show_models(models: dict[str, Models], meter: PrometheusMeter) -> None:
    """Shows the served versions in the metrics."""
    rows = []
    for name, versions in models.items():
        for served in versions:
            engine, fingerprint = served.engine, served.spec.fingerprint.hex()
            current = served is versions.default
            rows.append(ModelRow(name, fingerprint, engine.name, engine.device, engine.numerics, engine.exact, current))
    meter.show_models(rows)
