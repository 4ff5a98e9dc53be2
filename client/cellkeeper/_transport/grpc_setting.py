"""Sets variables that gRPC reads when it is imported, unless they are set. Import this module before gRPC.

gRPC's own fork handlers, which are on by default, crash about one in fifteen children of a process whose asyncio client
is working, before the child runs any code of its own.

From 1.80 on, threads of gRPC's own read from a client's sockets and hand every message to the thread that waits for it.
In the releases before, the waiting thread reads by itself, and a call takes half as long (docs/adr/457). The later ones
can still do that; one that no longer can would complain about the variable.

The command `cellkeeper` says in one line why it fails. gRPC would write its own lines about each attempt to connect
before that one. What a program that uses the client wants of gRPC is its own choice.
"""

import os
import sys
from importlib.metadata import version
from pathlib import PurePath

SWITCHABLE = {(1, minor) for minor in range(80, 86)}
"""The releases of grpcio whose event engine this value is known to switch off."""


def release() -> tuple[int, int]:
    """Returns the installed release of grpcio; (0, 0) if it is not known."""
    try:
        major, minor, *_ = version("grpcio").split(".")
        return int(major), int(minor)
    except Exception:  # noqa: BLE001 - the import must not depend on what an installer left of a package's metadata
        return 0, 0


def is_command() -> bool:
    """Returns True in a process that runs the command: as a script of that name, or as `python -m cellkeeper`."""
    script = sys.argv[0] if sys.argv else ""
    if script == "-m":  # until Python has found the module
        words = zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
        return any(flag.startswith("-") and flag.endswith("m") and name == "cellkeeper" for flag, name in words)
    return PurePath(script).stem == "cellkeeper"


if is_command():
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
if release() in SWITCHABLE:
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
