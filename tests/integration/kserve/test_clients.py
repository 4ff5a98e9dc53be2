"""Unmodified clients: their outputs are those of an offline run, bit for bit.

Covers whole sequences, START in the middle, END, repeated calls, ids of both types, and a server that is killed and
restarted in mid-sequence, between two calls and in the middle of one. The clients need another version of protobuf
than the service, so they have their own environment: `make triton-clients`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.model.bundle import read_bundle

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .conftest import KSERVE
from .driver import GONE, KILL, PAUSE, WAYS, Call

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / os.environ.get("TRITON_CLIENTS_VENV", ".venv-triton-clients") / "bin" / "python"
NUMBERED: list[int | str] = [7, "7"]
"""Sequences whose calls send `step`; the others send what Triton's clients send today."""
IDS: list[int | str] = [*NUMBERED, "pump-17", 2**62]
STEPS, RESTART_AT, KILL_AT, PAUSE_AT = 12, 4, 6, 8

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason=f"no clients in {PYTHON}: `make triton-clients` installs them"
)


@pytest.mark.parametrize("way", WAYS)
def test_an_unmodified_client(way: str, lstm_model: Path, tmp_path: Path) -> None:
    if "stream" not in way:
        drive(way, lstm_model, tmp_path, f"sqlite:{tmp_path / 'sessions.db'}")
        return
    with RedisServer() as redis:
        drive(way, lstm_model, tmp_path, redis.url)


def drive(way: str, lstm_model: Path, folder: Path, store: str) -> None:
    calls = [call(name, step) for step in range(STEPS) for name in IDS]
    first, paused = KILL_AT * len(IDS), PAUSE_AT * len(IDS)
    calls[first] = calls[first]._replace(kill=True)
    calls[paused] = calls[paused]._replace(pause=True)
    inputs = np.random.default_rng(3).standard_normal((len(calls), 1, 1, 3)).astype(np.float32)
    (folder / "plan.json").write_text(json.dumps(calls))
    np.save(folder / "inputs.npy", inputs)
    words = [str(PYTHON), str(Path(__file__).with_name("driver.py")), way]
    with ForkedServer([lstm_model], store, KSERVE) as server, (folder / "errors").open("w") as errors:
        words += [server.target, "lstm", str(folder)]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
        ) as client:
            told = list(attend(client, server))
        assert client.returncode == 0, (folder / "errors").read_text()
        assert told == [KILL, GONE, PAUSE]
    outputs = np.load(folder / "outputs.npy")
    engine = load_engine(read_bundle(lstm_model), "cpu", 1, 1)
    for index, _ in enumerate(IDS):
        mine = inputs[index :: len(IDS), 0, 0]
        runs = [mine[:RESTART_AT], mine[RESTART_AT:]]
        want = np.concatenate([offline(engine, run)["prediction"] for run in runs])
        np.testing.assert_array_equal(outputs[index :: len(IDS), 0, 0], want, strict=True)


def attend(client: subprocess.Popen[str], server: ForkedServer) -> Iterator[str]:
    """Does to the server what the client's lines ask for. Yields the lines."""
    assert client.stdin is not None
    assert client.stdout is not None
    for line in client.stdout:
        asked = line.strip()
        if asked in (KILL, PAUSE):
            server.kill()
        if asked in (GONE, PAUSE):
            server.restart()
        if asked == PAUSE:
            client.stdin.write("go on\n")
        yield asked


def call(name: int | str, step: int) -> Call:
    """START at the first step and again in the middle, END at the last; every other numbered call is repeated."""
    begin = RESTART_AT if step >= RESTART_AT else 0
    numbered = name in NUMBERED
    return Call(
        sequence=name,
        start=step == begin,
        end=step == STEPS - 1,
        step=step - begin if numbered else None,
        again=numbered and step % 2 == 1,
        pause=False,
        kill=False,
        identifier=f"{name}-{step}",
    )
