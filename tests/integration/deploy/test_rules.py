"""Prometheus' rules, checked with promtool if available, and against the service's metrics."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml
from cellkeeper_service.domain.meter import StepTimes
from cellkeeper_service.metrics import PrometheusMeter

from tests.integration.deploy.dashboard import metric_names
from tests.integration.deploy.stack import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
HAPROXY_NAMES = {"haproxy_backend_active_servers", "haproxy_server_current_sessions"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here: RULES ARE NOT TESTED; scripts/ensure-promtool gets it"
)


@cache
def rules() -> list[dict[str, Any]]:
    files = sorted((FOLDER / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def exposed_names() -> set[str]:
    """Returns every name that a scrape of the service can contain."""
    kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {
        family.name + suffix for family in PrometheusMeter().registry.collect() for suffix in kinds[family.type]
    } | HAPROXY_NAMES


def promtool(*words: str, given: str = "") -> None:
    """Runs promtool. given: its stdin."""
    ran = subprocess.run(["promtool", *words], input=given, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_promtool_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", str(FOLDER / "prometheus.yml"))


@needs_promtool
def test_promtool_likes_the_names_units_and_texts_of_every_metric() -> None:
    meter = PrometheusMeter("0.0.0")
    meter.steps_done("m", 1, StepTimes(0.1, 0.1, 0.1, 0.1, 0.4), False, 1)
    promtool("check", "metrics", given=meter.exposition().decode())
    with pytest.raises(AssertionError, match="should have"):
        promtool(
            "check", "metrics", given="# HELP a_milliseconds A.\n# TYPE a_milliseconds counter\na_milliseconds 1\n"
        )


@needs_promtool
@pytest.mark.parametrize("file", sorted((FOLDER / "tests").glob("*.yml")), ids=lambda file: file.stem)
def test_the_rules(file: Any) -> None:
    promtool("test", "rules", str(file))


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    fires: dict[str, set[bool]] = {name: set() for name in alerts()}
    for file in (FOLDER / "tests").glob("*.yml"):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for asked in case.get("alert_rule_test", []):
                fires[asked["alertname"]].add(bool(asked["exp_alerts"]))
    assert {name: seen for name, seen in fires.items() if seen != {True, False}} == {}


def test_the_service_has_every_metric_that_is_asked_for() -> None:
    asked = {name for rule in rules() for name in metric_names(rule["expr"])}
    assert len(asked) > 10
    assert asked - exposed_names() == set()


def test_every_recording_that_is_asked_for_is_made() -> None:
    made = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for rule in rules() for name in re.findall(r"\w+:\w+:\w+", rule["expr"])}
    assert asked - made == set()


def test_severities() -> None:
    assert {rule["labels"]["severity"] for rule in alerts().values()} <= {"critical", "warning", "info"}


def test_every_alert_has_its_page() -> None:
    pages = {name: rule["annotations"]["runbook"] for name, rule in alerts().items()}
    assert len(set(pages.values())) == len(pages)
    for name, page in pages.items():
        assert (ROOT / page).read_text().startswith(f"# {name}\n"), page


def test_every_page_has_its_alert() -> None:
    linked = {ROOT / rule["annotations"]["runbook"] for rule in alerts().values()}
    assert {page for page in RUNBOOKS.glob("*.md") if page.name != "README.md"} == linked
    listed = re.findall(r"\]\((\S+\.md)\)", (RUNBOOKS / "README.md").read_text())
    assert {RUNBOOKS / page for page in listed} == linked


def test_pages_name_metrics_that_are_there() -> None:
    made = {rule["record"] for rule in rules() if "record" in rule} | exposed_names()
    for page in RUNBOOKS.glob("*.md"):
        for code in re.findall(r"`([^`]+)`", page.read_text()):
            assert {name for name in metric_names(code) if name.startswith("cellkeeper_")} - made == set(), page.name
