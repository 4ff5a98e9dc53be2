"""A store that hangs: the errors, which of them allow a retry, and what was applied."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .calls import START, Api, Refused, Reply, numbers, request
from .conftest import KSERVE

RESUMES_S = 20.0


@pytest.fixture
def api(own_redis: RedisServer, counting_model: Path) -> Iterator[Api]:
    options = [*KSERVE, "--store-timeout-ms", "300", "--retry-delay-ms", "20"]
    with ForkedServer([counting_model], own_redis.url, options) as server, server.channel() as channel:
        yield Api(channel)


def until_served(call: Callable[[], Reply]) -> Reply:
    """Repeats the call as long as the server says that the store is unavailable."""
    until = time.monotonic() + RESUMES_S
    while True:
        try:
            return call()
        except Refused as refused:  # noqa: PERF203 - each try fails on its own
            if refused.code != "UNAVAILABLE" or time.monotonic() > until:
                raise


def test_a_step_that_may_have_been_applied_is_aborted_unless_it_has_a_number(api: Api, own_redis: RedisServer) -> None:
    """Clients retry UNAVAILABLE on their own, but not ABORTED."""
    for name in ("plain", "numbered", "stream"):
        api.infer(numbers(1), name, {**START, "step": 0})
    own_redis.pause()
    with pytest.raises(Refused) as plain:
        api.infer(numbers(2), "plain")
    with pytest.raises(Refused) as numbered:
        api.infer(numbers(2), "numbered", {"step": 1, "acked": 0})
    (streamed,) = api.stream(iter([request("count", numbers(2), "stream", identifier="r")]))
    own_redis.wake()
    assert plain.value.code == "ABORTED"
    assert "the step may have been applied" in plain.value.message
    assert numbered.value.code == "UNAVAILABLE"
    assert isinstance(streamed, Refused)
    assert streamed.code == "r"
    assert "store" in streamed.message
    again = until_served(lambda: api.infer(numbers(2), "numbered", {"step": 1, "acked": 0}))
    assert (again.sums, again.parameters["next_step"]) == ([3], 2)
    assert until_served(lambda: api.infer(numbers(4), "numbered", {"step": 2})).sums == [7]
    assert until_served(lambda: api.infer(numbers(4), "plain")).sums[0] in (5, 7)  # it was applied, or it was not
