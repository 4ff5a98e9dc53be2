"""The server in a fork, which starts several times as fast as the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testing.forked_program import ForkedProcess
from testing.server_process import ServerProcess


class ForkedServer(ServerProcess):
    """A ServerProcess for tests of what a server does, not of how the program starts, and with what it has imported."""

    def _launch(self, words: Sequence[str], environment: Mapping[str, str]) -> ForkedProcess:
        return ForkedProcess("cellkeeper-server", words, environment)
