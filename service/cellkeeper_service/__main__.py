"""Starts the program `cellkeeper-server`: Ctrl-C ends it without a traceback while its parts are imported, too."""

from __future__ import annotations

import signal


def main() -> None:
    """Runs the program and ends the process."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not ignored, as in a shell's background jobs
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cellkeeper_service import program

    signal.signal(signal.SIGINT, before)
    program.main()


if __name__ == "__main__":
    main()
