"""A session that is watched: what changes of it comes by itself, whichever server changes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .front import TIMEOUT_S, Front, Session, closing, serving

CHUNK = [[0.5, 1, 2], [1, 2, 3], [0, 0, 1]]
WATCH = "/v1/models/{model}/sessions/{session}/watch"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:{tmp_path_factory.mktemp('store') / 'sessions.db'}"


@pytest.fixture(scope="module")
def front(lstm_model: Path, store: str) -> Iterator[Front]:
    with serving([lstm_model], store) as made:
        yield made


@asynccontextmanager
async def watching(session: Session, query: str = "?hz=10") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    url = f"{session.front.url}{session.path}/watch{query}"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as socket:
        yield socket


async def update(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return await socket.receive_json(timeout=TIMEOUT_S)


async def test_the_first_update_comes_at_once_and_the_next_with_what_is_new(front: Front) -> None:
    session = front.session("lstm")
    first = session.step(CHUNK)
    async with watching(session) as socket:
        found = await update(socket)
        assert found["position"] == found["state_position"] == first["position"]
        assert found["first_step"] == 0
        assert found["inputs"] == CHUNK
        assert found["outputs"]["prediction"] == first["outputs"]["prediction"]
        assert found["states"] == session.ask("GET", "/state").ok["states"]
        assert found["log"] == {"steps": 3, "bytes": 36}
        second = session.step([[9, 8, 7]], position=first["position"])
        found = await update(socket)
        assert found["position"] == second["position"]
        assert (found["first_step"], found["inputs"]) == (3, [[9.0, 8.0, 7.0]])
        assert found["outputs"] == second["outputs"]


async def test_what_another_server_changes_is_seen(front: Front, lstm_model: Path, store: str) -> None:
    session = front.session("lstm")
    session.open()
    with serving([lstm_model], store) as other:
        async with watching(session) as socket:
            assert (await update(socket))["position"]["step"] == 0
            moved = other.session("lstm", session.name).step(CHUNK)
            found = await update(socket)
            assert (found["position"], found["inputs"]) == (moved["position"], CHUNK)
            assert found["outputs"] == moved["outputs"]


async def test_looking_changes_nothing_and_keeps_nothing_alive(front: Front) -> None:
    session = front.session("lstm")
    at = session.step(CHUNK)["position"]
    before = session.ask("GET").ok
    async with watching(session) as socket:
        await update(socket)
        commits = front.server.metric("cellkeeper_commits_total")
        again = session.ask("GET").ok
        assert (again["position"], again["checkpoint_step"]) == (at, before["checkpoint_step"])
        assert again["idle_ms"] >= before["idle_ms"]
    assert front.server.metric("cellkeeper_commits_total") == commits


async def test_a_reset_a_delete_and_a_session_that_comes_back(front: Front) -> None:
    session = front.session("lstm")
    at = session.step(CHUNK)["position"]
    async with watching(session, "?hz=10&states=false&outputs=hidden") as socket:
        found = await update(socket)
        assert list(found["outputs"]) == ["hidden"]
        assert "states" not in found
        at = session.ask("POST", "/reset", {"generation": at["generation"]}).ok["position"]
        found = await update(socket)
        assert (found["position"], found["inputs"], found["outputs"]) == (at, [], {})
        session.ask("DELETE", f"?generation={at['generation']}")
        assert (await update(socket))["error"]["reason"] == "SESSION_NOT_FOUND"
        at = session.open()
        assert (await update(socket))["position"] == at  # the refusal came once


async def test_a_session_that_is_not_there_is_said_to_be_so(front: Front) -> None:
    async with watching(front.session("lstm")) as socket:
        error = (await update(socket))["error"]
        assert (error["code"], error["reason"]) == ("NOT_FOUND", "SESSION_NOT_FOUND")


async def test_many_steps_come_as_the_last_of_them(front: Front) -> None:
    session = front.session("lstm")
    at = session.open()
    inputs = [[step, 0, 0] for step in range(300)]
    session.step(inputs, position=at, acked=0)
    async with watching(session) as socket:
        found = await update(socket)
        assert (found["first_step"], found["inputs"]) == (44, [[float(step), 0.0, 0.0] for step in range(44, 300)])
        assert len(found["outputs"]["prediction"]) == 256


async def test_a_session_that_goes_on_fast_is_told_as_far_as_its_log_has_it(front: Front) -> None:
    """A checkpoint stands before every third step, so that the log is another while it is computed again."""
    session = front.session("lstm")
    at = session.open()
    outputs: list[Any] = []

    def steps() -> Any:
        place = at
        for number in range(150):
            reply = session.step([number, 1, 2], position=place)
            outputs.append(reply["outputs"]["prediction"][0])
            place = reply["position"]
        return place

    async with watching(session, "?hz=10&states=false") as socket:
        stepping = asyncio.create_task(asyncio.to_thread(steps))
        reached = -1
        updates = []
        while reached < 150:
            updates.append(await update(socket))
            reached = updates[-1]["position"]["step"]
        last = await stepping
    assert updates[-1]["position"] == last
    for found in updates:
        first = found["first_step"]
        assert found["inputs"] == [[float(number), 1.0, 2.0] for number in range(first, found["position"]["step"])]
        if "outputs_error" in found:
            assert found["outputs_error"]["reason"] == "STEP_COMPACTED"
            assert found["outputs"] == {}
        elif found["inputs"]:
            assert found["outputs"]["prediction"] == outputs[first : found["position"]["step"]]
    assert len(updates) > 2


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?hz=11", "hz: got 11, expected 1 to 10"),
        ("?hz=x", "hz: got 'x'"),
        ("?outputs=no", "outputs: got 'no', expected some of hidden, prediction, state"),
        ("?states=1", "states: got '1', expected true or false"),
        ("?speed=1", "query: got 'speed', expected each of hz, outputs, states at most once"),
    ],
)
async def test_what_is_not_understood_ends_the_watch(front: Front, query: str, text: str) -> None:
    async with watching(front.session("lstm"), query) as socket:
        assert (await update(socket))["error"]["message"].startswith(text)
        assert await closing(socket) == (1008, "INVALID_FIELD")


async def test_its_client_has_nothing_to_say(front: Front) -> None:
    async with watching(front.session("lstm")) as socket:
        await update(socket)
        await socket.send_str("{}")
        assert "only the server sends here" in (await update(socket))["error"]["message"]
        assert (await closing(socket))[0] == 1008


async def test_a_watch_that_is_closed_reads_no_more(front: Front) -> None:
    session = front.session("lstm")
    session.open()

    def loads() -> float:
        return front.server.metric("cellkeeper_loads_total", model="lstm")

    def ended() -> float:
        return front.server.metric("cellkeeper_http_request_seconds_count", route=WATCH)

    before_it = ended()
    async with watching(session) as socket:
        await update(socket)
        before = loads()
        while loads() == before:  # noqa: ASYNC110 - the server tells nobody that it has read
            await asyncio.sleep(0.05)  # between two looks
    while ended() == before_it:  # noqa: ASYNC110 - nor that it has noticed the end
        await asyncio.sleep(0.05)  # between two looks
    before = loads()
    for _ in range(3):
        assert (await asyncio.to_thread(front.ask, "GET", "/v1/now")).status == 200
    assert loads() == before
