"""Trains each objective with every seed, examines the states, and serves a collapsed model and a live one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from examples.command import side_by_side

from .cell import SteadyCell
from .measure import measure
from .objectives import INFORMATION, NAIVE, OBJECTIVES
from .plot import plot
from .serving import save, serve
from .training import Job, train

SEEDS = (1, 2, 3)
SERVED = {"collapsed": NAIVE, "steady": INFORMATION}


class Run(NamedTuple):
    cell: SteadyCell
    figures: dict[str, float]


def run(job: Job) -> Run:
    cell = train(job)
    figures = measure(cell)
    print(f"{job.objective}, seed {job.seed}: norm {figures['norm']:.3g}, read {figures['latest']:.0%}", flush=True)
    return Run(cell, figures)


def experiment(out: Path) -> dict[str, Any]:
    keys = [(objective, seed) for objective in OBJECTIVES for seed in SEEDS]
    runs = dict(zip(keys, side_by_side(run, [Job(*key) for key in keys]), strict=True))
    bundles = {name: out / f"bundle_{name}" for name in SERVED}
    for name, objective in SERVED.items():
        save(runs[objective, SEEDS[0]].cell, name, bundles[name])
    results: dict[str, Any] = {
        "objectives": {name: [runs[name, seed].figures for seed in SEEDS] for name in OBJECTIVES},
        "served": serve(bundles),
    }
    plot(out / "steady_state.png", results)
    return results
