"""A short run under faults for each store, with a fresh seed; and a tampered store, which must be detected."""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.store.redis.keys import redis_key
from cellkeeper_service.store.redis.layout import (
    RUN_BYTES,
    base_body,
    checkpoint_element,
    inputs_element,
    read_elements,
)

from testing.wire_client import Position

from . import round as rounds
from . import run as runs
from .__main__ import tell
from .deployment import Deployment
from .history import History
from .report import findings
from .run import Outcome, run
from .settings import Settings
from .stores import RedisStore

pytestmark = pytest.mark.timeout(300)

FEW = Settings(6.0, 0, "", every_s=0.3, clients=2, sessions=12, singles=12, groups=2, frame_clients=1, together=16)
CUTS = frozenset({"client_cut"})
QUIET_S = 1e6  # between two faults: none
LARGE = ("official-0/", "official-1/")


def seed_of(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> int:
    seed = secrets.randbelow(1 << 32)
    with capsys.disabled():
        print(f"\n{request.node.name}: seed {seed}")
    return seed


def judged(outcome: Outcome, folder: Path) -> str:
    """Returns the violations in words, with counterexamples in `folder`; empty if there are none."""
    return findings(outcome) if tell(outcome, folder) else ""


LONG = [
    pytest.param(store, marks=pytest.mark.fire)
    for store in ("sqlite", "redis-failover", "redis-cluster", "redis-sentinel")
]


@pytest.mark.parametrize("store", ["redis", *LONG])
def test_under_fire(store: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    seed = seed_of(request, capsys)
    settings = replace(FEW, seed=seed, store=store)
    outcome = run(settings)
    assert judged(outcome, request.config.rootpath / "out") == ""
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["acknowledged_steps"] > 200
    assert line["faults_total"] > 3
    assert outcome.figures.compared_rows >= line["acknowledged_steps"]
    assert outcome.figures.compared_states > 20


def test_a_full_history_is_judged_and_another_round_begins(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has other sessions, its counts are added to the first round's, and the first history is dropped."""
    seed = seed_of(request, capsys)
    counted: list[tuple[int, int, set[str]]] = []
    histories: list[weakref.ref[History]] = []

    async def note(deployment: Deployment, history: History) -> None:
        gc.collect()
        assert [each() for each in histories] == [None] * len(histories)
        histories.append(weakref.ref(history))
        counted.append((history.acknowledged_steps(), len(history.faults), set(history.models)))
        if len(counted) == 2:
            monkeypatch.setattr(runs, "SHORTEST_S", QUIET_S)  # that was the last round, whatever time is left

    monkeypatch.setattr(rounds, "MOST_BURSTS", 50)
    settings = replace(FEW, seconds=100.0, seed=seed, store="redis", every_s=0.2, expiring=0, groups=0, only=CUTS)
    outcome = run(settings, note)
    assert judged(outcome, request.config.rootpath / "out") == ""
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    (first_steps, first_faults, first_names), (last_steps, last_faults, last_names) = counted
    assert outcome.last.history is histories[1]()
    assert line["rounds"] == 2
    assert not any(name.startswith("round-") for name in first_names)
    assert all(name.startswith("round-1/") for name in last_names)
    assert min(first_steps, last_steps) > 0
    assert line["acknowledged_steps"] == first_steps + last_steps
    assert line["faults_total"] == first_faults + last_faults
    assert line["seconds"] < settings.seconds
    assert outcome.figures.compared_rows >= line["acknowledged_steps"]


def test_a_tampered_store_is_found(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Removes a step, applies one twice or flips a bit in the real store, behind the servers' backs.

    The run has no faults, so nothing explains an error that a client sees because the machine is busy.
    """
    damaged: dict[str, str] = {}

    async def tamper(deployment: Deployment, history: History) -> None:
        store = deployment.store
        if not isinstance(store, RedisStore):
            raise TypeError("this test is Redis's")
        operations = {"lose_last": lose_last, "double_last": double_last, "flip_bit": flip_bit}
        with store.primary.client() as client:
            sessions = [name for name in sorted(history.models) if name.startswith(LARGE) and "~" not in name]
            for kind, operation in operations.items():
                for name in sessions:
                    at = SessionKey("", history.models[name], name)
                    elements = client.lrange(redis_key(at), 0, -1)
                    # the record, and what its list held before its last elements
                    records = [read_elements(at, elements[:end]) for end in range(len(elements), 0, -1)]
                    last, *others = [record for record in records if isinstance(record, Record)]
                    shorter = [other for other in others if other.position.step < last.position.step]
                    if name not in damaged and shorter:
                        before = shorter[0]
                        wrong = operation(last, last.position.step - before.position.step)
                        client.delete(redis_key(at))
                        client.rpush(
                            redis_key(at),
                            checkpoint_element(wrong.checkpoint),
                            inputs_element(wrong.log),
                            b"B" + bytes(RUN_BYTES) + base_body(wrong.header.packed),
                        )
                        damaged[name] = kind
                        break
        for server in deployment.servers:  # so that they read the store, not their memory
            await asyncio.to_thread(server.kill)
            await deployment.restart(server)

    seed = seed_of(request, capsys)
    settings = replace(FEW, seconds=2.0, seed=seed, store="redis", every_s=QUIET_S, expiring=0)
    outcome = run(settings, tamper)
    assert sorted(damaged.values()) == ["double_last", "flip_bit", "lose_last"]
    findings_of_damage = [finding for finding in outcome.last.verdict.findings if finding.kind != "unexplained"]
    assert {finding.session for finding in findings_of_damage} == set(damaged)
    capsys.readouterr()
    assert tell(outcome, tmp_path) == 1
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["violations"] == len(outcome.last.verdict.findings)
    assert line["lost"] + line["gaps"] + line["mismatched"] == len(findings_of_damage)
    written = json.loads((tmp_path / f"chaos-{seed}.json").read_text())
    assert written["summary"] == line
    assert written["histories"][0]["events"]


def lose_last(record: Record, steps: int) -> Record:
    """Removes the last chunk."""
    kept = record.log[: len(record.log) - steps * record.header.step_bytes]
    return moved(record, kept)


def double_last(record: Record, steps: int) -> Record:
    """Applies the last chunk once more."""
    return moved(record, record.log + record.log[len(record.log) - steps * record.header.step_bytes :])


def flip_bit(record: Record, _: int) -> Record:
    """Flips a bit of the checkpoint's first number, in the exponent, where it shows in a sum of any size."""
    state = record.checkpoint
    return replace(record, checkpoint=bytes([*state[:3], state[3] ^ 0x40, *state[4:]]))


def moved(record: Record, log: bytes) -> Record:
    """Returns the record with another log, and the position after it."""
    header = record.header
    start = Position(header.position.generation, header.checkpoint_step, header.checkpoint_head)
    after = start.after(np.frombuffer(log, np.uint8).reshape(-1, header.step_bytes))
    position = header.position.changed(step=after.step, head=after.head)
    return replace(record, header=header.replace(position=position), log=log)
