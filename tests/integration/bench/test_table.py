"""The table of `make bench`: what is compared with what, and what it must not hide."""

from __future__ import annotations

from typing import Any

from bench.case import Case
from bench.latencies import counted
from bench.load import Load
from bench.plan import Selection, plan
from bench.table import HEADS, PEERS, table


def figures(rate: float, **more: Any) -> dict[str, Any]:
    latencies = counted([0.001] * 50)
    return {"steps_per_second": rate, "messages": 50, "p50_ms": 1.0, "latencies": latencies, "late": 0} | {
        "beside_steps_per_second": 0.0,
        **more,
    }


def cells(cases: list[Case], rounds: dict[str, list[dict[str, Any]]], of: Case) -> dict[str, str]:
    head, _, *rows = table(cases, rounds).splitlines()
    (row,) = [row for row in rows if row.startswith(f"| {of.scenario} | {of.load.model} | {of.contender} |")]
    names, values = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (head, row))
    assert len(names) == len(values)
    return dict(zip(names, values, strict=True))


OURS = Case("client 64", "cellkeeper redis", Load("client", "2x128", flows=64))
UNARY, STREAM = (Case("client 64", f"triton {way}", Load("client", "2x128", flows=64)) for way in ("unary", "stream"))


def test_a_round_that_failed_counts_for_no_ratio_and_is_told() -> None:
    rounds = {
        OURS.key: [figures(300.0), {"error": "it broke"}, figures(300.0)],
        UNARY.key: [figures(100.0), figures(100.0), figures(50.0)],
        STREAM.key: [figures(60.0), figures(60.0), {"error": "it broke"}],
    }
    row = cells([OURS, UNARY, STREAM], rounds, OURS)
    assert (row["steps/s"], row["of Triton"], row["notes"]) == ("300", "4.50", "1 of 3 rounds failed")
    assert cells([OURS, UNARY, STREAM], rounds, STREAM)["notes"] == "1 of 3 rounds failed"


def test_late_answers_of_an_open_loop_are_told() -> None:
    case = Case("open 1000/s", "cellkeeper redis", Load("client", "2x128", flows=256, rate=1000.0))
    row = cells([case], {case.key: [figures(300.0, late=2), figures(300.0, late=1)]}, case)
    assert row["notes"] == "3 of 100 messages late"


def test_percentiles_of_too_few_messages_are_absent() -> None:
    row = cells([OURS], {OURS.key: [figures(300.0)]}, OURS)
    assert (row["p50 ms"], row["p99 ms"], row["p99.9 ms"]) == ("1.00", "", "")


def test_a_load_that_always_failed_has_a_whole_row() -> None:
    row = cells([OURS], {OURS.key: [{"error": "a"}]}, OURS)
    assert (row["sessions"], row["steps/s"]) == ("64", "failed")
    assert set(HEADS) < row.keys()


def test_peers_are_compared_at_as_many_sessions() -> None:
    """Two flows of frames of 256 have 512 sessions in flight, and so have the peers that they are compared with."""
    cases = plan(Selection(("frames", "group"), ("redis",), ("triton", "naive"), ("2x128",), (64, 256)))
    peers = {name for names in PEERS.values() for name in names}
    ours = [case for case in cases if case.contender not in peers]
    for case in ours:
        rounds = {
            other.key: [figures(100.0)] for other in cases if other.load.sessions_at_once == case.load.sessions_at_once
        }
        assert cells([case], rounds, case)["of Triton"] == "1.00", case.key
    assert {case.load.sessions_at_once for case in ours} == {64, 128, 256, 512}
