"""One hostile case over HTTP: wrong JSON, an invalid path, bytes that are not HTTP, or a WebSocket."""

from __future__ import annotations

import asyncio
import json
import random
import string
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.rpc.http.replies import HTTP_STATUS
from cellkeeper_service.rpc.http.routes import ROUTES, STREAM, WATCH
from google.rpc import code_pb2
from yarl import URL

from .calls import MARGIN_S, TIMEOUT_S, Score
from .values import TEXTS, flipped
from .verdict import wrong_error
from .world import FEATURES, MODELS, World

INTEGERS = (0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, "9007199254740993", "-1", "1e3", "00")
NUMBERS = (0.0, -0.0, 1e308, 1e-320, 0.1, "NaN", "Infinity", "-Infinity", "nan", 10**400)
ODD: tuple[Any, ...] = ("\ud800", None, True, [], {}, [[]], [[], [1]], "", {"a": {}}, [None], [[[[[1]]]]])
RAW = ("NaN", "1e999", '{"a":1,"a":2}', "9" * 5000, '"\\ud800"', '"\\u0000"', "[" * 3000, "\ufeff1", "1.", "'x'", "")
PATHS = ("%2e%2e", "..", "%00", "%ff", "%", "%zz", "a%2Fb", ";x", "//", "%F0%9F%98%80", "x" * 300, "{session}")
BROKEN = (
    b"\0\1\2",
    b"GET",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\n\r\n",
    b"POST /v1/models/count/carry-over HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/models/count/carry-over HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
)
REPLIES_S = 2.0  # how long to wait for a socket's replies


