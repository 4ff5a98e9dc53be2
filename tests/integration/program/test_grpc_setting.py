"""gRPC's event engine is off in the server and in the client, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

VARIABLE = "GRPC_EXPERIMENTS"
CLIENT = "cellkeeper"
SERVER = "cellkeeper_service.__main__"
# Makes a server and a connection: gRPC looks at the variable when they need it.
USED = """
import os
import {imported}
import grpc
from concurrent.futures import ThreadPoolExecutor
server = grpc.server(ThreadPoolExecutor(1))
channel = grpc.insecure_channel("127.0.0.1:%d" % server.add_insecure_port("127.0.0.1:0"))
server.start()
grpc.channel_ready_future(channel).result(30)
channel.close()
server.stop(None).wait()
print(os.environ[{variable!r}])
"""


def ran(imported: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    code = USED.format(imported=imported, variable=VARIABLE)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


@pytest.mark.parametrize(
    ("imported", "expected"), [(SERVER, "-event_engine_listener"), (CLIENT, "-event_engine_client")]
)
def test_the_event_engine_is_off_and_grpc_knows_its_name(imported: str, expected: str) -> None:
    """gRPC would say "Unknown experiment" on stderr. If the client's variable is missing, see SWITCHABLE."""
    done = ran(imported)
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")


def test_grpc_would_tell() -> None:
    assert "Unknown experiment: no_such_thing" in ran(CLIENT, **{VARIABLE: "no_such_thing"}).stderr


@pytest.mark.parametrize("imported", [SERVER, CLIENT])
def test_the_variable_may_say_otherwise(imported: str) -> None:
    done = ran(imported, **{VARIABLE: "event_engine_client"})
    assert (done.stdout, done.stderr) == ("event_engine_client\n", "")
