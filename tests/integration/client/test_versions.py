"""Forecasts, and sessions carried over to a retrained model: real servers, one after another on one store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, CarriedOver, Client, GenerationChanged, InvalidArgument, ModelChanged
from cellkeeper_service.engine.load import load_engine, offline

from testing.bundles import make_bundle
from testing.forked_program import run_forked
from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

PAST = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
WINDOW = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)
NEXT = np.random.default_rng(2).standard_normal((3, 3)).astype(np.float32)
SESSIONS = ("a/1", "a/2", "b")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trainings of one model; the newer one declares feedback."""
    folder = tmp_path_factory.mktemp("versions")
    more: dict[str, Any] = {"name": "m", "head": (2,)}
    return make_bundle(folder / "old", seed=1, **more), make_bundle(
        folder / "new", seed=2, feedback=[0, 1, "known"], **more
    )


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.fire), "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'sessions.db'}"
        return
    with RedisServer() as server:
        yield server.url


def kept(old: Path, new: Path, inputs: np.ndarray) -> np.ndarray:
    """Returns what the new version predicts for NEXT, from the old version's state after `inputs`."""
    engine = load_engine(new, "cpu")
    left = offline(old, inputs)
    state = b"".join(left[f"state.{spec.name}"].tobytes() for spec in engine.spec.states)
    engine.initial_state = state
    predicted: np.ndarray = offline(engine, NEXT)["prediction"]
    return predicted


def test_a_state_of_another_kind_of_cell_is_not_kept(tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / cell, name="m", cell=cell) for cell in ("rnn_tanh", "gru")]
    with ForkedServer(bundles[1:], f"sqlite:{tmp_path / 's.db'}") as server:
        with Client(server.target) as client:
            client.session("a").step(PAST)
        server.stop()
    with ForkedServer(bundles, f"sqlite:{tmp_path / 's.db'}") as server, Client(server.target) as client:
        refused = client.carry_over("keep")
        assert refused.counts == {"MODEL_CHANGED": 1}
        assert "has cells of the kind gru, the other rnn_tanh" in str(refused.failures["a"])
        assert client.carry_over("reset").counts == {"carried": 1}


def test_a_retrained_model_takes_over(versions: tuple[Path, Path], store: str) -> None:
    """keep, rerun and reset, one by one and in bulk, and what remains after a restart."""
    old, new = versions
    with ForkedServer([old], store) as server, Client(server.target) as client:
        for name in SESSIONS:
            client.session(name).step(PAST)
        assert server.stop() == 0

    with ForkedServer([new], store) as server, Client(server.target) as client:
        with pytest.raises(ModelChanged, match="carry it over"):
            client.session("b")
        refused = client.carry_over("keep", sessions=["b", "no"])
        assert refused.counts == {"MODEL_CHANGED": 1, "SESSION_NOT_FOUND": 1}
        assert refused.failed == 2
        assert "serve both versions" in str(refused.failures["b"])
        assert server.stop() == 0

    with ForkedServer([new, old], store) as server, Client(server.target) as client:
        session, other = client.session("b"), client.session("b")
        old_position = session.position
        assert session.model.fingerprint == client.session_info("b").fingerprint != client.model().fingerprint
        with pytest.raises(InvalidArgument, match="feedback"):
            session.forecast(NEXT, steps=2, known=np.zeros((2, 1)))
        moved = session.carry_over("keep")
        assert (moved.step, moved.generation == old_position.generation) == (9, False)
        assert session.model == client.model()
        assert session.carry_over("reset") == moved  # it belongs to that version already
        with pytest.raises(GenerationChanged):
            other.step(NEXT[0])
        np.testing.assert_array_equal(session.step(NEXT[:1]), kept(old, new, PAST)[:1])

        wrong = client.carry_over("rerun", prefix="a/", window_of=lambda info: WINDOW[:, :2])
        assert wrong.counts == {"INVALID_FIELD": 2}
        done = client.carry_over("rerun", prefix="a/", window_of=lambda info: WINDOW if info.session == "a/1" else None)
        assert done.counts == {"carried": 1, "skipped": 1}
        assert client.session_info("a/1").position.step == 40
        seen: list[int] = []
        done = client.carry_over("reset", on_progress=lambda so_far: seen.append(so_far.total))
        assert seen[-1] == done.total == 3
        assert (done.counts, done.failed) == ({"carried": 1, "already": 2}, 0)
        server.kill()
        server.restart()

    with ForkedServer([new], store) as server, Client(server.target) as client:
        rerun = offline(new, np.concatenate([WINDOW, NEXT]))["prediction"][40:]
        np.testing.assert_array_equal(client.session("a/1").step(NEXT), rerun)
        np.testing.assert_array_equal(client.session("a/2").step(NEXT), offline(new, NEXT)["prediction"])
        np.testing.assert_array_equal(client.session("b").step(NEXT[1:]), kept(old, new, PAST)[1:])


