"""A plugin of pytest that prints why a test failed as soon as it fails. pytest says so at its end, and a run that takes
too long is killed before that."""

from __future__ import annotations

from typing import Any

import pytest

MOST_LINES = 6


class ToldAtOnce:
    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            reasons = [line for line in report.longreprtext.splitlines() if line.startswith("E ")][:MOST_LINES]
            self._terminal.write("\n".join(["", f"FAILED {report.nodeid} ({report.when})", *reasons, ""]), flush=True)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(ToldAtOnce(terminal))
