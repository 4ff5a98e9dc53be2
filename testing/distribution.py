"""How `make test` distributes the tests over pytest-xdist's workers; loaded by `-p testing.distribution`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer

CONVERTERS = "tests/unit/converters/"


class ConvertersTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Distributes modules; the modules of the converters are distributed as one.

    Loading Keras and PyTorch's exporter takes longer than most of their tests, so only one worker does it.
    """

    def _split_scope(self, nodeid: str) -> str:
        return CONVERTERS if nodeid.startswith(CONVERTERS) else str(super()._split_scope(nodeid))


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ConvertersTogether | None:
    return ConvertersTogether(config, log) if config.getvalue("dist") == "loadscope" else None
