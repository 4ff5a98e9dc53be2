"""Trains with every method and every seed, measures, serves one model and compares it with Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from examples.command import side_by_side

from .measure import CONTEXTS, by_context, carried, reset
from .model import CharacterModel, save
from .plot import plot
from .serving import compare
from .text import load_text
from .training import CARRIED, WAYS, WINDOW, Job, train

SEEDS = (1, 2, 3)


class Run(NamedTuple):
    model: CharacterModel
    figures: dict[str, Any]


def run(job: Job) -> Run:
    """Trains one model and measures it."""
    model, ids = train(job), load_text().held_out
    figures = {
        "seed": job.seed,
        "reset": reset(model, ids),
        "carried": carried(model, ids),
        "by_context": by_context(model, ids),
    }
    print(f"{job.way}, seed {job.seed}: {figures['reset']:.3f} reset, {figures['carried']:.3f} carried", flush=True)
    return Run(model, figures)


def experiment(out: Path) -> dict[str, Any]:
    keys = [(way, seed) for seed in SEEDS for way in WAYS]
    runs = dict(zip(keys, side_by_side(run, [Job(*key) for key in keys]), strict=True))
    chosen = runs[CARRIED, SEEDS[0]].model
    save(chosen, out / "bundle")
    results: dict[str, Any] = {
        "window": WINDOW,
        "contexts": CONTEXTS,
        "ways": {way: [runs[way, seed].figures for seed in SEEDS] for way in WAYS},
        "twins": compare(chosen, out / "bundle", load_text().held_out.numpy()),
    }
    plot(out / "stateful_training.png", results)
    return results
