"""Sets variables that gRPC reads when it is imported, unless they are set. Import this module before gRPC.

gRPC's own fork handlers, which are on by default, crash about one in fifteen children of a process whose asyncio client
is working, before the child runs any code of its own.

From 1.80 on, threads of gRPC's own read from a client's sockets and hand every message to the thread that waits for it.
In the releases before, the waiting thread reads by itself, and a call takes half as long (docs/adr/457). The later ones
can still do that; one that no longer can would complain about the variable.
"""

import os
from importlib.metadata import version

SWITCHABLE = {(1, minor) for minor in range(80, 86)}
"""The releases of grpcio whose event engine this value is known to switch off."""


def release() -> tuple[int, int]:
    """Returns the installed release of grpcio; (0, 0) if it is not known."""
    try:
        major, minor, *_ = version("grpcio").split(".")
        return int(major), int(minor)
    except Exception:  # noqa: BLE001 - the import must not depend on what an installer left of a package's metadata
        return 0, 0


os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
if release() in SWITCHABLE:
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
