"""`make bench-against`: its arithmetic, and that each side runs the code of its own commit."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.against import WARM_SECONDS, contender, differences, loads, main, others_of, parse
from bench.checkout import ROOT, Checkout, CheckoutError, earlier, this_checkout
from bench.comparison import Pair, order, table
from bench.cores import cpu_seconds
from bench.latencies import counted
from bench.machine import interpreter
from bench.side import Side
from bench.weights import write_model

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="these files are not a git checkout")


def figures(rate: float, p50_ms: float, server_us: float) -> dict[str, object]:
    cpu = {"server": server_us, "client": 10.0}
    latencies = counted([p50_ms / 1000] * 900 + [2 * p50_ms / 1000] * 100)
    return {"steps_per_second": rate, "p50_ms": p50_ms, "latencies": latencies, "cpu_us_per_step": cpu}


def test_medians_are_of_rounds_and_ratios_of_the_same_round() -> None:
    pair = Pair("memory", "client 1")
    # The ratio of the medians would be 200 / 1000; per round it is 2, 0.2 and 2.
    for earlier_rate, this_rate in ((100.0, 200.0), (1000.0, 200.0), (5000.0, 10000.0)):
        pair.rounds["earlier"].append(figures(earlier_rate, 4.0, 50.0))
        pair.rounds["this"].append(figures(this_rate, 1.0, 60.0))
    summary = pair.json()["summary"]
    rates = summary["steps_per_second"]
    assert rates == {"earlier": 1000.0, "this": 200.0, "ratio": 2.0, "ratios": [2.0, 0.2, 2.0]}
    assert summary["p99_ms"]["ratio"] == pytest.approx(0.25, rel=0.02)
    assert summary["server_cpu_us_per_step"]["ratio"] == 1.2
    assert "redis_cpu_us_per_step" not in summary  # the store has no process
    row = table([pair]).splitlines()[-1]
    assert row == (
        "| memory | client 1 | 1,000 → 200.0 (2.00) | 0.20 to 2.00 | 4.00 → 1.00 (0.25) | 8.06 → 2.00 (0.25) "
        "| 50.0 → 60.0 (1.20) | 10.0 → 10.0 (1.00) |  |"
    )


def test_a_round_that_failed_on_one_side_counts_for_neither() -> None:
    pair = Pair("memory", "client 1")
    pair.rounds["earlier"] += [figures(100.0, 4.0, 50.0), figures(900.0, 4.0, 50.0)]
    pair.rounds["this"] += [figures(300.0, 4.0, 50.0), {"error": "it broke"}]
    rates = pair.json()["summary"]["steps_per_second"]
    assert rates == {"earlier": 100.0, "this": 300.0, "ratio": 3.0, "ratios": [3.0]}
    assert pair.errors == ["this: it broke"]


def test_a_load_that_always_failed_has_no_figures() -> None:
    pair = Pair("memory", "client 1", {"earlier": [{"error": "a"}], "this": [{"error": "b"}]})
    assert table([pair]).splitlines()[-1].startswith("| memory | client 1 | failed |")
    assert pair.json()["summary"] == {}


def test_the_sides_take_turns() -> None:
    a, b = order(0, 0)
    assert {a, b} == {"earlier", "this"}
    assert [order(0, load) for load in range(3)] == [(a, b), (b, a), (a, b)]
    assert [order(number, 0) for number in range(3)] == [(a, b), (b, a), (a, b)]


def test_loads_through_kserves_protocol_are_sent_by_tritons_client() -> None:
    assert {name: contender(name) for name in ("client 64", "kserve stream 64", "kserve unary 64")} == {
        "client 64": "cellkeeper",
        "kserve stream 64": "kserve stream",
        "kserve unary 64": "kserve unary",
    }
    assert {contender(name) for name in parse(["HEAD"]).loads} == {"cellkeeper"}  # the others run only on request


def test_loads_through_kserves_protocol_need_tritons_client(tmp_path: Path) -> None:
    assert others_of(["client 1"], "1x64", tmp_path) == ({}, [])
    with pytest.raises(CheckoutError, match=r"--loads: kserve needs Triton's client: no virtual environment in "):
        others_of(["client 1", "kserve unary 64"], "1x64", tmp_path)


def test_cpu_time_of_a_process() -> None:
    before = time.process_time()
    spent = cpu_seconds(os.getpid())
    assert before <= spent <= time.process_time()


def test_installed_packages_are_not_taken_for_those_of_a_commit(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match=r"elsewhere: .* comes from .*, expected a folder of "):
        Checkout("elsewhere", tmp_path).check()
    this_checkout().check()


@needs_git
def test_a_commit_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match=r"REV: got 'no-such-commit', expected a commit"):
        earlier("no-such-commit", tmp_path)


@needs_git
def test_a_short_run_against_the_last_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "against.json"
    few = ["--stores", "redis", "--loads", "client 1,frames 256", "--model", "1x64"]
    assert main(["HEAD", *few, "--rounds", "1", "--seconds", "0.3", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["this"].removesuffix("+") == result["earlier"]
    assert [(pair["store"], pair["load"]) for pair in result["pairs"]] == [
        ("redis", "client 1"),
        ("redis", "frames 256"),
    ]
    for pair in result["pairs"]:
        for side in ("earlier", "this"):
            (one,) = pair["rounds"][side]
            assert one["steps_per_second"] > 0
            assert sum(one["latencies"].values()) == one["messages"]
            assert sorted(one["cpu_us_per_step"]) == ["client", "redis", "server"]
            assert all(value > 0 for value in one["cpu_us_per_step"].values())
    printed = capsys.readouterr().out
    assert printed == out.with_suffix(".md").read_text()
    assert "| redis | frames 256 |" in printed


def test_one_side_with_another_interpreter_and_environment(tmp_path: Path) -> None:
    """The interpreter is a script that notes what it is asked to run, and the variable that only this side has."""
    python, started = tmp_path / "python", tmp_path / "started"
    python.write_text(f'#!/bin/sh\necho "$ONLY_HERE $1 $2" >>{started}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    options = parse(["HEAD", "--python", str(python), "--set", "ONLY_HERE=here"])
    here = this_checkout(options.python, dict(options.set))
    here.check()
    with ExitStack() as running:
        side = Side(here, "memory", write_model(tmp_path, "1x64"), tmp_path, running)
        assert "error" not in side.measure(loads("1x64")["client 1"], WARM_SECONDS)
    programs = [line for line in started.read_text().splitlines() if line.startswith("here -m ")]
    assert programs == ["here -m cellkeeper_service", "here -m bench.worker"]
    assert differences(here) == [f"this side's python: {interpreter(str(python))}", "this side's ONLY_HERE: here"]
    assert differences(this_checkout()) == []


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match=r"nowhere cannot be started: No such file or directory"):
        this_checkout(str(tmp_path / "nowhere")).check()


def test_a_variable_without_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["HEAD", "--set", "ONLY_HERE"])
    assert "argument --set: got 'ONLY_HERE', expected NAME=VALUE" in capsys.readouterr().err


@needs_git
def test_a_commit_that_cannot_read_the_bundle_serves_one_of_its_own(tmp_path: Path) -> None:
    """As if the format of bundles had changed in between."""
    newer = tmp_path / "1x64"
    newer.mkdir()
    (newer / "config.json").write_text('{"format": "cellkeeper-bundle/99"}')
    with ExitStack() as running:
        commit = earlier("HEAD", tmp_path)
        folder = tmp_path / "own"
        folder.mkdir()
        side = Side(commit, "memory", newer, folder, running)
        assert "error" not in side.measure(loads("1x64")["client 1"], WARM_SECONDS)
    assert side.note.startswith(f"{commit.name} serves a bundle that its own bench wrote")
    assert "cellkeeper-bundle/99" in side.note
