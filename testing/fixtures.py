from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testing.bundles import counting_bundle
from testing.refusing_address import refusing_address

if TYPE_CHECKING:
    from testing.redis_server import RedisServer

# Triton reads this on its first import, by any test: without a device, it interprets its kernels.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"

# A shell starts background jobs with Ctrl-C ignored, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collection makes, modules and tests, lives as long as the process: the collector need not look at it during
    collection, nor at each full collection of the tests; and it looks less often at what the tests make."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(10_000)  # of its youngest objects; 700 by default in Python 3.11


def root_logging() -> tuple[int, set[logging.Handler]]:
    root = logging.getLogger()
    return root.level, set(root.handlers)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Refuses a test that leaves the process's logging changed: the records of later tests would go nowhere, or to a
    stream of this one, which is closed by then."""
    before = root_logging()
    yield
    assert root_logging() == before, "the test, or what it imports, has configured logging, and not undone it"


@pytest.fixture(scope="session")
def counting_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the model "count", which predicts the running sum of its inputs."""
    return counting_bundle(tmp_path_factory.mktemp("bundles") / "counting")


@pytest.fixture
def nobody() -> Iterator[str]:
    """A host:port that refuses connections."""
    with refusing_address() as address:
        yield address


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis server for one test alone, to kill, pause or fill."""
    from testing.redis_server import RedisServer  # needs the package redis, which the engines' tests do without

    with RedisServer() as server:
        yield server
