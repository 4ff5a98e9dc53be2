"""Servers and their store under fire, with a checker that judges what clients saw:
`python -m verification.chaos --help`."""

import os

# Connections are cut all the time here; grpc would report each on stderr. It reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
