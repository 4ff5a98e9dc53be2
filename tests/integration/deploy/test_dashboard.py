"""The Grafana dashboard: it is valid, queries existing metrics, and shows what it should."""

from __future__ import annotations

import re

import pytest

from tests.integration.deploy.dashboard import dashboard, metric_names, panels, queries
from tests.integration.deploy.test_rules import exposed_names, rules

SHOWN = (
    "cellkeeper_chunk_seconds_bucket",
    "cellkeeper_batch_size_bucket",
    "cellkeeper_hot_sessions",
    "cellkeeper_loads_total",
    "cellkeeper_commits_total",
    "cellkeeper_duplicates_replayed_total",
    "cellkeeper_state_norm_bucket",
    "cellkeeper_state_relative_change_bucket",
    "cellkeeper_queue_depth",
    "cellkeeper_rejections_total",
    "cellkeeper_store_errors_total",
)


def test_it_asks_only_for_what_is_there() -> None:
    asked = {name for _, expression in queries() for name in metric_names(expression)}
    assert asked - exposed_names() == set()
    made = {rule["record"] for rule in rules() if "record" in rule}
    recorded = {name for _, expression in queries() for name in re.findall(r"\w+:\w+:\w+", expression)}
    assert recorded
    assert recorded - made == set()


@pytest.mark.parametrize("name", SHOWN)
def test_it_shows(name: str) -> None:
    assert any(name in metric_names(expression) for _, expression in queries())


def test_every_panel_says_what_it_is() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        assert panel["type"] in {"timeseries", "stat", "heatmap", "table"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_ids_are_unique_and_panels_do_not_overlap() -> None:
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_its_variables_are_those_that_it_uses() -> None:
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", "".join(str(panel) for panel in panels()))) - {"__rate_interval"}
    assert used == names


def test_it_has_what_grafana_needs() -> None:
    found = dashboard()
    assert found["uid"] == "cellkeeper"
    assert found["title"]
    assert found["schemaVersion"] >= 36
    assert found["editable"] is False
