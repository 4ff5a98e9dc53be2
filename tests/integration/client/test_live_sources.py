"""A live source gets each answer before its next sample is read. A sequence that is all available is read ahead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cellkeeper import AsyncClient, Client, InvalidArgument

from .conftest import ServerThread
from .counting_server import CountingServer

ONE = [1.0, 1.0]


class Live:
    """A source of `count` samples that notes at each read how many answers have arrived."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.answers = 0
        self.seen: list[int] = []

    def __iter__(self) -> Iterator[list[float]]:
        for _ in range(self.count):
            self.seen.append(self.answers)
            yield ONE

    async def awaited(self) -> AsyncIterator[list[float]]:
        for sample in self:
            yield sample


@pytest.mark.parametrize(("options", "seen"), [({}, [0, 1, 2, 3, 4]), ({"chunk_steps": 2}, [0, 0, 2, 2, 4])], ids=repr)
def test_a_blocking_stream_answers_before_it_reads_on(target: str, options: dict[str, Any], seen: list[int]) -> None:
    live = Live(5)
    with Client(target) as client:
        for y in client.session("a").stream(live, **options):
            live.answers += 1
            assert y.tolist() == [live.answers] * 2
    assert live.seen == seen
    assert live.answers == 5


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(("options", "seen"), [({}, [0, 1, 2, 3, 4]), ({"chunk_steps": 2}, [0, 0, 2, 2, 4])], ids=repr)
async def test_an_asyncio_stream_answers_before_it_reads_on(
    target: str, awaited: bool, options: dict[str, Any], seen: list[int]
) -> None:
    live = Live(5)
    async with AsyncClient(target) as client:
        session = await client.session("a")
        async for y in session.stream(live.awaited() if awaited else live, **options):
            live.answers += 1
            assert y.tolist() == [live.answers] * 2
    assert live.seen == seen
    assert live.answers == 5


def test_with_a_window_answers_that_have_arrived_do_not_wait_for_it_to_fill(target: str) -> None:
    yielded = 0
    seen: list[int] = []

    def slow() -> Iterator[list[float]]:
        for read in range(5):
            while session.position.step < read:  # its next sample comes after the answers to those before
                time.sleep(0.001)
            seen.append(yielded)
            yield ONE

    with Client(target) as client:
        session = client.session("a")
        for _ in session.stream(slow(), window=64):
            yielded += 1
    assert seen == [0, 0, 1, 2, 3]  # all but the answer that arrived while this sample was awaited
    assert yielded == 5


