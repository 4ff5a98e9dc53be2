"""Sets a variable that gRPC reads when it is imported; import this module before gRPC.

gRPC's own fork handlers, which are on by default, crash about one in fifteen children of a process whose asyncio client
is working, before the child runs any code of its own. A value that is already set is kept.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
