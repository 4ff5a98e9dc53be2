"""Refusals that the client handles itself, as docs/errors.md says: ACK_BEHIND, COMMIT_CONFLICT and OUTCOME_UNKNOWN.

Each is provoked, on a real server if possible, and the caller sees what the page promises.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from cellkeeper import Client, CommitConflict, DeadlineExceeded, Unavailable
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.engine.load import offline

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .conftest import QUICK, ServerThread
from .counting_wire import Refused


def test_a_window_beyond_the_servers_log_only_waits(tmp_path: Path) -> None:
    """The log has no room for 64 unacknowledged steps. The server says so, and the stream continues on its own."""
    bundle = make_bundle(tmp_path / "wide", hidden_size=64)  # a large state, so that checkpoints are rare
    inputs = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    options = ["--max-log-steps", "8", "--max-chunk-steps", "4"]
    with ForkedServer([bundle], "memory:", options) as server, Client(server.target, backoff=QUICK) as client:
        outputs = list(client.session("a").stream(inputs, window=64))
        refused = server.metric("cellkeeper_rejections_total", reason="ack_behind")
    assert np.array_equal(outputs, offline(bundle, inputs)["prediction"])
    assert refused > 0


def test_a_commit_conflict_is_a_cause_and_never_raised(threaded: ServerThread) -> None:
    with Client(threaded.target, backoff=QUICK) as client:
        session = client.session("a")
        threaded.server.refusals = [Refused("COMMIT_CONFLICT", delay_ms=1) for _ in range(100_000)]
        with pytest.raises(DeadlineExceeded) as caught:
            session.step([1.0, 1.0], timeout=2.0)
        assert isinstance(caught.value.__cause__, CommitConflict)
        threaded.server.refusals = []
        session.settle()
        late = caught.value.late_step
        assert late is not None
        assert late.applied


def test_only_a_step_without_position_has_an_unknown_outcome(counting_model: Path, own_redis: RedisServer) -> None:
    """Redis hangs during the commit. This client's step has a position, so its outcome is settled afterwards."""
    options = ["--store-timeout-ms", "300"]
    inputs = np.float32(1).tobytes()
    without_position = pb.StepRequest(model="count", session="others", dtype=pb.FLOAT32, shape=[1, 1], inputs=inputs)
    with (
        ForkedServer([counting_model], own_redis.url, options) as server,
        server.channel() as channel,
        Client(server.target, backoff=QUICK) as client,
    ):
        mine = client.session("mine")
        mine.step([1.0])
        server.stub(channel).Step(without_position)
        own_redis.pause()
        try:
            with pytest.raises(grpc.RpcError) as unknown:
                server.stub(channel).Step(without_position)
            with pytest.raises(DeadlineExceeded) as caught:
                mine.step([1.0], timeout=1.0)
        finally:
            own_redis.wake()
        assert unknown.value.code() is grpc.StatusCode.ABORTED
        assert "the step may have been applied" in str(unknown.value)
        assert isinstance(caught.value.__cause__, Unavailable)
        late = caught.value.late_step
        mine.settle(timeout=30)
        assert late is not None
        assert late.applied
        assert mine.step([1.0]).tolist() == [3.0]
