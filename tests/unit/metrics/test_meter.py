"""Known events, and what a scrape shows after them."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest
from cellkeeper_service.domain.meter import Meter, StepTimes
from cellkeeper_service.errors import StartError
from cellkeeper_service.metrics import MetricsServer, ModelRow, PrometheusMeter
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[str, float]


def every_event(meter: Meter) -> None:
    """Reports each event at least once, with distinct numbers."""
    meter.steps_done("co2", 3, StepTimes(queue=0.0001, load=0.02, compute=0.002, commit=0.004, total=0.0261), False, 1)
    meter.steps_done("co2", 5, StepTimes(queue=0.0001, compute=0.002, commit=0.004, total=0.0061), False, 1)
    meter.steps_done("co2", 7, StepTimes(queue=0.0001, total=0.0001), True, 1)
    meter.rejected("step_gap")
    meter.rejected("step_gap")
    meter.rejected("queue_full")
    meter.tick("co2", 64, 3)
    meter.tick("co2", 1, 2)
    meter.loaded("co2", hot=True)
    meter.loaded("co2", hot=True)
    meter.loaded("co2", hot=False)
    meter.rebuilt("co2", 11)
    meter.committed("committed", 9)
    meter.committed("conflict", 1)
    meter.committed("unknown", 2)
    meter.checkpointed("co2")
    meter.evicted("co2", "capacity")
    meter.non_finite("co2")
    meter.store_call("commit", 64, 0.0007, failed=False)
    meter.store_call("commit", 32, 0.2, failed=True)
    meter.state_change("co2", 4.0, 0.05)
    meter.frame("in", 256)
    meter.frame("in", 100)
    meter.frame("out", 200)


def samples(text: str) -> Samples:
    """Returns every sample, by its name and labels in Prometheus' notation."""
    found = {}
    for family in text_string_to_metric_families(text):
        found.update(samples_of(family))
    return found


def samples_of(family: Metric) -> Samples:
    found = {}
    for sample in family.samples:
        labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
        found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def meter() -> PrometheusMeter:
    meter = PrometheusMeter("1.2.3")
    meter.watch_queue(lambda: 17)
    meter.watch_hot_sessions(lambda: {"co2": 4})
    meter.show_models([ModelRow("co2", "ab" * 32, "onnxruntime", "cpu", 'ort 1.2 "avx2"', True, True)])
    every_event(meter)
    return meter


@pytest.fixture
def server(meter: PrometheusMeter) -> Iterator[MetricsServer]:
    with closing(MetricsServer(meter.exposition, "127.0.0.1", 0, str, str)) as server:
        yield server


EXPECTED = {
    'cellkeeper_steps_total{model="co2"}': 8,  # the replayed chunk's steps were counted when they were applied
    'cellkeeper_chunks_total{model="co2"}': 3,
    'cellkeeper_duplicates_replayed_total{model="co2"}': 1,
    'cellkeeper_chunk_seconds_count{model="co2",phase="queue"}': 3,
    'cellkeeper_chunk_seconds_count{model="co2",phase="total"}': 3,
    'cellkeeper_chunk_seconds_sum{model="co2",phase="load"}': 0.02,
    'cellkeeper_chunk_seconds_bucket{le="0.0001",model="co2",phase="queue"}': 3,
    'cellkeeper_chunk_seconds_bucket{le="5e-05",model="co2",phase="queue"}': 0,
    'cellkeeper_chunk_seconds_bucket{le="0.01",model="co2",phase="total"}': 2,
    'cellkeeper_chunk_seconds_bucket{le="+Inf",model="co2",phase="total"}': 3,
    'cellkeeper_batch_size_count{model="co2"}': 2,
    'cellkeeper_batch_size_bucket{le="1.0",model="co2"}': 1,
    'cellkeeper_batch_size_bucket{le="64.0",model="co2"}': 2,
    'cellkeeper_computed_steps_total{model="co2"}': 194,
    'cellkeeper_loads_total{kind="hot",model="co2"}': 2,
    'cellkeeper_loads_total{kind="cold",model="co2"}': 1,
    'cellkeeper_load_replayed_steps_total{model="co2"}': 11,
    'cellkeeper_commits_total{result="committed"}': 9,
    'cellkeeper_commits_total{result="conflict"}': 1,
    'cellkeeper_commits_total{result="unknown"}': 2,
    'cellkeeper_checkpoints_total{model="co2"}': 1,
    'cellkeeper_evictions_total{model="co2",reason="capacity"}': 1,
    'cellkeeper_rejections_total{reason="step_gap"}': 2,
    'cellkeeper_rejections_total{reason="queue_full"}': 1,
    'cellkeeper_non_finite_chunks_total{model="co2"}': 1,
    'cellkeeper_store_round_trips_total{call="commit"}': 2,
    'cellkeeper_store_items_total{call="commit"}': 96,
    'cellkeeper_store_errors_total{call="commit"}': 1,
    'cellkeeper_store_seconds_bucket{call="commit",le="0.001"}': 1,
    'cellkeeper_state_norm_sum{model="co2"}': 4.0,
    'cellkeeper_state_relative_change_sum{model="co2"}': 0.05,
    'cellkeeper_frames_total{direction="in"}': 2,
    'cellkeeper_frame_items_total{direction="in"}': 356,
    'cellkeeper_frame_items_total{direction="out"}': 200,
    "cellkeeper_queue_depth": 17,
    'cellkeeper_hot_sessions{model="co2"}': 4,
}


