from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.bundles import holding_bundle, make_bundle, token_bundle
from testing.forked_server import ForkedServer

from .calls import Api

KSERVE = ("--kserve", "on")
_ids = itertools.count(1)


@pytest.fixture(scope="session")
def lstm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model "lstm": a small LSTM with a head."""
    folder = tmp_path_factory.mktemp("bundles") / "lstm"
    return make_bundle(folder, name="lstm", input_size=3, hidden_size=8, num_layers=2, head=(2,))


@pytest.fixture(scope="session")
def served(counting_model: Path, lstm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    """One server for all tests that do not need their own.

    Models: count, lstm, tokens (ids below 10), and wide (two features; NaN is missing), whose tensors are called X and
    Y.
    """
    folder = tmp_path_factory.mktemp("served")
    bundles = [counting_model, lstm_model, holding_bundle(folder, "wide"), token_bundle(folder, "tokens")]
    options = [*KSERVE, "--kserve-names", "wide/X=input,wide/Y=prediction", "--default-ttl-ms", "600000"]
    with ForkedServer(bundles, "memory:", [*options, "--max-chunk-steps", "512"]) as server:
        yield server


@pytest.fixture(scope="session")
def count(served: ForkedServer) -> Iterator[Api]:
    with served.channel() as channel:
        yield Api(channel)


@pytest.fixture
def sequence() -> int:
    """An id that no other test uses."""
    return next(_ids)
