"""What the official client sends: each of its calls, through a relay to a real server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cellkeeper import Client

from testing.server_process import ServerProcess
from tests.contract.golden.recording import BUNDLE
from tests.contract.release.relay import Relay

SERVICE = "/cellkeeper.v1.Cellkeeper/"
X = np.array([1.0, 2.0], np.float32)


def client_calls(folder: Path) -> str:
    """Returns the client's calls with their replies, in the format of wire.txt. folder: an empty one."""
    with (
        ServerProcess([BUNDLE], f"sqlite:{folder / 'sessions.db'}") as server,
        Relay(server.target) as relay,
    ):
        with Client(relay.target) as client:
            _use(client)
        calls = list(relay.calls)
    lines = []
    for number, (path, passed) in enumerate(calls, 1):
        if path.startswith(SERVICE):
            method = path.removeprefix(SERVICE)
            lines.append(f"## {number} {method}")
            lines += [f"> {method} {data.hex()}" if sign == ">" else f"< OK {data.hex()}" for sign, data in passed]
            lines.append("")
    return "\n".join(lines)


def _use(client: Client) -> None:
    client.wait_ready()
    client.models()
    session = client.session("pump-1")
    session.step(X)
    session.step(np.stack([X, X, X]), outputs=["prediction", "hidden", "state"])
    list(session.stream([X] * 4))
    session.peek(X)
    session.forecast(X, steps=2, known=np.array([[5.0], [6.0]], np.float32))
    session.set_state(session.state(), step=10)
    session.fork("pump-2").delete()
    session.info()
    session.carry_over("reset")
    session.reset()
    session.step(X)
    list(client.sessions())
    group = client.group(["pump-3", "pump-4", "pump-5"])
    group.step(np.stack([X, X, X]))
    group.step({"pump-4": X})
    group.reset(["pump-3"])
    group.delete()
    session.delete()
