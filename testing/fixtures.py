from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testing.bundles import counting_bundle
from testing.refusing_address import refusing_address

if TYPE_CHECKING:
    from testing.redis_server import RedisServer

# Triton reads this on its first import, by any test: without a device, it interprets its kernels, unless the tests
# emulate what it compiles (tests/unit/kernels/ptx).
if not Path("/dev/nvidiactl").exists() and "EMULATE_PTX" not in os.environ:
    os.environ["TRITON_INTERPRET"] = "1"

# gRPC reads this on its first import: servers in the tests' own process take its messages as the program does.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")

# A shell starts background jobs with Ctrl-C ignored, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SEED = 20
"""Of what tests draw without a seed of their own, such as the weights of a new torch or Keras layer."""

MANY_MODULES = 100
"""Imported by the tests of one module: a large package."""


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


def pytest_runtest_setup() -> None:
    _draw_alike()


def pytest_runtest_call() -> None:
    _draw_alike()


def _draw_alike() -> None:
    """Each test draws the same in every run: only the order is random. Differences of rounding depend on the weights,
    and a bound that one draw in a thousand exceeds would fail where nothing has changed. pytest-randomly, whose hooks
    come before these, seeds by the run, and does not know torch; Keras draws its seeds from `random`."""
    random.seed(SEED)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(SEED)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(SEED)  # not of the devices: that formats the stack


@pytest.fixture(autouse=True, scope="module")
def imports_frozen() -> Iterator[None]:
    """What a module's tests import lives as long as the process, too. With Keras and PyTorch loaded, a full collection
    that looks at it takes a third of a second, and later tests ask for many."""
    before = len(sys.modules)
    yield
    if len(sys.modules) - before > MANY_MODULES:
        gc.collect()  # garbage that is frozen stays
        gc.freeze()


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Refuses a test that leaves the process's logging changed: the records of later tests would go nowhere, or to a
    stream of this one, which is closed by then. Only pytest's own handlers may be there, also between two tests."""
    root = logging.getLogger()
    level, handlers = root.level, set(root.handlers)
    yield
    assert (root.level, set(root.handlers)) == (level, handlers), "the test has configured logging, and not undone it"
    assert {type(handler).__module__ for handler in handlers} <= {"_pytest.logging"}, "logging was configured earlier"


@pytest.fixture
def logging_undone() -> Iterator[None]:
    """Undoes how a test, or a program that it runs in this process, configures logging."""
    loggers = [logging.getLogger(name) for name in ("", "cellkeeper_service.said", "grpc._cython.cygrpc")]
    before = [(one.level, list(one.handlers), list(one.filters), one.propagate) for one in loggers]
    yield
    for logger, (level, handlers, filters, propagate) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers).difference(handlers):
            handler.close()
        logger.setLevel(level)
        logger.handlers[:], logger.filters[:], logger.propagate = handlers, filters, propagate


@pytest.fixture
def run_here(logging_undone: None) -> Iterator[Callable[[list[str]], int]]:
    """Runs a command of `cellkeeper-server` that ends by itself, in this process, whose imports are done: takes its
    words and returns its exit status. What it changes in the process is undone."""
    from cellkeeper_service.program import run

    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


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
