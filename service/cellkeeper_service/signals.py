"""How signals end the program before it serves. Once a server serves, it drains (server/app.py)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NoReturn

ENDING = (signal.SIGTERM, signal.SIGINT)


def end_at_signals(*, silent: bool) -> None:
    """Lets SIGTERM and SIGINT end the process at once, as `end_before_serving` does. A signal that the program was
    started to ignore, as a shell's background jobs are with SIGINT, stays ignored.

    The handlers raise nothing: an exception that comes while a library calls back into Python is lost, or ends the
    process by SIGSEGV, and the server then serves although it was told to end. And handlers they are: a container's
    first process ignores signals that have none, and loading a large model takes minutes.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda came, frame: end_before_serving(came, silent=silent))


def end_by(number: int) -> NoReturn:
    """Ends the process as if it had no handler for the signal: a shell and systemd see that the signal has ended it. A
    container's first process, which no signal ends, exits with the status that a shell would show."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def end_before_serving(number: int, *, silent: bool = False) -> NoReturn:
    """Ends the process because of this signal. Says so for SIGINT, unless it is to be silent."""
    if number == signal.SIGINT and not silent:
        with suppress(OSError):  # its reader has gone, or its disk is full
            os.write(2, b"cellkeeper-server: interrupted\n")  # sys.stderr may be in the middle of a line
    end_by(number)
