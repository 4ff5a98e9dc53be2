"""A session at the last possible step: one more fails that request, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper_service.domain.position import MAX_STEP

from testing.forked_server import ForkedServer

from .calls import Api, Chunk, Way, frame_message, numbers, placed
from .vault import Vault


@pytest.fixture(scope="module")
def server(counting_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    with ForkedServer([counting_model], f"sqlite:{tmp_path_factory.mktemp('last') / 'sessions.db'}") as served:
        yield served


@pytest.fixture(scope="module")
def api(server: ForkedServer) -> Iterator[Api]:
    with server.channel() as channel:
        yield Api(server.stub(channel))


@pytest.fixture(scope="module")
def vault(server: ForkedServer, api: Api) -> Iterator[Vault]:
    with Vault(server.store, api) as made:
        yield made


def test_the_step_after_the_last_one_is_refused(api: Api, vault: Vault, session: str, way: Way) -> None:
    at = vault.put(session, step=MAX_STEP - 2, checkpoint_step=MAX_STEP - 2).position
    for step in (1, 2):
        got = api.send(way, Chunk(session, numbers(1), at))
        assert got.sums == [step]
        at = got.after
    assert at.step == MAX_STEP
    for position in (at, None) if way != "stream" else (at,):
        beyond = api.send(way, Chunk(session, numbers(1), position))
        assert (beyond.code, beyond.reason, beyond.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "inputs")
        assert str(MAX_STEP) in beyond.message
    assert api.position(session) == at


@pytest.mark.parametrize("frame_way", ["batch", "stream"])
def test_a_chunk_over_the_last_one_leaves_its_neighbours_alone(
    api: Api, vault: Vault, session: str, frame_way: Way
) -> None:
    last = vault.put(f"{session}-last", step=MAX_STEP - 1, checkpoint_step=MAX_STEP - 1).position
    names = [f"{session}-{index}" for index in range(7)]
    chunks = [Chunk(name, numbers(3, 4), vault.put(name, 1, 2).position) for name in names]
    chunks.insert(3, Chunk(f"{session}-last", numbers(1, 2), last))
    got = api.send_frame(frame_way, frame_message("count", chunks))
    assert got.pop(3).field == "inputs"
    assert [result.sums for result in got] == [[6.0, 10.0]] * 7
    again = [
        Chunk(chunk.session, numbers(5, 6), placed(chunk.position, chunk.inputs)) for chunk in chunks if chunk.position
    ]
    assert [result.code for result in api.send_frame(frame_way, frame_message("count", again))].count("OK") == 7