class HttpAttacker:
    """Sends cases over HTTP. A case's seed determines its bytes. url: of the server, without a trailing slash."""

    def __init__(self, http: aiohttp.ClientSession, url: str, world: World, score: Score) -> None:
        self._http = http
        self._url = url
        self._world = world
        self._score = score
        self._places: dict[tuple[str, str], Any] = {}

    async def case(self, seed: str) -> None:
        draw = random.Random(seed)
        kinds: Sequence[Callable[[random.Random], Any]] = [self._request] * 6 + [self._socket] * 3 + [self._broken]
        chosen = draw.choice(kinds)
        self._score.methods["http" if chosen == self._request else chosen.__name__.lstrip("_")] += 1
        began, wrong = time.monotonic(), ""
        try:
            wrong = await chosen(draw)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as failed:
            # the client itself rejects the request, or the server rightly closed the connection
            self._score.codes[f"http {type(failed).__name__}"] += 1
        if time.monotonic() - began > TIMEOUT_S + MARGIN_S:
            wrong = wrong or f"answered after {time.monotonic() - began:.1f} s"
        if wrong:
            self._score.violations.append(f"{seed} {chosen.__name__}: {wrong}")

    async def _request(self, draw: random.Random) -> str:
        route = draw.choice(ROUTES)
        model, session = draw.choice(list(MODELS)), draw.choice(self._world.names())
        path = self._path(draw, route.path, model, session)
        query = {name: self._query(draw, name, model, session) for name in route.query if draw.random() < 0.8}
        if draw.random() < 0.1:
            query[draw.choice(("timeout_ms", "x", "hz"))] = str(draw.choice(INTEGERS))
        text = "&".join(f"{quote(name)}={value}" for name, value in query.items())
        body = text_of(draw, self._body(draw, route.path.rpartition("/")[2], model, session)) if route.body else None
        async with self._http.request(
            route.method,
            URL(f"{self._url}{path}?{text}", encoded=True),
            data=body,
            headers=headers(draw) if body is not None else {},
            timeout=aiohttp.ClientTimeout(total=draw.choice((0.001, 0.02)) if draw.random() < 0.05 else TIMEOUT_S),
        ) as answer:
            return self._judge(answer.status, await answer.read(), model, session)

    def _path(self, draw: random.Random, template: str, model: str, session: str) -> str:
        if draw.random() < 0.1:
            session = draw.choice(TEXTS) or "x"
        given = quote(session, safe="") if draw.random() < 0.95 else draw.choice(PATHS)
        named = model if draw.random() < 0.95 else quote(draw.choice(TEXTS), safe="")
        path = template.replace("{model}", named).replace("{session}", given)
        return path if draw.random() < 0.97 else path + draw.choice(PATHS)

    def _query(self, draw: random.Random, name: str, model: str, session: str) -> str:
        place = self._places.get((model, session))
        if name == "generation" and place is not None and draw.random() < 0.7:
            return str(place["generation"])
        return quote(str(draw.choice((*INTEGERS, *TEXTS, 5, "prediction", "true"))), safe="")

    def _body(self, draw: random.Random, what: str, model: str, session: str) -> Any:
        """Returns a body that the server might well accept."""
        steps = draw.choice((1, 1, 2, 100))
        features = [[float(draw.randrange(4))] * FEATURES] * steps
        place = self._places.get((model, session), {"generation": "0" * 32, "step": 0, "head": "0" * 16})
        values: dict[str, Any] = {
            "inputs": [draw.randrange(10) for _ in range(steps)] if model == "tokens" else features,
            "generation": place["generation"],
            "position": place,
            "target": draw.choice(self._world.names()),
            "steps": draw.choice((1, 3, 100)),
            "ttl_ms": draw.choice((0, 1, 10_000)),
            "step": draw.choice((0, 5, 2**62)),
            "states": {
                name: {"data": [[0.0] * size[-1]] if len(size) == 2 else [0.0] * size[0]}
                for name, size in MODELS[model].states
            },
            "id": draw.choice((1, "a", 0.5)),
            "outputs": draw.sample(("prediction", "hidden", "state"), draw.randrange(3)),
        }
        fields = {
            "open": ("ttl_ms",),
            "step": ("inputs", "position", "outputs"),
            "peek": ("inputs", "outputs"),
            "forecast": ("inputs", "steps"),
            "state": ("generation", "step", "states"),
            "reset": ("generation",),
            "fork": ("target",),
            "stream": ("inputs", "position", "outputs", "id"),
        }
        if what == "carry-over":
            item = {"session": session, "generation": place["generation"], "policy": draw.choice(("keep", "reset"))}
            return {"items": [item]}
        return {name: values[name] for name in fields[what]}

    async def _socket(self, draw: random.Random) -> str:
        model, session = draw.choice(list(MODELS)), draw.choice(self._world.names())
        socket = draw.choice((STREAM, STREAM, WATCH))
        path = self._path(draw, socket.path, model, session)
        sent = 0
        async with self._http.ws_connect(URL(self._url + path, encoded=True)) as line:
            for _ in range(draw.choice((0, 1, 3, 20))):
                message = text_of(draw, self._body(draw, "stream", model, session))
                if draw.random() < 0.03:
                    await line.send_bytes(message)
                else:
                    await line.send_str(message.decode("utf-8", "replace"))
                sent += 1
            if draw.random() < 0.2:
                return ""  # leaves without closing properly
            until = time.monotonic() + REPLIES_S
            for _ in range(sent):
                reply = await line.receive(timeout=max(until - time.monotonic(), 0.01))
                if reply.type is not aiohttp.WSMsgType.TEXT:
                    self._score.codes[f"ws {line.close_code}"] += 1
                    return "" if line.close_code in (1000, 1007, 1008, 1009, 1013) else f"closed by {line.close_code}"
                if wrong := self._judge(0, reply.data.encode(), model, session):
                    return wrong
        return ""

    async def _broken(self, draw: random.Random) -> str:
        """Sends bytes that are not a request. The server answers or closes; the canary tells whether it is alive."""
        place = urlsplit(self._url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            data = draw.choice(BROKEN)
            writer.write(flipped(draw, data) if draw.random() < 0.5 else data)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(4096), TIMEOUT_S)
        finally:
            writer.close()
        return "" if not answer.startswith(b"HTTP/1.1 5") else f"{answer[:80]!r}"

    def _judge(self, status: int, data: bytes, model: str, session: str) -> str:
        """Returns what is wrong with the answer; empty if nothing is. status: 0 for a WebSocket's message."""
        try:
            found = json.loads(data, parse_constant=_no_constant)
        except ValueError:
            return f"not JSON: {status} {data[:200]!r}"
        if "error" not in found:
            self._score.codes["http OK"] += 1
            if "position" in found and found.get("session", session) == session:
                self._places[model, session] = found["position"]
            return "" if status in (0, 200) else f"{status} without an error: {data[:200]!r}"
        error = found["error"]
        self._score.codes[f"http {error['code']}"] += 1
        if status in (404, 405) and error["reason"] == "REASON_UNSPECIFIED":
            return ""  # no such path
        if status not in (0, HTTP_STATUS[error["code"]]) and "position" not in found:
            return f"status {status} for {error['code']}"
        typed = pb.Error(code=code_pb2.Code.Value(error["code"]), reason=error["reason"], message=error["message"])
        return wrong_error(typed)


def headers(draw: random.Random) -> dict[str, str]:
    if draw.random() < 0.95:
        return {"Content-Type": "application/json"}
    return {"Content-Type": draw.choice(("text/plain", "application/json; charset=latin-1", "")), "X-Request-Id": "x y"}


def text_of(draw: random.Random, value: Any) -> bytes:
    """Returns JSON, with an error in it or not, or bytes that are not JSON."""
    dice = draw.random()
    if dice < 0.45:
        value = changed(draw, value)
    data = json.dumps(value).encode()
    if dice > 0.9:
        return flipped(draw, data)
    if dice > 0.8:
        spot = draw.choice([at for at, byte in enumerate(data) if byte in b"0:1[,"] or [0])
        return data[: spot + 1] + draw.choice(RAW).encode() + data[spot + 1 :]
    return data


def changed(draw: random.Random, value: Any) -> Any:
    """Returns the value with one value within it replaced."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        dice = draw.random()
        if dice < 0.1:
            return {name: one for name, one in value.items() if name != key}
        if dice < 0.2:
            return {**value, draw.choice((*TEXTS, *string.ascii_lowercase, "\ud800", "id")): draw.choice(ODD)}
        return {**value, key: changed(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.6:
        at = draw.randrange(len(value))
        return [*value[:at], changed(draw, value[at]), *value[at + 1 :]]
    return draw.choice((*INTEGERS, *NUMBERS, *ODD, *TEXTS, [0.0] * 70_000))


def _no_constant(name: str) -> Any:
    raise ValueError(name)