def test_every_event_shows(meter: PrometheusMeter) -> None:
    shown = samples(meter.exposition().decode())
    assert {name: shown.get(name) for name in EXPECTED} == pytest.approx(EXPECTED)
    models = [name for name in shown if name.startswith("cellkeeper_model_info")]
    assert len(models) == 1
    assert 'exact="true"' in models[0]
    assert any(name.startswith("cellkeeper_build_info") and 'version="1.2.3"' in name for name in shown)


def test_no_event_is_left_to_the_meter_that_counts_nothing() -> None:
    assert {name for name in vars(Meter) if not name.startswith("_")} <= {*vars(PrometheusMeter)}


def test_labels_are_few_and_never_sessions(meter: PrometheusMeter) -> None:
    allowed = {
        "model", "phase", "le", "kind", "result", "reason", "call", "direction",
        "fingerprint", "engine", "device", "numerics", "exact", "version", "python",
    }  # fmt: skip
    families = text_string_to_metric_families(meter.exposition().decode())
    assert {label for family in families for sample in family.samples for label in sample.labels} <= allowed


def test_counters_are_shown_with_zero_before_their_first_event() -> None:
    """If a series began with its first event, `rate` and `increase` would show nothing of it, and no alert would
    fire."""
    meter = PrometheusMeter()
    meter.show_models([ModelRow("co2", "f1", "onnxruntime", "cpu", "ort 1.20 avx2", True, True)])
    before = samples(meter.exposition().decode())
    every_event(meter)
    counters = [
        name
        for family in text_string_to_metric_families(meter.exposition().decode())
        for name in samples_of(family)
        if family.type == "counter" and family.name != "process_cpu_seconds"  # which counts no events
    ]
    assert len(counters) > 60
    assert "process_cpu_seconds_total" in before
    assert {name: before.get(name) for name in counters} == dict.fromkeys(counters, 0)


def test_meters_are_independent() -> None:
    first, second = PrometheusMeter(), PrometheusMeter()
    first.rejected("step_gap")
    assert samples(second.exposition().decode())['cellkeeper_rejections_total{reason="step_gap"}'] == 0


def test_an_unused_meter_can_be_scraped() -> None:
    assert samples(PrometheusMeter().exposition().decode())["cellkeeper_queue_depth"] == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_no_complaint(server: MetricsServer) -> None:
    with urllib.request.urlopen(server.url) as reply:
        scrape = reply.read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=scrape, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_http(meter: PrometheusMeter) -> None:
    dead, why_not = "", "loading its models"
    with closing(MetricsServer(meter.exposition, "127.0.0.1", 0, lambda: dead, lambda: why_not)) as server:
        base = f"http://127.0.0.1:{server.port}"
        assert server.url == f"{base}/metrics"
        with urllib.request.urlopen(f"{base}/metrics?x=1") as reply:
            assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert samples(reply.read().decode())["cellkeeper_queue_depth"] == 17
        with urllib.request.urlopen(f"{base}/healthz") as reply:
            assert reply.read() == b"alive\n"
        dead = "stuck"
        for path, status, text in (
            ("/healthz", 503, b"not alive: stuck\n"),
            ("/readyz", 503, b"not ready: loading its models\n"),
            ("/other", 404, b"try /metrics, /healthz or /readyz\n"),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(base + path)
            with refused.value as error:
                assert (error.code, error.read()) == (status, text)
        why_not = ""
        with urllib.request.urlopen(f"{base}/readyz") as reply:
            assert reply.read() == b"ready\n"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{base}/healthz")


def test_a_taken_port_refuses_to_start(server: MetricsServer, meter: PrometheusMeter) -> None:
    with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{server.port} .*--metrics-listen"):
        MetricsServer(meter.exposition, "127.0.0.1", server.port, str, str)
