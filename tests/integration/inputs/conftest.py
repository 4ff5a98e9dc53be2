from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper import Client

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer
from testing.two_inputs import two_inputs_bundle


@pytest.fixture(scope="session")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle "two": two inputs per time step, and a counter among the states."""
    return two_inputs_bundle(tmp_path_factory.mktemp("bundles") / "two")


@pytest.fixture(scope="session")
def served(two_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    """A server of three models.

    two: two inputs. fed: the same with feedback: the prediction becomes audio, and the caller supplies ids. count: one
    input.
    """
    folder = tmp_path_factory.mktemp("served")
    fed = two_inputs_bundle(folder / "fed", name="fed", feedback={"audio": [2, 0, 1], "ids": "known"})
    bundles = [two_inputs, fed, counting_bundle(folder / "count")]
    with ForkedServer(bundles, "memory:", ["--kserve", "on", "--max-chunk-steps", "64"]) as server:
        yield server


@pytest.fixture(scope="module")  # an open client would disturb tests that count gRPC's wake-ups
def client(served: ForkedServer) -> Iterator[Client]:
    with Client(served.target) as made:
        yield made


@pytest.fixture
def session() -> str:
    """An id that no other test uses."""
    return uuid.uuid4().hex
