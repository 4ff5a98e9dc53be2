"""How `make test` distributes the tests over pytest-xdist's workers; loaded by `-p testing.distribution`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

CONVERTERS = "tests/unit/converters/"
CONSOLE = "tests/integration/console/"
TOGETHER = {
    CONVERTERS: CONVERTERS,
    "tests/integration/pages/test_pages_with_servers.py": CONVERTERS,
    "tests/integration/examples/test_recipes.py": CONVERTERS,
    CONSOLE: CONSOLE,
}
"""Modules and folders that are distributed as one, under a name, since they share what takes long to make: Keras and
PyTorch's exporter, loaded and used once, or a browser and a server of ten thousand sessions."""

LONG = (
    CONVERTERS,
    "verification/chaos/test_chaos.py",
    "tests/unit/kernels/test_compiled.py",
    "tests/unit/kernels/test_emulated.py",
    "verification/explore/test_rules.py",
    "verification/explore/test_scopes.py",
    "tests/unit/kernels/test_contract.py",
    "tests/unit/core/test_interleavings.py",
    "tests/integration/acceptance/test_two_replicas.py",
    "tests/integration/acceptance/test_bitwise.py",
    "tests/contract/store/test_redis_power_cut.py",
    "tests/integration/lifecycle/test_rolling_restart.py",
    "tests/contract/house/test_install.py",
    "tests/integration/client/test_groups_processes.py",
    "tests/unit/cuda/test_failing_device.py",
    "verification/load/test_attacker.py",
    "verification/chaos/test_redis_cluster.py",
    "tests/integration/inputs/test_killed.py",
)
"""What begins first. They have few tests, so xdist would begin them late, and one worker would wait for the other."""


class LongestFirst(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Distributes modules, the long ones first; some of them are distributed as one."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        first = next((scope for scope in LONG if scope in self.workqueue), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        # A worker may have died unnoticed. xdist is about to notice, reports the test that it died of, and takes back
        # what the worker was assigned. An error here would end the run before that.
        with suppress(OSError):
            super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        together = next((name for start, name in TOGETHER.items() if nodeid.startswith(start)), None)
        return together or str(super()._split_scope(nodeid))


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LongestFirst | None:
    return LongestFirst(config, log) if config.getvalue("dist") == "loadscope" else None
