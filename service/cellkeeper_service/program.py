"""The commands of `cellkeeper-server`, and its exit status."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import TypeVar

# Before NumPy is imported: it would start a thread for each further core, which costs time at every start. Nothing uses
# them, since the engines compute on threads of their own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before ONNX Runtime is imported: from version 1.32 on it reports its use to Microsoft, and keeps a file of events in
# the home directory. A server calls nobody but its store.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Before gRPC is imported: from version 1.80 on, threads of its own read from the sockets, and hand every message to the
# thread that waits for it. Without them that thread reads by itself (docs/adr/457). The client's value is no choice for
# a server: one that is started by a program with a client has inherited it.
if os.environ.get("GRPC_EXPERIMENTS") in (None, "-event_engine_client"):
    os.environ["GRPC_EXPERIMENTS"] = "-event_engine_listener"
# By default, gRPC also writes to stderr what clients do wrong, as often as they do it and with their own bytes, which
# may contain a newline and a forged line of the log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from cellkeeper_service import logs
from cellkeeper_service.command_line import print_out
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.as_worker import from_parent, tell_failure, tell_parent
from cellkeeper_service.server.process_limits import check_address_space, save_address_space
from cellkeeper_service.signals import ENDING, end_at_signals, end_before_serving

T = TypeVar("T")

USAGE = """usage: cellkeeper-server serve MODEL... [--store URL] [--listen HOST:PORT] ...
       cellkeeper-server serve --help
       cellkeeper-server import torch|keras|onnx SRC DST ...
       cellkeeper-server import torch|keras|onnx --help
       cellkeeper-server token new --tenant NAME --rights step,read
       cellkeeper-server --version"""


def main() -> None:
    logs.open_streams()
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # a server handles SIGINT otherwise
        end_before_serving(signal.SIGINT)


def run(words: list[str]) -> int:
    """Runs the command and returns the exit status.

    0 after SIGTERM to a server that serves, 1 if the server could not start or its device failed, 2 without a known
    command or with an option that has no value.
    """
    logs.set_up()
    if words == ["--version"]:
        from cellkeeper_service.server.app import own_version

        return run_command(print_out, f"{own_version()}\n")
    for word in takewhile(lambda word: word != "--", words):
        if word.startswith("--") and word.endswith("=--"):  # argparse would make an empty list of it, not a word
            logs.say_why_it_ends(f"{word[:-3]}: got '--', expected a value")
            return 2
    if words and words[0] == "import":
        from cellkeeper_service.converters.command import run_import  # a server loads none of the converters

        return run_command(run_import, words[1:])
    if words and words[0] == "token":
        from cellkeeper_service.access.command import run_token

        return run_command(run_token, words[1:])
    if words in (["--help"], ["-h"]):
        return run_command(print_out, f"{USAGE}\n")
    if not words or words[0] != "serve":
        print(USAGE, file=sys.stderr)
        logs.say_why_it_ends(f"got {' '.join(words)[:80]!r}, expected one of the above")
        return 2
    return serve_models(words[1:])


def serve_models(words: list[str]) -> int:
    """Runs `serve` and returns the exit status."""
    (rest, parent), as_json = from_parent(words), False
    end_at_signals(silent=parent is not None)  # the parent of a worker gets Ctrl-C too, and says so
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # blocked in a worker since it began
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # a reload may be requested before there is a handler
    save_address_space()
    try:
        check_address_space()
    except StartError as error:
        logs.say_why_it_ends(str(error))
        return 1
    try:
        from cellkeeper_service.domain.engine import EngineLost  # not earlier: these imports take a second
        from cellkeeper_service.server.app import serve
        from cellkeeper_service.server.config import STORE_VARIABLE, Settings
        from cellkeeper_service.server.listening import check_access
        from cellkeeper_service.server.workers import serve_workers
    except ModuleNotFoundError as error:  # the client alone is installed
        logs.say_why_it_ends(f"it needs {error.name}; pip install 'cellkeeper[server]'")
        return 1

    try:
        variables = dict(os.environ)
        if parent is not None:  # the parent process has resolved all other settings into flags
            variables = {STORE_VARIABLE: variables[STORE_VARIABLE]} if STORE_VARIABLE in variables else {}
        settings = Settings.read(rest, variables)
        logs.set_up(settings.log_format, settings.log_level)
        as_json = settings.log_format == "json"
        check_access(settings)
        if settings.workers > 1 or len(settings.devices) > 1:
            return serve_workers(settings)
        serve(settings, None if parent is None else partial(tell_parent, parent))
    except (StartError, EngineLost) as error:
        if parent is not None and isinstance(error, StartError):
            tell_failure(parent, str(error))
        elif as_json:
            logging.getLogger(__name__).error(str(error))
        else:
            logs.say_why_it_ends(str(error))
        if isinstance(error, EngineLost) or isinstance(error.__cause__, EngineLost):
            end_at_once()
        return 1
    return 0


def end_at_once() -> None:
    """Ends the process, with status 1, and leaves it to the system to free what it holds: torch aborts a process that
    frees pinned memory after the device failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def run_command(command: Callable[[T], object], asked: T) -> int:
    """Runs a command that ends by itself, and returns the exit status: 1 if it cannot do what it is to do."""
    try:
        command(asked)
    except StartError as error:
        logs.say_why_it_ends(str(error))
        return 1
    return 0
