"""How `make test` distributes the tests over pytest-xdist's workers; loaded by `-p testing.distribution`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

CONVERTERS = "tests/unit/converters/"
TOGETHER = (CONVERTERS, "tests/integration/console/")
"""Folders whose modules are distributed as one, since they share what takes long to make: Keras and PyTorch's exporter,
loaded, or a browser and a server of ten thousand sessions."""

LONG = (
    CONVERTERS,
    "tests/integration/pages/test_pages_with_servers.py",
    "verification/chaos/test_chaos.py",
    "tests/unit/kernels/test_compiled.py",
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
    """Distributes modules, the long ones first; the modules of some folders are distributed as one."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        first = next((scope for scope in LONG if scope in self.workqueue), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        found = next((folder for folder in TOGETHER if nodeid.startswith(folder)), None)
        return found or str(super()._split_scope(nodeid))


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LongestFirst | None:
    return LongestFirst(config, log) if config.getvalue("dist") == "loadscope" else None
