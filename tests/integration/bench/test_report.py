"""The pictures of `python -m bench.report`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.case import Case
from bench.plan import Selection, plan

pytest.importorskip("matplotlib")

from bench import report


def pictures(cases: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    (folder / "bench.json").write_text(json.dumps({"cases": cases}))
    monkeypatch.setattr(sys, "argv", ["report", str(folder / "bench.json"), "--out", str(folder / "img")])
    report.main()
    return {path.name for path in (folder / "img").iterdir()}


def result(case: Case, **figure: float) -> dict[str, Any]:
    return asdict(case) | {"rounds": [figure]}


def test_an_open_loop_is_drawn_with_its_latency_and_a_closed_one_with_its_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Selection(groups=("client", "open"), stores=("redis",), models=("2x128",), sizes=(256,))
    cases = plan(chosen)
    results = [result(case, p50_ms=1.5) for case in cases if case.scenario == "open 1000/s"]
    results += [result(case, steps_per_second=1000.0) for case in cases if case.scenario == "client 256"]
    assert pictures(results, tmp_path, monkeypatch) == {"bench-client-256-2x128.png", "bench-open-1000-s-2x128.png"}


def test_results_of_open_loops_from_before_their_load_had_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = json.loads(Path("bench/results/bench.json").read_text())["cases"]
    results = [case | {"rounds": [{"p50_ms": 1.5}]} for case in committed if case["scenario"] == "open 50%"]
    assert pictures(results, tmp_path, monkeypatch) == {"bench-open-50-2x128.png"}
