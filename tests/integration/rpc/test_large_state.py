"""A session whose state no message can carry: it steps, forks and is reset as any; whoever asks for its state is told
the sizes, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from cellkeeper import Client, ReplyTooLarge, Session

from testing.bundles import make_bundle
from testing.server_process import ServerProcess

X = np.ones(3, np.float32)
STATE_BYTES = 2 * 700 * 4
MESSAGE_BYTES = 4500
OUTPUTS = (
    f"outputs: the reply would have {STATE_BYTES} bytes, expected at most {MESSAGE_BYTES - 4096}; leave out 'state', "
    "or raise the server's --max-message-bytes"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("large")
    bundle = make_bundle(folder / "large", hidden_size=700)
    limits = {"message": MESSAGE_BYTES, "http-body": MESSAGE_BYTES, "log": 100_000}
    options = [f"--max-{name}-bytes={size}" for name, size in limits.items()]
    with ServerProcess([bundle], "memory:", options, http=True) as server:
        yield server


@pytest.fixture(params=["grpc", "websocket"])
def session(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Session]:
    """A session that has one step. Its steps go over gRPC, or over a WebSocket."""
    websocket = server.websocket if request.param == "websocket" else None
    with Client(server.target, websocket=websocket, timeout=30) as client:
        session = client.session(request.param)
        session.step(X)
        yield session
        session.delete()


def said(size: int) -> str:
    return (
        f"state: the reply would have {size} bytes, expected at most {MESSAGE_BYTES}; raise the server's "
        "--max-message-bytes (to copy a session, fork it)"
    )


def test_the_state_is_not_read(session: Session) -> None:
    with pytest.raises(ReplyTooLarge) as refused:
        session.state()
    assert (refused.value.reason, refused.value.field) == ("REPLY_TOO_LARGE", "state")
    assert str(refused.value).endswith(said(STATE_BYTES + 64))
    other = session.fork("copy")
    assert np.array_equal(other.step(X), session.step(X))
    other.delete()


def test_a_step_or_peek_that_asks_for_it(session: Session) -> None:
    at = session.position
    for call in (session.step, session.peek):
        with pytest.raises(ReplyTooLarge) as refused:
            call(X, outputs=["state"])
        assert str(refused.value).endswith(OUTPUTS)
    assert session.position == at
    session.step(X)


def test_over_http(server: ServerProcess, session: Session) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{server.http_url}/v1/models/m/sessions/{session.id}/state", timeout=30)
    with refused.value as answer:
        error = json.loads(answer.read())["error"]
    assert (answer.code, error["reason"]) == (429, "REPLY_TOO_LARGE")
    assert error["message"] == said(STATE_BYTES + 64).replace("state:", "states:")  # as the field is called there
