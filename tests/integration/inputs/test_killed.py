"""Servers are killed under sessions and groups of a model with several inputs and a counter as a state.

The outputs are those of an offline run, and every step counts once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cellkeeper import Backoff, Client
from cellkeeper_service.engine.load import offline

from testing.forked_server import ForkedServer
from testing.two_inputs import part, random_steps

STEPS = 30
QUICK = Backoff(first_seconds=0.005, max_seconds=0.05)
OPTIONS = ("--max-replay-steps", "4", "--arena-mib", "1")


def test_chunks_streams_and_groups_over_kills(two_inputs: Path, tmp_path: Path) -> None:
    ids = [f"pump-{number}" for number in range(5)]
    inputs = {name: random_steps(STEPS, seed) for seed, name in enumerate([*ids, "alone"])}
    with (
        ForkedServer([two_inputs], f"sqlite:{tmp_path / 'sessions.db'}", OPTIONS) as server,
        Client(server.target, timeout=60, attempt_timeout=2, backoff=QUICK) as client,
    ):
        group, alone = client.group(ids), client.session("alone")
        rows, chunks = [], []
        for step in range(STEPS):
            if step in (10, 20):
                server.kill()
                server.restart()
            rows.append(group.step([part(inputs[name], step) for name in ids]))
            if step % 5 == 0:
                chunks.append(alone.step(part(inputs["alone"], slice(step, step + 5))))
        server.kill()
        server.restart()
        states = group.state()
        assert [position.step for position in group.positions.values()] == [STEPS] * len(ids)
        np.testing.assert_array_equal(states["n"], np.full((len(ids), 1), STEPS), strict=True)
        assert alone.state()["n"].tolist() == [STEPS]
    for number, name in enumerate(ids):
        run = offline(two_inputs, inputs[name])
        np.testing.assert_array_equal(np.stack([row[number] for row in rows]), run["prediction"], strict=True)
        np.testing.assert_array_equal(states["h"][number], run["state.h"], strict=True)
    alone_run = offline(two_inputs, inputs["alone"])["prediction"]
    np.testing.assert_array_equal(np.concatenate(chunks), alone_run, strict=True)
