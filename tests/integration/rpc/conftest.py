from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper_service.domain.position import Position

from testing.bundles import holding_bundle, make_bundle, token_bundle
from testing.forked_server import ForkedServer

from .calls import WAYS, Api, Chunk, Way, numbers


@pytest.fixture(scope="session")
def lstm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model "lstm": a small LSTM with a head."""
    folder = tmp_path_factory.mktemp("bundles") / "lstm"
    return make_bundle(folder, name="lstm", input_size=3, hidden_size=8, num_layers=2, head=(2,))


@pytest.fixture(scope="session")
def served(counting_model: Path, lstm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    """One server for all tests that do not need their own, with a checkpoint after each step of "count".

    Models: count, lstm, hold (two features; NaN is missing, and holds the last value), tokens (ids below 10).
    """
    folder = tmp_path_factory.mktemp("served")
    bundles = [counting_model, lstm_model, holding_bundle(folder, "hold"), token_bundle(folder, "tokens")]
    limits = ["--max-frame-items", "64", "--max-chunk-steps", "512", "--max-message-bytes", str(1 << 20)]
    with ForkedServer(bundles, "memory:", limits) as server:
        yield server


@pytest.fixture(scope="session")
def count(served: ForkedServer) -> Iterator[Api]:
    """The counting model."""
    with served.channel() as channel:
        yield Api(served.stub(channel), "count")


@pytest.fixture(scope="session")
def lstm(count: Api) -> Api:
    return Api(count.stub, "lstm")


@pytest.fixture
def session() -> str:
    """An id that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.fixture(params=["unary", "batch"])
def unary_way(request: pytest.FixtureRequest) -> Way:
    """The ways to send a step without position."""
    chosen: Way = request.param
    return chosen


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A model "wide" with 1024 hidden values, on a server whose messages have at most 64 KiB."""
    folder = make_bundle(
        tmp_path_factory.mktemp("wide") / "m", name="wide", cell="rnn_tanh", input_size=1, hidden_size=1024
    )
    with ForkedServer([folder], "memory:", ["--max-message-bytes", "65536"]) as server, server.channel() as channel:
        yield Api(server.stub(channel), "wide")


@pytest.fixture(params=["batch", "stream"])
def frame_way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.fixture
def at(count: Api, session: str) -> Iterator[Position]:
    """The position of a session after [1, 2]. Afterwards checks that it and its neighbour are unchanged."""
    places = {}
    for name in (session, f"{session}-neighbour"):
        places[name] = count.send("unary", Chunk(name, numbers(1, 2), count.open(name))).after
    yield places[session]
    for name, place in places.items():
        assert count.position(name) == place
        assert count.send("unary", Chunk(name, numbers(10), place)).sums == [13]
