"""A reply has its outputs in the order in which they were requested, and the calls that return one return the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, Client

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer

HIDDEN = 7  # numbers in the output "hidden"; "prediction" has one
ORDERS: list[tuple[tuple[str, ...], list[str]]] = [
    (("prediction", "hidden"), ["prediction", "hidden"]),
    (("hidden", "prediction"), ["hidden", "prediction"]),
    (("hidden", "prediction", "hidden"), ["hidden", "prediction"]),
    (("hidden", "state", "prediction"), ["hidden", "state.h", "state.c", "prediction"]),
    (("state", "hidden"), ["state.h", "state.c", "hidden"]),
]
X: Any = [1.0]
CHUNK: Any = [X, X]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = make_bundle(tmp_path_factory.mktemp("outputs") / "m", input_size=1, hidden_size=HIDDEN, feedback=[0])
    with ForkedServer([bundle], "memory:") as server:
        yield server.target


@pytest.mark.parametrize(("outputs", "names"), ORDERS, ids=[",".join(names) for names, _ in ORDERS])
def test_of_a_session_and_of_a_group(target: str, outputs: tuple[str, ...], names: list[str]) -> None:
    with Client(target) as client:
        session = client.session("a", outputs=outputs)
        group = client.group(["b", "c"], outputs=outputs)
        replies: list[Any] = [
            session.step_reply(X),
            session.step_reply(CHUNK),
            *session.stream_replies(CHUNK),
            *session.stream_replies(CHUNK, chunk_steps=2),
            session.peek_reply(X),
            session.forecast_reply(X, steps=2),
            group.step_reply([X, X]),
            group.step_reply([CHUNK, CHUNK]),
            group.peek_reply([X, X]),
            group.forecast_reply([X, X], steps=2),
        ]
        assert [list(reply.outputs) for reply in replies] == [names] * len(replies)


def test_what_returns_one_returns_the_first(target: str) -> None:
    outputs = ("hidden", "prediction")
    with Client(target) as client:
        session, group = client.session("first"), client.group(["second", "third"])
        assert session.peek(X, outputs=outputs).shape == (HIDDEN,)
        assert session.step(X, outputs=outputs).shape == (HIDDEN,)
        assert session.forecast(X, steps=2, outputs=outputs).shape == (3, HIDDEN)
        assert [y.shape for y in session.stream([X], outputs=outputs)] == [(HIDDEN,)]
        assert group.peek([X, X], outputs=outputs).shape == (2, HIDDEN)
        assert group.step([X, X], outputs=outputs).shape == (2, HIDDEN)
        assert group.forecast([X, X], steps=2, outputs=outputs).shape == (2, 3, HIDDEN)
        assert group.step({"third": np.array(X)}, outputs=outputs)["third"].shape == (HIDDEN,)


async def test_in_asyncio(target: str) -> None:
    async with AsyncClient(target, outputs=("hidden", "prediction")) as client:
        session, group = await client.session("fourth"), await client.group(["fifth"])
        assert (await session.step(X)).shape == (HIDDEN,)
        assert [y.shape async for y in session.stream([X])] == [(HIDDEN,)]
        assert (await group.step([X])).shape == (1, HIDDEN)
