"""`make bench-gpu-frames`: its arithmetic, and a short run on the CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.gpu_frames import ENGINE, main, table
from bench.latencies import counted

LATENCIES = counted([0.002] * 1000)


def result(contender: str, rate: float, **more: float) -> dict[str, Any]:
    about: dict[str, Any] = {"model": "2x128", "precision": "fp32", "device": "cuda:0 A GPU", "contender": contender}
    return about | {"steps_per_second": rate, "p50_ms": 1000 / rate, "latencies": LATENCIES} | more


def test_shares_are_of_the_same_round() -> None:
    rounds = []
    # The ratio of the medians would be 200 / 1000; per round it is 0.5, 0.02 and 0.5.
    for alone, served in ((100.0, 50.0), (10_000.0, 200.0), (1000.0, 500.0)):
        rounds += [result(ENGINE, alone), result("frames, memory", served, server_cpu_us_per_step=served / 10)]
    assert table(rounds).splitlines()[2:] == [
        "| 2x128 | fp32 | cuda:0 A GPU | engine alone | 1,000 | 1.000 | 2.002 |  | 1.00 |",
        "| 2x128 | fp32 | cuda:0 A GPU | frames, memory | 200 | 5.000 | 2.002 | 20.0 | 0.50 |",
    ]


def test_a_run_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "out" / "frames.json"
    words = ["--device", "cpu", "--models", "1x64", "--items", "4", "--rounds", "1", "--seconds", "0.2"]
    monkeypatch.setattr(sys, "argv", ["gpu_frames", *words, "--json", str(report)])
    main()
    found = json.loads(report.read_text())
    assert (found["flows"], found["items"]) == (2, 4)
    assert [one["contender"] for one in found["rounds"]] == [ENGINE, "frames, memory", "frames, SQLite"]
    for one in found["rounds"]:
        assert one["device"] == "cpu"
        assert one["steps_per_second"] > 0
        assert sum(one["latencies"].values()) > 0
        assert (one.get("server_cpu_us_per_step", 0.0) > 0) == (one["contender"] != ENGINE)
    assert len(capsys.readouterr().out.splitlines()) == 5
