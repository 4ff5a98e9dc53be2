"""Trains every variant with every seed, and the model in two parts with the state carried; serves that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from examples.command import side_by_side

from .ensemble import Ensemble
from .measure import carried, figures, windowed
from .plot import plot
from .series import JUMP, Series, draw_series
from .serving import answers, save, serve
from .training import train
from .variants import TWO_PARTS, VARIANTS

SEEDS = (1, 2, 3)
TEST = (0, 400, 24)  # seed, steps, streams
SERVED_STREAMS = 4


class Job(NamedTuple):
    seed: int
    carry: bool


class Run(NamedTuple):
    """windowed: figures of each variant; carried: of the model in two parts."""

    model: Ensemble
    windowed: list[dict[str, float]]
    carried: dict[str, float]


def run(job: Job) -> Run:
    variants = (TWO_PARTS,) if job.carry else VARIANTS
    model, test = train(variants, job.seed, job.carry), draw_series(*TEST)
    in_windows = [figures(each, test.target) for each in windowed(model, variants, test)]
    in_a_stream = figures(carried(model, variants, test)[-1], test.target)
    print(f"seed {job.seed}, {len(variants)} trained, state {'carried' if job.carry else 'zero'}", flush=True)
    return Run(model, in_windows, in_a_stream)


def experiment(out: Path) -> dict[str, Any]:
    jobs = [Job(seed, carry) for carry in (False, True) for seed in SEEDS]
    runs = dict(zip(jobs, side_by_side(run, jobs), strict=True))
    test = draw_series(*TEST)
    chosen = runs[Job(SEEDS[0], True)].model
    save(chosen, out / "bundle")
    some = Series(test.features[:, :SERVED_STREAMS], test.target[:, :SERVED_STREAMS])
    results: dict[str, Any] = {
        "jumps": int((test.target >= JUMP).sum()),
        "values": int(test.target.size),
        "largest ordinary": float(test.target[test.target < JUMP].max()),
        "variants": [
            {**variant._asdict(), "runs": [runs[Job(seed, False)].windowed[i] for seed in SEEDS]}
            for i, variant in enumerate(VARIANTS)
        ],
        "memory": {
            f"{'carried' if carry else 'zero'} state": {
                "windowed": [runs[Job(seed, carry)].windowed[-1] for seed in SEEDS],
                "carried": [runs[Job(seed, carry)].carried for seed in SEEDS],
            }
            for carry in (False, True)
        },
        "served": serve(chosen, out / "bundle", some),
        "shown": np.column_stack(
            [some.target[:, 0], answers(out / "bundle", Series(some.features[:, :1], some.target[:, :1]))[:, 0]]
        ).tolist(),
    }
    plot(out / "rare_jumps.png", results)
    return results
