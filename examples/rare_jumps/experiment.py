"""Trains every variant with every seed, and the two-part model with the state carried; serves the latter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from examples.command import side_by_side

from .ensemble import Ensemble
from .measure import Figures, carried, decided, judged, windowed
from .plot import plot
from .series import JUMP, Series, draw_series
from .serving import save, serve
from .training import train
from .variants import TWO_PARTS, VARIANTS

SEEDS = (1, 2, 3)
TEST = (0, 400, 24)  # seed, steps, streams
SERVED_STREAMS = 4


class Job(NamedTuple):
    seed: int
    carry: bool


class Run(NamedTuple):
    """The results of one run. windowed: of each variant. decided, carried: of the two-part model, the last variant."""

    model: Ensemble
    windowed: list[Figures]
    decided: dict[str, Figures]
    carried: Figures


def run(job: Job) -> Run:
    variants = (TWO_PARTS,) if job.carry else VARIANTS
    model, test = train(variants, job.seed, job.carry), draw_series(*TEST)
    outputs = windowed(model, test)
    in_a_stream = judged(variants, carried(model, test), test.target)[-1]
    print(f"seed {job.seed}, {len(variants)} trained, state {'carried' if job.carry else 'zero'}", flush=True)
    return Run(model, judged(variants, outputs, test.target), decided(outputs[-1], test.target), in_a_stream)


def experiment(out: Path) -> dict[str, Any]:
    jobs = [Job(seed, carry) for carry in (False, True) for seed in SEEDS]
    runs = dict(zip(jobs, side_by_side(run, jobs), strict=True))
    test = draw_series(*TEST)
    chosen = runs[Job(SEEDS[0], True)].model
    save(chosen, out / "bundle")
    some = Series(test.features[:, :SERVED_STREAMS], test.target[:, :SERVED_STREAMS])
    served, shown = serve(chosen, out / "bundle", some)
    results: dict[str, Any] = {
        "jumps": int((test.target >= JUMP).sum()),
        "values": int(test.target.size),
        "largest ordinary": float(test.target[test.target < JUMP].max()),
        "variants": [
            {**variant._asdict(), "runs": [runs[Job(seed, False)].windowed[i] for seed in SEEDS]}
            for i, variant in enumerate(VARIANTS)
        ],
        "decisions": {
            name: [runs[Job(seed, False)].decided[name] for seed in SEEDS]
            for name in runs[Job(SEEDS[0], False)].decided
        },
        "memory": {
            f"{'carried' if carry else 'zero'} state": {
                "windowed": [runs[Job(seed, carry)].windowed[-1] for seed in SEEDS],
                "carried": [runs[Job(seed, carry)].carried for seed in SEEDS],
            }
            for carry in (False, True)
        },
        "served": served,
        "shown": shown.tolist(),
    }
    plot(out / "rare_jumps.png", results)
    return results