class Held(Live):
    """The same with a length and an index: all samples are available."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[float]:
        return ONE


@pytest.mark.parametrize(
    ("samples", "options", "ahead"),
    [(Live(60), {}, 1), (Live(60), {"window": 30}, 30), (Held(60), {}, 60), (Held(60), {"window": 1}, 1)],
    ids=["source", "source, window", "sequence", "sequence, window"],
)
def test_reading_ahead_is_an_option_for_a_source_and_the_default_for_a_sequence(
    threaded: ServerThread, samples: Live, options: dict[str, Any], ahead: int
) -> None:
    threaded.do(gate(threaded.server, opened=False))
    opener = threading.Thread(target=lambda: opens_once_read(threaded, samples, ahead))
    with Client(threaded.target) as client:
        session = client.session("a")
        opener.start()
        for _ in session.stream(samples, **options):
            samples.answers += 1
    opener.join()
    assert samples.answers == 60
    assert samples.seen[:ahead] == [0] * ahead
    assert max(read - answers for read, answers in enumerate(samples.seen, 1)) == ahead


def opens_once_read(threaded: ServerThread, samples: Live, count: int) -> None:
    """Holds all answers back until so many samples have been read."""
    while len(samples.seen) < count:
        time.sleep(0.001)
    threaded.do(gate(threaded.server, opened=True))


async def gate(server: CountingServer, *, opened: bool) -> None:
    (server.gate.set if opened else server.gate.clear)()


def test_a_data_frame_is_read_by_its_rows(target: str) -> None:
    rows = pd.DataFrame({"flow": [1, 2, 3], "pressure": [10.0, 20.0, 30.0]})
    with Client(target) as client:
        session = client.session("a")
        assert [y.tolist() for y in session.stream(rows)] == [[1, 10], [3, 30], [6, 60]]
        assert [y.tolist() for y in session.stream(rows, chunk_steps=2)] == [[7, 70], [9, 90], [12, 120]]


async def test_asyncio_reads_a_data_frame_by_its_rows(target: str) -> None:
    async with AsyncClient(target) as client:
        session = await client.session("a")
        assert [y.tolist() async for y in session.stream(pd.DataFrame([[1.0, 10.0]] * 2))] == [[1, 10], [2, 20]]


@pytest.mark.parametrize("given", [None, 5, "1,2", b"12", {"flow": [1.0, 2.0]}, np.array(5.0)], ids=repr)
def test_what_gives_no_samples_is_refused_with_its_field(target: str, given: Any) -> None:
    with Client(target) as client:
        session = client.session("a")
        with pytest.raises(InvalidArgument, match="samples: got") as raised:
            list(session.stream(given))
        assert raised.value.field == "samples"
        assert session.step(ONE).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("samples", "chunk_steps", "says"),
    [
        ([ONE, ONE, [1.0, None]], 1, "inputs: sample 2 of the stream: got NaN or infinity at time step 0, feature 1"),
        ([ONE, ONE, [1.0]], 1, r"inputs: sample 2 of the stream: got shape \[1\]"),
        (
            [ONE, ONE, ONE, [1.0, None]],
            2,
            "inputs: samples 2 to 3 of the stream: got NaN or infinity at time step 1, feature 1",
        ),
        ([ONE, ONE, ONE, [1.0]], 2, r"inputs: sample 3 of the stream: got shape \[1\], expected \[2\]"),
        ([ONE, ONE, ONE, [1.0, [2.0]]], 2, "inputs: sample 3 of the stream: got list"),
    ],
)
def test_an_error_names_the_sample(target: str, samples: list[Any], chunk_steps: int, says: str) -> None:
    with Client(target) as client:
        answers: list[object] = []
        with pytest.raises(InvalidArgument, match=says):
            answers.extend(y.tolist() for y in client.session("a").stream(samples, chunk_steps=chunk_steps))
    assert answers == [[1, 1], [2, 2]]  # those before it


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_the_program_reads_a_file_ahead_and_a_pipe_row_by_row(
    threaded: ServerThread, tmp_path: Path, kind: str
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("1.5,1\n" * 30)
    command = [sys.executable, "-m", "cellkeeper", "stream", "--session", "a", "--endpoint", threaded.target]
    options = {"input": rows.read_text()} if kind == "pipe" else {}
    if kind == "file":
        command += ["--csv", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, **options)  # type: ignore[call-overload]
    assert len(done.stdout.splitlines()) == 31
    assert len(threaded.server.ahead_steps) == 30
    assert (max(threaded.server.ahead_steps) > 0) == (kind == "file")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["--csv", "-", "--header", "no"], ["1,2\n", "3,4\n", "5,6\n"]),
        (["--jsonl", "-"], ["[1, 2]\n", "[3, 4]\n", "[5, 6]\n"]),
    ],
    ids=["csv", "jsonl"],
)
def test_the_program_prints_each_row_while_its_input_stays_open(
    real_target: str, options: list[str], rows: list[str]
) -> None:
    command = [sys.executable, "-m", "cellkeeper", "stream", "--session", f"live {options[0]}", "--format", "jsonl"]
    with subprocess.Popen(
        [*command, "--endpoint", real_target, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for step, row in enumerate(rows):
                process.stdin.write(row)
                process.stdin.flush()
                assert f'"step": {step},' in process.stdout.readline()
            process.stdin.close()
            assert process.stdout.read() == ""
            assert process.wait(30) == 0
        finally:
            process.kill()
    with Client(real_target) as client:
        assert client.session(f"live {options[0]}").delete()