def test_windows_do_not_add_up_to_a_message_that_is_refused(versions: tuple[Path, Path]) -> None:
    old, new = versions
    window = np.ones((300, 3), np.float32)  # 3,600 bytes
    options = ["--max-message-bytes", "8192"]
    with ForkedServer([new, old], "memory:", options) as server, Client(server.target) as client:
        group = client.group([f"s{number}" for number in range(8)])
        (other,) = [model for model in client.models() if model.fingerprint != group.model.fingerprint]
        done = client.carry_over("rerun", window_of=lambda info: window, fingerprint=other.fingerprint)
        assert done.counts == {"carried": 8}


@pytest.mark.parametrize("chunk_steps", [1, 2])
async def test_a_stream_that_is_left_after_its_version_has_other_inputs(tmp_path: Path, chunk_steps: int) -> None:
    """What it had received counts with the version that it belongs to."""
    new = make_bundle(tmp_path / "new", input_size=6, head=(2,))
    server = ForkedServer([make_bundle(tmp_path / "old", head=(2,))], f"sqlite:{tmp_path / 'sessions.db'}")
    with server:
        async with AsyncClient(server.target) as client:
            session = await client.session("s")
            stream = session.stream(PAST[:4], chunk_steps=chunk_steps)
            await anext(stream)
            await session.settle()
            server.stop()
            server.bundles = [new]
            server.restart()
            await session.carry_over("reset")
            assert session.model.input.shape == (6,)
            await stream.aclose()
            late = await session.settle()
    assert [step.steps for step in late] == ([1, 1, 1] if chunk_steps == 1 else [1, 2])
    shapes = [step.outputs["prediction"].shape for step in late]
    assert shapes == ([(2,)] * 3 if chunk_steps == 1 else [(1, 2), (2, 2)])


def test_any_server_that_serves_their_version_carries_sessions_over(
    versions: tuple[Path, Path], tmp_path: Path
) -> None:
    """One of two does not serve it any more. Each session prefers one of them."""
    old, new = versions
    names = [f"s/{number}" for number in range(24)]
    store = f"sqlite:{tmp_path / 's.db'}"
    with ForkedServer([old], store) as server, Client(server.target) as client:
        client.group(names).step(np.stack([PAST] * len(names)))
    with (
        ForkedServer([new, old], store) as server,
        ForkedServer([new], store) as other,
        Client([server.target, other.target]) as client,
    ):
        done = [client.carry_over("keep", sessions=[name]).counts for name in names[:16]]  # a request for each of them
        assert done == [{"carried": 1}] * 16
        assert client.carry_over("keep").counts == {"already": 16, "carried": 8}


@pytest.fixture
def both(versions: tuple[Path, Path]) -> Iterator[ForkedServer]:
    old, new = versions
    with ForkedServer([new, old], "memory:") as server:
        yield server


async def test_forecast_and_carry_over_with_asyncio(both: ForkedServer, versions: tuple[Path, Path]) -> None:
    """A session that several tasks step while it is carried over is never left half done."""
    _, new = versions
    async with AsyncClient(both.target) as client:
        session = await client.open("s")
        assert session.model.feedback == (0, 1, -1)
        await session.step(PAST)
        known = WINDOW[:20, :1]
        got = await session.forecast_reply(NEXT, steps=20, known=known, outputs=["prediction", "state"])
        consumed = np.concatenate([PAST, NEXT])
        for value in known:
            low, high = offline(new, consumed)["prediction"][-1]
            consumed = np.concatenate([consumed, np.array([[low, high, value[0]]], np.float32)])
        whole = offline(new, consumed)
        np.testing.assert_array_equal(got.output, whole["prediction"][9:])
        np.testing.assert_array_equal(got.state["h"], whole["state.h"])
        assert (await session.info()).position == session.position
        np.testing.assert_array_equal(await session.step(NEXT), whole["prediction"][9:12])
        old = next(model for model in await client.models() if model.fingerprint != session.model.fingerprint)
        await session.carry_over("rerun", window=WINDOW, fingerprint=old.fingerprint)
        assert session.model == old
        assert session.position.step == 40
        done = await client.carry_over("keep", prefix="s")
        assert done.counts == {"carried": 1}
        with pytest.raises(GenerationChanged):
            await session.step(NEXT[0])
        session = await client.open("s")
        for call, field in (
            (session.forecast(NEXT, steps=0), "steps"),
            (session.forecast(NEXT, steps=2, known=known), "known"),
            (session.carry_over("rerun"), "window"),
            (session.carry_over("keep", window=WINDOW), "window"),
            (session.carry_over("drop"), "policy"),
            (session.carry_over("keep", fingerprint=b"x" * 32), "fingerprint"),
            (client.carry_over("rerun"), "window_of"),
            (client.carry_over("drop"), "policy"),
        ):
            with pytest.raises(InvalidArgument) as error:
                await call
            assert error.value.field == field


