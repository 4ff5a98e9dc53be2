"""Calls of one session that overlap, from several tasks: steps, and an end, while it starts another generation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, AsyncSession, Client, Closed, GenerationChanged, SessionInfo
from cellkeeper_service.engine.load import offline

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer

INPUTS = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    """Serves two versions of one model; the first takes new sessions."""
    folder = tmp_path_factory.mktemp("versions")
    bundles = [make_bundle(folder / str(seed), name="m", seed=seed, head=(2,)) for seed in (1, 2)]
    with ForkedServer(bundles, "memory:") as server:
        yield server


async def of_the_older_version(client: AsyncClient) -> AsyncSession:
    """Returns a session that the next reset moves to the newer version."""
    _, older = await client.models()
    session = await client.session("s")
    await session.carry_over("reset", fingerprint=older.fingerprint)
    await session.step(INPUTS[0])
    return session


def when_the_version_is_read(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Another task works while a reset waits for the version of the new generation."""
    read = client.session_info

    async def read_and_work(session: str, **more: Any) -> SessionInfo:
        info = await read(session, **more)
        monkeypatch.undo()
        await work()
        return info

    monkeypatch.setattr(client, "session_info", read_and_work)


async def test_a_step_while_a_session_moves_to_another_version(
    process: ForkedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made before the reset has ended, so it belongs to the generation that is gone."""
    async with AsyncClient(process.target, timeout=20) as client:
        session = await of_the_older_version(client)

        async def step() -> None:
            with pytest.raises(GenerationChanged):
                await session.step(INPUTS[1])

        when_the_version_is_read(client, monkeypatch, step)
        await session.reset()
        assert session.model == await client.model()
        outputs = [await session.step(one) for one in INPUTS]
        np.testing.assert_array_equal(outputs, offline(process.bundles[0], INPUTS)["prediction"])
        assert (await session.info()).position == session.position
        await session.delete()


async def test_calls_that_end_generations_run_one_after_another(process: ForkedServer) -> None:
    """Each of them names the generation of the one before: none is told of another writer."""
    async with AsyncClient(process.target, timeout=20) as client:
        session = await of_the_older_version(client)
        state = await session.state()
        newer, older = await client.models()
        positions = await asyncio.gather(
            session.reset(),
            session.carry_over("keep", fingerprint=older.fingerprint),
            session.set_state(state, step=7),
            session.carry_over("keep", fingerprint=older.fingerprint),
        )
        assert [position.step for position in positions] == [0, 0, 7, 7]
        assert len({position.generation for position in positions}) == 4
        assert positions[-1] == session.position == (await session.info()).position
        assert session.model == older != newer
        assert (await asyncio.gather(session.reset(), session.delete()))[1]


@pytest.mark.parametrize("call", ["reset", "set_state", "carry_over"])
async def test_a_session_that_is_closed_meanwhile_stays_closed(
    process: ForkedServer, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async with AsyncClient(process.target, timeout=20) as client:
        session = await of_the_older_version(client)
        state = await session.state()
        arguments: dict[str, tuple[Any, ...]] = {"reset": (), "set_state": (state,), "carry_over": ("reset",)}
        waiting = asyncio.ensure_future(getattr(session, call)(*arguments[call]))
        await asyncio.sleep(0)  # it has been sent
        await session.close()
        with pytest.raises(Closed):
            await waiting
        with pytest.raises(Closed):
            await session.step(INPUTS[1])
        again = await client.session("s")
        await again.delete()


def test_an_input_that_was_read_for_another_version_is_not_sent(process: ForkedServer) -> None:
    """Another thread moves the session while this one converts its input."""
    with Client(process.target, timeout=20) as client:
        _, older = client.models()
        session = client.session("s")

        class Moving:
            def __array__(self, *_: object, **more: object) -> Any:
                session.carry_over("reset", fingerprint=older.fingerprint)
                return INPUTS[0]

        with pytest.raises(Closed, match="another generation"):
            session.step(Moving())
        outputs = [session.step(one) for one in INPUTS]
        np.testing.assert_array_equal(outputs, offline(process.bundles[1], INPUTS)["prediction"])
        session.delete()
