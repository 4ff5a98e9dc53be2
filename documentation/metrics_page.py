"""docs/reference/metrics.md: every metric family, as a server shows it."""

from __future__ import annotations

from cellkeeper_service.domain.meter import StepTimes
from cellkeeper_service.domain.store import StoreFacts
from cellkeeper_service.metrics import ModelRow, PrometheusMeter
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from .markdown import code, table

INTRODUCTION = """# Metrics

Every family that `/metrics` shows, on the address of `--metrics-listen`; those that begin with `process_` on Linux
only. A histogram has the series `_bucket`, `_sum` and `_count`. No label holds a session id. With `--workers` the
numbers are the sums over all workers; of a time they are the earliest. [Runbooks](../runbooks/README.md) say which of
them raise alerts.
"""


def metrics_page() -> str:
    """The page as Markdown. Raises RuntimeError for a family that the sample below does not reach."""
    rows = []
    for family in families():
        if not family.samples:
            raise RuntimeError(f"{family.name}: no sample; add one to `sampled` in {__name__}")
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.samples[0].name if family.type == "counter" else family.name
        rows.append((code(name), family.type, ", ".join(map(code, labels)), family.documentation))
    return f"{INTRODUCTION}\n{table(('name', 'type', 'labels', 'meaning'), sorted(rows))}"


def families() -> list[Metric]:
    """Every family, with one sample at least."""
    return list(text_string_to_metric_families(sampled().exposition().decode()))


def sampled() -> PrometheusMeter:
    """A meter that counted each event once: a family shows its labels only then."""
    meter = PrometheusMeter("0")
    meter.steps_done("m", 1, StepTimes(), False, 1)
    meter.rejected("queue_full")
    meter.tick("m", 1, 1)
    meter.loaded("m", True)
    meter.rebuilt("m", 1)
    meter.committed("committed", 1)
    meter.checkpointed("m")
    meter.evicted("m", "capacity")
    meter.non_finite("m")
    meter.store_call("load", 1, 0.0, False)
    meter.state_change("m", 1.0, 0.0)
    meter.frame("in", 1)
    meter.http_request("GET", "/v1/models", 200, 0.0)
    meter.reloaded("changed")
    meter.watch_hot_sessions(lambda: {"m": 1})
    meter.watch_files(lambda: {"models": False}, lambda: 0.0)
    meter.show_models([ModelRow("m", "0", "onnxruntime", "cpu", "0", True, True)])
    meter.store_opened("memory", lambda: StoreFacts("none"))
    return meter
