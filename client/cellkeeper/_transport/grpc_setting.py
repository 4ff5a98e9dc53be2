"""Imported before gRPC, which reads this variable when it is imported.

gRPC's own handlers for forks, which are on by default, crash children of a process whose asyncio client is at work:
about one of fifteen, before it comes to any code of its own. A value that is set already is kept.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
