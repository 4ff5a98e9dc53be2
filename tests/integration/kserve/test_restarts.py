"""What Triton cannot do: a sequence continues after its server was killed, and on any other server of its store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.model.bundle import read_bundle

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .calls import END, START, Api, Array, Reply, Value, request
from .conftest import KSERVE

STEPS = 12
KILLED_AT = 5
IDS: list[int | str] = [7, "7", 2**62, "pump-17"]


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'sessions.db'}"
        return
    with RedisServer() as server:
        yield server.url


@pytest.fixture(scope="module")
def sequences() -> dict[int | str, Array]:
    """The inputs of each sequence: [1, STEPS, 3]."""
    draw = np.random.default_rng(17)
    return {name: draw.standard_normal((1, STEPS, 3)).astype(np.float32) for name in IDS}


@pytest.fixture(scope="module")
def expected(lstm_model: Path, sequences: dict[int | str, Array]) -> dict[int | str, Array]:
    """The outputs of one offline run: [1, STEPS, 2]."""
    engine = load_engine(read_bundle(lstm_model), "cpu", 1, 1)
    return {name: offline(engine, values[0])["prediction"][None] for name, values in sequences.items()}


def parameters(step: int) -> dict[str, Value]:
    return {"step": step, **(START if step == 0 else {}), **(END if step == STEPS - 1 else {})}


def test_killed_and_started_again_in_mid_sequence(
    lstm_model: Path, store: str, sequences: dict[int | str, Array], expected: dict[int | str, Array]
) -> None:

    def send(api: Api, step: int) -> None:
        for name, values in sequences.items():
            again = step in (0, KILLED_AT, STEPS - 1)
            for replayed in (False, True) if again else (False,):
                got = api.infer(values[:, step], name, parameters(step), identifier="start")
                np.testing.assert_array_equal(got.outputs["prediction"], expected[name][:, step], strict=True)
                assert got.parameters["replayed"] is replayed

    with ForkedServer([lstm_model], store, KSERVE) as server:
        for first, last in ((0, KILLED_AT), (KILLED_AT, STEPS)):
            with server.channel() as channel:
                for step in range(first, last):
                    send(Api(channel, "lstm"), step)
            if last < STEPS:
                server.kill()
                server.restart()


def test_any_replica_continues(
    lstm_model: Path, tmp_path: Path, sequences: dict[int | str, Array], expected: dict[int | str, Array]
) -> None:
    """Without `step`, as Triton's clients send it: unary on one server, and over a stream on the other."""
    store = f"sqlite:{tmp_path / 'sessions.db'}"
    with (
        ForkedServer([lstm_model], store, KSERVE) as one,
        ForkedServer([lstm_model], store, KSERVE) as two,
        one.channel() as first,
        two.channel() as second,
    ):
        apis = [Api(first, "lstm"), Api(second, "lstm")]
        for step in range(STEPS):
            flags = {name: value for name, value in parameters(step).items() if name != "step"}
            sent = [request("lstm", values[:, step], name, flags) for name, values in sequences.items()]
            if step % 3 == 2:
                answers = list(apis[step % 2].stream(iter(sent)))
                assert all(isinstance(answer, Reply) for answer in answers), answers
                found = {answer.outputs["prediction"].tobytes() for answer in answers if isinstance(answer, Reply)}
                assert found == {expected[name][:, step].tobytes() for name in sequences}
                continue
            for name, values in sequences.items():
                got = apis[step % 2].infer(values[:, step], name, flags)
                np.testing.assert_array_equal(got.outputs["prediction"], expected[name][:, step], strict=True)
