"""A session that an installed wheel serves, and that continues after the server was killed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testing.server_process import ServerProcess
from tests.contract.release.environment import ROOT, Environment

BUNDLE = ROOT / "examples" / "co2" / "bundle"
STEPS, KILLED_AFTER = 12, 7

_SAMPLES = f"samples = [[316 + 0.1 * (7 * number % 11)] for number in range({STEPS})]"
_CLIENT = f"""
import sys
from cellkeeper import Client
{_SAMPLES}
with Client(sys.argv[1]) as client:
    session = client.session("station-7")
    for sample in samples[int(sys.argv[2]) : int(sys.argv[3])]:
        print(session.step(sample).tobytes().hex())
"""
_OFFLINE = f"""
import sys
from pathlib import Path
import numpy as np
from cellkeeper_service.engine.load import offline
{_SAMPLES}
for row in offline(Path(sys.argv[1]), np.array(samples, np.float32))["prediction"]:
    print(row.tobytes().hex())
"""


def predictions(environment: Environment, folder: Path) -> tuple[list[str], list[str]]:
    """Returns the demo model's predictions, step by step, in hexadecimal: served and offline.

    The environment's `cellkeeper-server` serves its client and is killed once with SIGKILL. folder: an empty one.
    """
    store, program = f"sqlite:{folder / 'sessions.db'}", (str(environment.program("cellkeeper-server")),)
    with ServerProcess([BUNDLE], store, ("--device", "cpu"), program=program) as server:
        served = _lines(environment, _CLIENT, server.target, 0, KILLED_AFTER)
        server.kill()
        server.restart()
        served += _lines(environment, _CLIENT, server.target, KILLED_AFTER, STEPS)
    return served, _lines(environment, _OFFLINE, BUNDLE)


def _lines(environment: Environment, program: str, *arguments: object) -> list[str]:
    """Returns what a program prints when this environment runs it, split at whitespace."""
    command = [str(environment.python), "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, cwd=environment.folder, check=True, capture_output=True, text=True, timeout=60)
    return str(ran.stdout).split()
