"""Groups while server processes are killed and their store loses a tail.

The outputs are those of an offline run, and every step counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as redis_py
from cellkeeper import Client
from cellkeeper._transport.endpoints import rendezvous
from cellkeeper_service.engine.load import offline
from numpy.typing import NDArray

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .conftest import QUICK

Array = NDArray[np.float32]

IDS = [f"pump-{number}" for number in range(24)]
STEPS = 24
FEATURES = 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("groups") / "m", input_size=FEATURES)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def inputs() -> Array:
    """[members, steps, features]"""
    draw = np.random.default_rng(7)
    return draw.normal(size=(len(IDS), STEPS, FEATURES)).astype(np.float32)


def offline_outputs(bundle: Path, inputs: Array) -> Array:
    return np.stack([offline(bundle, rows)["prediction"] for rows in inputs])


def test_a_server_killed_in_mid_run(bundle: Path, inputs: Array, tmp_path: Path) -> None:
    with (
        ForkedServer([bundle], f"sqlite:{tmp_path / 'sessions.db'}") as server,
        Client(server.target, timeout=60, attempt_timeout=2, backoff=QUICK) as client,
    ):
        group, got = client.group(IDS), []
        for step in range(STEPS):
            if step == STEPS // 2:
                server.kill()
                server.restart()
            got.append(group.step(inputs[:, step]))
        assert {position.step for position in group.positions.values()} == {STEPS}
        assert {info.session: info.position for info in client.sessions()} == group.positions
        assert client.counters.stream_reconnects >= 1
    assert np.array_equal(np.stack(got, axis=1), offline_outputs(bundle, inputs))


def test_one_of_two_servers_is_killed(bundle: Path, redis: RedisServer, inputs: Array) -> None:
    redis.client().flushall()
    with (
        ForkedServer([bundle], redis.url) as one,
        ForkedServer([bundle], redis.url) as two,
        Client([one.target, two.target], timeout=60, attempt_timeout=2, backoff=QUICK) as client,
    ):
        first = [rendezvous(name, [one.target, two.target])[0] for name in IDS]
        assert set(first) == {one.target, two.target}  # so both have members
        group, got = client.group(IDS), []
        for step in range(0, STEPS, 2):
            if step == STEPS // 2:
                one.kill()
            got.append(group.step(inputs[:, step : step + 2]))
        assert {info.session: info.position for info in client.sessions()} == group.positions
    assert np.array_equal(np.concatenate(got, axis=1), offline_outputs(bundle, inputs))


def test_a_store_that_loses_a_tail(bundle: Path, redis: RedisServer, inputs: Array) -> None:
    """Like a fail-over: for every second member, Redis returns to an earlier state."""
    records = redis.client()
    records.flushall()
    with ForkedServer([bundle], redis.url) as server, Client(server.target, timeout=60, backoff=QUICK) as client:
        group = client.group(IDS)
        got = [group.step(inputs[:, step]) for step in range(6)]
        kept = {key: records.dump(key) for key in records.keys("*pump-*[02468]*")}
        assert len(kept) >= len(IDS) // 2
        got += [group.step(inputs[:, step]) for step in range(6, 10)]
        lose(records, kept)
        peeked = group.peek(inputs[:, 10])  # also resends what was lost
        assert client.counters.replayed_steps == 4 * len(kept)
        lose(records, kept)
        got += [group.step(inputs[:, step]) for step in range(10, STEPS)]
        assert client.counters.replayed_steps == 2 * 4 * len(kept)
        assert {info.session: info.position for info in client.sessions()} == group.positions
    expected = offline_outputs(bundle, inputs)
    assert np.array_equal(np.stack(got, axis=1), expected)
    assert np.array_equal(peeked, expected[:, 10])


def lose(records: redis_py.Redis, kept: dict[Any, Any]) -> None:
    for key, dumped in kept.items():
        records.restore(key, 0, dumped, replace=True)


def test_sessions_of_an_older_version(bundle: Path, tmp_path: Path) -> None:
    """A group has its first member's version. Sessions of another version can be members too."""
    newer = make_bundle(tmp_path / "newer", input_size=FEATURES, seed=1)
    x = np.ones((3, FEATURES), np.float32)
    with ForkedServer([bundle], f"sqlite:{tmp_path / 'sessions.db'}") as server:
        with Client(server.target, backoff=QUICK) as client:
            old = client.group(["a", "b"])
            assert np.array_equal(old.step(x[:2]), offline_outputs(bundle, x[:2, None])[:, 0])
        server.stop()
        server.bundles = [newer, bundle]
        server.restart()
        with Client(server.target, timeout=60, backoff=QUICK) as client:
            group = client.group(["a", "b"])
            assert group.model.fingerprint == old.model.fingerprint
            assert group.add(["c"]) == {"c": True}
            y = group.step(x)
    assert np.array_equal(y[:2], offline_outputs(bundle, np.stack([x[:2], x[:2]], axis=1))[:, 1])
    assert np.array_equal(y[2:], offline_outputs(newer, x[2:, None])[:, 0])
