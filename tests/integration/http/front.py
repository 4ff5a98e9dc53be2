"""A real server with its HTTP front, and requests to it, as raw as a test needs them."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from socket import create_connection
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from testing.forked_server import ForkedServer
from testing.server_process import ServerProcess

JSON = {"Content-Type": "application/json"}
TIMEOUT_S = 30.0
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def ok(self) -> Any:
        """The JSON of a successful answer."""
        if self.status != 200:
            raise AssertionError(f"expected 200, got {self.status}: {self.body!r}")
        return self.json

    @property
    def error(self) -> Any:
        """The error object of a refusal."""
        if self.status < 400:
            raise AssertionError(f"expected a refusal, got {self.status}: {self.body!r}")
        return self.json["error"]


@dataclass(frozen=True)
class Front:
    """url: without a trailing slash."""

    url: str
    server: ServerProcess
    token: str = ""

    @property
    def place(self) -> str:
        return urlsplit(self.url).netloc

    def of(self, token: str) -> Front:
        return Front(self.url, self.server, token)

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Sends a request. body: sent as it is if bytes, otherwise as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**({} if data is None else JSON), **self.headers(), **(headers or {})}
        connection = HTTPConnection(self.place, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.getheaders()))
        finally:
            connection.close()

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def session(self, model: str = "count", name: str = "") -> Session:
        """Returns a session. name: if empty, one that no other test uses."""
        return Session(self, model, name or uuid.uuid4().hex)


@dataclass(frozen=True)
class Session:
    front: Front
    model: str
    name: str
    path: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", f"/v1/models/{self.model}/sessions/{quote(self.name, safe='')}")

    def ask(self, method: str, what: str = "", body: Any = None) -> Answer:
        return self.front.ask(method, self.path + what, body)

    def open(self, **fields: Any) -> Any:
        return self.ask("POST", "/open", fields).ok["position"]

    def step(self, inputs: Any, **fields: Any) -> Any:
        return self.ask("POST", "/step", {"inputs": inputs, **fields}).ok

    def position(self) -> Any:
        return self.ask("GET").ok["position"]


@contextmanager
def serving(
    bundles: Sequence[Path], store: str = "memory:", options: Sequence[str] = (), listen: str = "127.0.0.1:0"
) -> Iterator[Front]:
    with ForkedServer(bundles, store, ["--http-listen", listen, *options]) as server:
        yield Front(where(server), server)


def where(server: ServerProcess) -> str:
    """Returns the address of the HTTP front that a server printed at its start."""
    return server.wait_for(r"http on (\S+)").rstrip("/")


def sums(reply: Any) -> list[float]:
    """Returns the counting model's predictions, one per time step."""
    return [value for (value,) in reply["outputs"]["prediction"]]


def protocols(token: str) -> list[str]:
    """Returns the protocols that a browser offers for a WebSocket."""
    return ["cellkeeper.v1", "cellkeeper.bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")]


class RawSocket:
    """A WebSocket that sends whatever a test wants, and reads only on request."""

    def __init__(self, front: Front, path: str) -> None:
        place = urlsplit(front.url)
        self.socket = create_connection((place.hostname, place.port), TIMEOUT_S)
        lines = [f"GET {path} HTTP/1.1", f"Host: {front.place}"]
        lines += [f"{name}: {value}" for name, value in HANDSHAKE.items()]
        self.socket.sendall("\r\n".join([*lines, "\r\n"]).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.socket.recv(1)
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise AssertionError(f"expected a WebSocket, got {answer!r}")

    def frame(self, text: bytes) -> bytes:
        """Returns one text message, masked by zeros."""
        return b"\x81\xff" + len(text).to_bytes(8, "big") + bytes(4) + text

    def __enter__(self) -> RawSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


async def closing(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """Returns the code and the reason of a socket's end, which must come next."""
    message = await socket.receive(timeout=TIMEOUT_S)
    if message.type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
        raise AssertionError(f"expected the end, got {message}")
    return socket.close_code, str(message.extra or "")
