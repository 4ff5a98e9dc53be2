"""Runs servers and their store under faults, and checks what clients saw: `python -m verification.chaos --help`."""

import os

# Connections are cut all the time here, and gRPC would report each on stderr. It reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
