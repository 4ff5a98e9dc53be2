"""A client whose token cannot be used says so, in every call and at once, and goes on with the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cellkeeper import AsyncClient, AsyncGroup, AsyncSession, Client, GroupError, InvalidArgument

from .conftest import QUICK
from .counting_server import CountingServer

pytestmark = pytest.mark.timeout(60)
X = [1.0, 2.0]


def raising() -> str:
    raise KeyError("vault")


UNUSABLE: list[tuple[Callable[[], Any], str]] = [
    (lambda: "", "token: got an empty token"),
    (lambda: "two\nlines", "token: got an empty token or one that cannot be sent"),
    (lambda: b"bytes", "token: got bytes from the callable, expected a str"),
    (raising, r"token: the callable raised KeyError\('vault'\)"),
]


class Tokens:
    """A token callable whose next tokens can be chosen."""

    def __init__(self) -> None:
        self.source: Callable[[], Any] = lambda: "good"

    def __call__(self) -> str:
        token: str = self.source()
        return token


@pytest.mark.parametrize(("source", "text"), UNUSABLE, ids=[text for _, text in UNUSABLE])
async def test_a_step_without_a_usable_token_ends_at_once(
    server: CountingServer, source: Callable[[], Any], text: str
) -> None:
    tokens = Tokens()
    async with AsyncClient(f"127.0.0.1:{server.port}", token=tokens, backoff=QUICK) as client:
        session, group = await client.session("pump"), await client.group(["a", "b"])
        await session.step(X)
        tokens.source = source
        server.lose_replies = 1  # the stream ends, and the next one needs a token
        with pytest.raises(InvalidArgument, match=text) as told:
            await asyncio.wait_for(session.step(X), 20)
        assert (told.value.field, told.value.reason) == ("token", "INVALID_FIELD")
        with pytest.raises(InvalidArgument, match=text):
            await client.models()
        with pytest.raises(GroupError) as of_group:
            await asyncio.wait_for(group.step([X, X]), 20)
        assert [type(error) for error in of_group.value.errors.values()] == [InvalidArgument] * 2

        tokens.source = lambda: "good"
        assert (await group.step([X, X])).tolist() == [X, X]
        assert (await session.step(X)).tolist() == [3.0, 6.0], "the first step of the lost stream counts"


async def test_a_step_that_was_sent_before_is_late(server: CountingServer) -> None:
    """What ends a stream says nothing of a step that the server may have applied before."""
    tokens = Tokens()
    async with AsyncClient(f"127.0.0.1:{server.port}", token=tokens, backoff=QUICK) as client:
        session, group = await client.session("pump"), await client.group(["a"])
        sent: AsyncSession | AsyncGroup
        for sent, x in ((session, X), (group, [X])):
            await sent.step(x)
            tokens.source = str
            server.lose_replies = 1
            with pytest.raises((InvalidArgument, GroupError)) as told:
                await asyncio.wait_for(sent.step(x), 20)
            error = told.value.errors["a"] if isinstance(told.value, GroupError) else told.value
            assert error.late_step is not None
            assert error.late_step.applied is None
            tokens.source = lambda: "good"
            await sent.settle()
            assert error.late_step.applied
    assert server.applied_steps == 4


async def test_steps_that_wait_do_not_build_on_a_late_step_that_is_refused_with_its_stream(
    server: CountingServer,
) -> None:
    tokens = Tokens()
    async with AsyncClient(f"127.0.0.1:{server.port}", token=tokens, backoff=QUICK, window_steps=1) as client:
        session = await client.session("pump")
        await session.step(X)
        tokens.source = str
        server.lose_replies = 1
        steps = await asyncio.wait_for(asyncio.gather(*(session.step(X) for _ in range(3)), return_exceptions=True), 20)
        assert isinstance(steps[0], InvalidArgument)
        assert all(isinstance(step, Exception) for step in steps)
        with pytest.raises(InvalidArgument, match="token"):
            await asyncio.wait_for(session.settle(), 20)
        tokens.source = lambda: "good"
        (late,) = await session.settle()
        assert late.applied


@pytest.mark.parametrize("given", [b"token", 7, ["token"]], ids=repr)
def test_what_is_no_token_is_refused(given: Any) -> None:
    with pytest.raises(InvalidArgument, match="token: got"):
        Client("localhost:1", token=given)


async def test_a_file_that_is_gone(server: CountingServer, tmp_path: Path) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", token=tmp_path / "token", backoff=QUICK) as client:
        with pytest.raises(InvalidArgument, match=f"token: cannot read {tmp_path / 'token'}: No such file") as told:
            await client.models()
        assert told.value.field == "token"
        (tmp_path / "token").write_text("good\n")
        assert (await (await client.session("pump")).step(X)).tolist() == X
