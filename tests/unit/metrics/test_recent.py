"""The metrics of the last minutes, as differences between two looks."""

from __future__ import annotations

import pytest
from cellkeeper_service.domain.meter import StepTimes
from cellkeeper_service.metrics import PrometheusMeter, Recent
from cellkeeper_service.metrics.recent import KEPT


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def meter() -> PrometheusMeter:
    return PrometheusMeter("1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recent(meter: PrometheusMeter, clock: Clock) -> Recent:
    return Recent(meter.registry.collect, clock)


def test_what_happened_between_two_looks(meter: PrometheusMeter, recent: Recent, clock: Clock) -> None:
    meter.steps_done("m", 7, StepTimes(total=3.0), False, 1)  # before the first look, so in no sample
    meter.rejected("queue_full")
    recent.look()
    clock.now += 5
    meter.steps_done("m", 2, StepTimes(queue=0.0001, compute=0.003, total=0.004), False, 99)
    meter.steps_done("m", 2, StepTimes(queue=0.0001, compute=0.003, total=0.9), False, 1)
    meter.tick("m", 10, 1)
    meter.tick("m", 20, 1)
    meter.rejected("step_gap")
    meter.committed("committed", 50)
    meter.store_call("commit", 50, 0.002, False)
    meter.store_call("load", 1, 0.002, True)
    meter.watch_queue(lambda: 3)
    meter.watch_hot_sessions(lambda: {"m": 4})
    recent.look()
    clock.now += 1
    (sample,) = recent.shown()["samples"]
    assert (sample["age_seconds"], sample["seconds"]) == (1, 5)
    assert (sample["steps_per_second"], sample["chunks_per_second"]) == (40, 20)
    assert (sample["batches_per_second"], sample["batch_size_mean"]) == (0.4, 15)
    assert (sample["queue_depth"], sample["hot_sessions"]) == (3, {"m": 4})
    assert sample["rejections_per_second"] == {"step_gap": 0.2}
    assert sample["commits_per_second"] == {"committed": 10}
    assert sample["store"]["load"]["errors_per_second"] == sample["store"]["commit"]["calls_per_second"] == 0.2
    total = sample["latency_seconds"]["total"]
    assert 0.0025 < total["p50"] < total["p90"] <= 0.005  # within the bucket
    assert total["p99"] <= 0.005
    assert sample["latency_seconds"]["load"]["p99"] <= 50e-6


def test_where_nothing_happened_nothing_is_made_up(recent: Recent, clock: Clock) -> None:
    recent.look()
    clock.now += 5
    recent.look()
    (sample,) = recent.shown()["samples"]
    assert set(sample["latency_seconds"].values()) == {None}
    assert (sample["steps_per_second"], sample["batch_size_mean"], sample["store"]) == (0, None, {})


def test_a_value_beyond_the_last_bound_is_at_least_that(meter: PrometheusMeter, recent: Recent, clock: Clock) -> None:
    recent.look()
    meter.steps_done("m", 1, StepTimes(total=60.0), False, 1)
    clock.now += 5
    recent.look()
    assert recent.shown()["samples"][0]["latency_seconds"]["total"] == {"p50": 10.0, "p90": 10.0, "p99": 10.0}


def test_showing_the_last_minutes_computes_nothing_again(
    meter: PrometheusMeter, recent: Recent, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happens on the event loop, for everybody who looks."""
    for _ in range(3):
        meter.steps_done("m", 1, StepTimes(total=0.1), False, 1)
        clock.now += 5
        recent.look()
    before = recent.shown()
    for name in ("_between", "_buckets", "_quantiles"):
        monkeypatch.delattr(f"cellkeeper_service.metrics.recent.{name}")
    assert recent.shown() == before


def test_only_the_last_minutes_are_kept(recent: Recent, clock: Clock) -> None:
    for _ in range(KEPT + 10):
        clock.now += 5
        recent.look()
    samples = recent.shown()["samples"]
    assert len(samples) == KEPT
    assert samples[0]["age_seconds"] > samples[-1]["age_seconds"] == 0
