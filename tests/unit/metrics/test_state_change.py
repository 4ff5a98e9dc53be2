"""How much a step changes a state, as a server measures it: relative to the larger of the norms before and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from cellkeeper import Client
from cellkeeper_service.domain.meter import SAMPLE_EVERY_CALLS
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer

MODELS = ("single", "chunk", "still", "none")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForkedServer]:
    bundles = [counting_bundle(tmp_path / name, name=name, features=2) for name in MODELS]
    with ForkedServer(bundles, "memory:") as server:
        yield server


def change_of(server: ForkedServer) -> Metric:
    with urlopen(server.metrics_url, timeout=30) as reply:
        families = text_string_to_metric_families(reply.read().decode())
    return next(family for family in families if family.name == "cellkeeper_state_relative_change")


def value(family: Metric, suffix: str, model: str, **labels: str) -> float:
    name, labels = family.name + suffix, {"model": model, **labels}
    return sum(sample.value for sample in family.samples if (sample.name, sample.labels) == (name, labels))


def test_the_first_step_from_a_state_of_zeros_is_no_outlier(server: ForkedServer) -> None:
    """A new session's state is zero, so the change is relative to the new state: 1, or 0 if it stays zero."""
    with Client(server.target) as client:
        for number in range(SAMPLE_EVERY_CALLS):  # each is one call of the engine, and a new session's first step
            client.session(f"s{number}", model="single").step([3, 4])
            client.session(f"s{number}", model="chunk").step([[1, 1], [1, 2]])
            client.session(f"s{number}", model="still").step([0, 0])
    family = change_of(server)
    assert {model: value(family, "_count", model) for model in MODELS} == {
        "single": 1, "chunk": 1, "still": 1, "none": 0,
    }  # fmt: skip
    assert {model: value(family, "_sum", model) for model in MODELS} == pytest.approx(
        {"single": 1.0, "chunk": 1.0, "still": 0.0, "none": 0.0}
    )
    assert value(family, "_bucket", "single", le="1.0") == 1
    assert value(family, "_bucket", "still", le="1e-06") == 1  # counts as unchanged


def test_the_mean_is_of_use_and_the_help_says_how_it_is_measured(server: ForkedServer) -> None:
    with Client(server.target) as client:
        for name in range(200):
            session = client.session(f"s{name}", model="single")
            session.step([1, 1])
        list(session.stream([[1, 1]] * 200, window=1))
    family = change_of(server)
    count, total = value(family, "_count", "single"), value(family, "_sum", "single")
    assert count >= 5
    assert 0.3 < total / count <= 1.0
    assert "Sampled: one session in every 64th engine call" in family.documentation
    assert "divided by the larger of its norms before and after" in family.documentation
