"""Trains one model for each seed, reads held-out text in right and wrong ways, and streams it through a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from examples.command import side_by_side

from .mistakes import COUNTED, WAYS, measure
from .model import WordModel, save
from .plot import plot
from .serving import represent
from .training import ROWS, WINDOW, train
from .words import load_words, rows, write_names

SEEDS = (1, 2)
WINDOWS = 2


class Run(NamedTuple):
    model: WordModel
    losses: list[float]


def run(seed: int) -> Run:
    """Trains one model and measures the loss of every way."""
    words = load_words()
    model, ids = train(words.train, seed), rows(words.held_out, ROWS)[: WINDOWS * WINDOW + 1]
    losses = []
    for way in WAYS:
        losses.append(measure(model, ids, way, seed))
        print(f"seed {seed}, {way.shape}, {way.name}: {losses[-1]:.3f}", flush=True)
    return Run(model, losses)


def experiment(out: Path) -> dict[str, Any]:
    runs = side_by_side(run, SEEDS)
    words = load_words()
    ids = rows(words.held_out, ROWS)[: WINDOWS * WINDOW + 1]
    save(runs[0].model, out / "bundle")
    write_names(out, words.names)
    first_row, comparison = represent(runs[0].model, out / "bundle", ids, COUNTED)
    results: dict[str, Any] = {
        "words": ids[1:, COUNTED].numel(),
        "ways": [
            {"name": way.name, "shape": way.shape, "loss": [run.losses[i] for run in runs]}
            for i, way in enumerate(WAYS)
        ],
        "streamed": comparison,
    }
    shown = slice(WINDOW, 2 * WINDOW)  # the first window is half a heading's underline
    names = [words.names[word] for word in ids[shown, 0].tolist()]
    plot(out / "token_representations.png", results, names, first_row.h[shown])
    return results
