"""A request over HTTP that is refused counts once in cellkeeper_rejections_total, whoever refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .front import TIMEOUT_S, Front, serving

GENERATION = "00" * 16
POSITION = {"generation": GENERATION, "step": 1, "head": "00" * 8}
STATE = {name: {"data": [[0.0] * 8] * 2} for name in ("h", "c")}


@pytest.fixture(scope="module")
def front(lstm_model: Path) -> Iterator[Front]:
    with serving([lstm_model]) as made:
        yield made


def counted(front: Front, reason: str) -> float:
    return front.server.metric("cellkeeper_rejections_total", reason=reason.lower())


@pytest.mark.parametrize(
    ("method", "what", "body"),
    [
        ("GET", "", None),
        ("GET", "/log", None),
        ("GET", "/state", None),
        ("POST", "/step", {"inputs": [0, 0, 0], "position": POSITION}),
        ("POST", "/peek", {"inputs": [0, 0, 0]}),
        ("POST", "/reset", {"generation": GENERATION}),
        ("POST", "/fork", {"target": "copy"}),
        ("PUT", "/state", {"states": STATE, "generation": GENERATION, "step": 0}),
    ],
)
def test_a_refused_request_counts_once(front: Front, method: str, what: str, body: Any) -> None:
    before = counted(front, "SESSION_NOT_FOUND")
    assert front.session("lstm").ask(method, what, body).error["reason"] == "SESSION_NOT_FOUND"
    assert counted(front, "SESSION_NOT_FOUND") == before + 1


def test_a_request_that_the_front_refuses_counts_once(front: Front) -> None:
    before = counted(front, "INVALID_FIELD")
    assert front.session("lstm").ask("GET", "/log?steps=0").error["reason"] == "INVALID_FIELD"
    assert counted(front, "INVALID_FIELD") == before + 1


async def test_a_watch_counts_each_reading_that_fails_once(front: Front) -> None:
    refused, loaded = counted(front, "SESSION_NOT_FOUND"), front.server.metric("cellkeeper_loads_total")
    url = f"{front.url}{front.session('lstm').path}/watch?hz=1"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as socket:
        assert (await socket.receive_json(timeout=TIMEOUT_S))["error"]["reason"] == "SESSION_NOT_FOUND"

    async def counts_agree() -> None:  # a reading may still be in progress
        while True:
            readings = front.server.metric("cellkeeper_loads_total") - loaded
            if counted(front, "SESSION_NOT_FOUND") - refused == readings >= 1:
                return
            await asyncio.sleep(0.01)

    await asyncio.wait_for(counts_agree(), TIMEOUT_S)
