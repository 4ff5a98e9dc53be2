"""A graph whose call never ends is stopped and refused. It blocks neither an import nor a server's start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cellkeeper_service.converters import import_onnx
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.write import write_bundle

from .leftovers import refused
from .small_graphs import endless, graph

WORDS = "one call took longer than 300 ms and was stopped"


def test_a_loop_without_an_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_here: Callable[[list[str]], int]
) -> None:
    loop = graph(endless(), layout="step")
    started = time.monotonic()
    refused(tmp_path, WORDS, import_onnx, loop.model, tmp_path / "m", trial_call_ms=300, report=str)
    file = tmp_path / "loop.onnx"
    file.write_bytes(loop.model)
    assert run_here(["import", "onnx", str(file), str(tmp_path / "m"), "--trial-call-ms=300"]) == 1
    told = capsys.readouterr().err
    assert WORDS in told
    assert len(told.splitlines()) == 1
    bundle = write_bundle(tmp_path / "m", loop.config(), {}, graph=loop.model)
    with pytest.raises(StartError, match=WORDS):
        load_engine(bundle, "cpu", 4, trial_call_ms=300)
    listen = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    assert run_here(["serve", str(tmp_path / "m"), "--trial-call-ms=300", *listen]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"cellkeeper-server: {tmp_path / 'm' / 'model.onnx'}: {WORDS}")
    assert time.monotonic() - started < 60


def test_a_loop_that_depends_on_the_input(tmp_path: Path) -> None:
    """It ends for zeros, with which a declaration is tried, but not for what clients may send: refused unrun."""
    loop = graph(endless(turns="as many as |x| says"), layout="step")
    words = "its number of iterations, count, depends on values that clients send"
    refused(tmp_path, words, import_onnx, loop.model, tmp_path / "m", trial_call_ms=300, max_batch=4, report=str)
