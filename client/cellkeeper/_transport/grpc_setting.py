"""Sets variables that gRPC reads when it is imported, unless they are set. Import this module before gRPC.

gRPC's own fork handlers, which are on by default, crash about one in fifteen children of a process whose asyncio client
is working, before the child runs any code of its own.

From 1.80 on, threads of gRPC's own read from a client's sockets and hand every message to the thread that waits for it.
In the releases before, the waiting thread reads by itself, and a call takes half as long (docs/adr/457). The later ones
can still do that; one that cannot any more would complain about the variable.
"""

import os
from importlib.metadata import PackageNotFoundError, version

SWITCHABLE = range(80, 86)
"""The minor releases of grpcio 1 that have an event engine which is known to be switched off so."""


def release() -> tuple[int, int]:
    """Returns the installed release of grpcio; (0, 0) if it is not known."""
    try:
        major, minor, *_ = version("grpcio").split(".")
        return int(major), int(minor)
    except (PackageNotFoundError, ValueError):
        return 0, 0


os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
major, minor = release()
if major == 1 and minor in SWITCHABLE:
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
