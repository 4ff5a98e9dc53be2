"""Starts the program `cellkeeper`: Ctrl-C ends it without a traceback while the client is imported, too.

It is not part of the package, which Python imports before any of its modules.
"""

from __future__ import annotations

import signal


def main() -> int:
    """Runs the program. Returns its exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not ignored, as in a shell's background jobs
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cellkeeper.__main__ import main as run

    signal.signal(signal.SIGINT, before)
    return run()