def test_both_clients_report_the_progress_of_sessions_that_are_named(both: ForkedServer) -> None:
    names = [f"s/{number}" for number in range(70)]  # more than fit into one page
    seen: dict[str, list[int]] = {"Client": [], "AsyncClient": []}

    async def with_asyncio() -> CarriedOver:
        async with AsyncClient(both.target) as client:
            return await client.carry_over(
                "reset", sessions=names, on_progress=lambda so_far: seen["AsyncClient"].append(so_far.total)
            )

    with Client(both.target) as client:
        client.group(names)
        done = client.carry_over(
            "reset", sessions=names, on_progress=lambda so_far: seen["Client"].append(so_far.total)
        )
    assert done == asyncio.run(with_asyncio())
    assert done.counts == {"already": 70}
    assert seen == {"Client": [64, 70], "AsyncClient": [64, 70]}


def test_the_command(both: ForkedServer, versions: tuple[Path, Path], tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> tuple[str, str]:
        done = run_forked("cellkeeper", ["carry-over", "--endpoint", both.target, *words], os.environ, 120)
        assert done.status == code, done.err
        return done.out, done.err

    with Client(both.target) as client:
        newer, older = client.models()
        for name in SESSIONS:
            client.session(name).step(PAST)
        digits = older.fingerprint.hex()[:12]
        (tmp_path / "a%2F1.csv").write_text(
            "x,y,z\n" + "".join(f"{x},{y},{z}\n" for x, y, z in WINDOW.tolist()), "utf-8-sig"
        )
        out, _ = run("--policy", "rerun", "--windows", str(tmp_path), "--prefix", "a/", "--to", digits)
        assert out == "carried\t1\nskipped\t1\n"
        assert client.session_info("a/1").position.step == 40
        assert client.session_info("a/1").fingerprint == older.fingerprint
        assert run("--policy", "keep", "--model", "m")[0] == "already\t2\ncarried\t1\n"
        assert client.session_info("a/1").fingerprint == newer.fingerprint
        client.session(f"long/{'x' * 251}")  # no file can have this name, and so none has
        out, _ = run("--policy", "rerun", "--windows", str(tmp_path), "--prefix", "long/", "--to", digits)
        assert out == "skipped\t1\n"
        windows = ("--policy", "rerun", "--windows", str(tmp_path), "--session", "b", "--to", digits)
        for text, options, says in (
            ("x,y,z\n1,2,-\n", (), "b.csv: line 2, column 3 ('z'): got '-'"),
            ("0,1,2\n", (), "b.csv: line 1: got '0,1,2'"),
            ("x,y,z\n", ("--header", "no"), "b.csv: line 1, column 1: got 'x'"),
        ):
            (tmp_path / "b.csv").write_text(text)
            assert says in run(*windows, *options, code=1)[1]
        out, err = run("--policy", "reset", "--session", "no", code=1)
        assert out == "SESSION_NOT_FOUND\t1\n"
        assert "1 sessions were not carried over" in err
        assert "--windows" in run("--policy", "rerun", code=1)[1]
        assert "--to" in run("--policy", "reset", "--to", "zz", code=1)[1]


def test_a_session_of_a_version_that_is_gone_is_reset(versions: tuple[Path, Path], tmp_path: Path) -> None:
    """By its handle, by its name, and by the program. A handle continues with the new version and its sizes."""
    old, _ = versions
    wider = make_bundle(tmp_path / "wider", seed=3, name="m", input_size=5, head=(2,))
    rows = np.random.default_rng(4).standard_normal((4, 5)).astype(np.float32)
    with ForkedServer([old], f"sqlite:{tmp_path / 's.db'}") as server, Client(server.target) as client:
        handle = client.session("handle")
        for session in (handle, client.session("name"), client.session("program")):
            session.step(PAST)
        assert server.stop() == 0
        server.bundles = [wider]
        server.restart()
        with pytest.raises(ModelChanged, match="reset it"):
            handle.state()
        assert handle.reset().step == 0
        assert handle.model == client.model()
        np.testing.assert_array_equal(handle.step(rows), offline(wider, rows)["prediction"])
        with pytest.raises(ModelChanged):
            client.session("name")
        generation = client.session_info("name").position.generation
        assert client.reset("name", generation).step == 0
        with pytest.raises(GenerationChanged):
            client.reset("name", generation)
        command = ["sessions", "reset", "--endpoint", server.target, "program"]
        assert run_forked("cellkeeper", command, os.environ, 60).status == 0
        for name in ("name", "program"):
            np.testing.assert_array_equal(client.session(name).step(rows), offline(wider, rows)["prediction"])
