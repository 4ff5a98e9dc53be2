"""Compares what a bundle serves with what the model gave where it came from, on random sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.exactness import TRIAL_CALL_MS
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.model.bundle import Bundle

from .stack import Array

SEQUENCES = 4
STEPS = 32
TOLERANCE = 1e-4  # relative; float32 sums in another order differ by a few 1e-7
MAX_BATCH = 256  # the server's default, so that the verdict on exactness is the server's


class Source(Protocol):
    """The model where it came from. Each call is one new sequence: inputs [T, ...] -> by name, outputs [T, ...].

    A time step of which it does not know the outputs is NaN throughout, and is not compared.
    """

    name: str  # "torch 2.13.0"

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        """The whole sequence in one call."""

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        """One time step at a time, the state carried by hand."""


@dataclass(frozen=True)
class Parity:
    """The largest differences, over whole sequences and over steps, and the verdict on exactness.

    difference: absolute. relative: of each output to its largest absolute value in that sequence. exact: the served
    stream has the same bits for every batch and chunking; where not, spread is the largest relative difference seen.
    """

    source: str
    sequences: int
    steps: int
    difference: float
    relative: float
    exact: bool
    spread: float
    engine: str
    numerics: str

    def __str__(self) -> str:
        served = "exact" if self.exact else f"not exact, differs by up to {self.spread:.1e} with its company"
        return (
            f"parity with {self.source}: largest difference {self.difference:.2e} (relative {self.relative:.2e}), "
            f"{self.sequences} random sequences of {self.steps} steps, whole and step by step\n"
            f"served stream: {served} ({self.numerics})"
        )


def compare(
    bundle: Bundle,
    source: Source,
    sequences: Sequence[Array],
    max_batch: int = MAX_BATCH,
    trial_call_ms: int = TRIAL_CALL_MS,
) -> Parity:
    """Runs every sequence [T, ...] four ways: whole and by steps, there and as it would be served."""
    engine = load_engine(bundle, "cpu", max_batch, trial_call_ms=trial_call_ms)
    difference = relative = 0.0
    for inputs in sequences:
        pairs = [
            (offline(engine, inputs), source.whole(inputs)),
            (_stepped(engine, inputs), source.stepped(inputs)),
        ]
        for served, expected in pairs:
            for name, values in expected.items():
                gap, share = _gap(served[name], np.asarray(values, np.float64))
                difference, relative = max(difference, gap), max(relative, share)
    return Parity(
        source=source.name,
        sequences=len(sequences),
        steps=max(len(inputs) for inputs in sequences),
        difference=difference,
        relative=relative,
        exact=engine.exact,
        spread=engine.tolerance,
        engine=engine.name,
        numerics=engine.numerics,
    )


def _gap(served: Array, expected: Array) -> tuple[float, float]:
    """The largest difference, absolute and relative; both [T, ...]. Infinity where nothing can be compared."""
    known = ~np.isnan(expected).all(axis=tuple(range(1, expected.ndim)))
    if served.shape != expected.shape or not known.any():
        return float("inf"), float("inf")
    gap = float(np.abs(served[known].astype(np.float64) - expected[known]).max(initial=0.0))
    if not np.isfinite(gap):
        return float("inf"), float("inf")
    return gap, gap / max(float(np.abs(expected[known]).max()), 1e-30) if gap else 0.0


def _stepped(engine: Engine, inputs: Array) -> dict[str, Array]:
    """The outputs [T, ...] of one session that takes one time step after another."""
    wanted = frozenset(output.name for output in engine.spec.outputs)
    row = np.zeros(1, np.intp)
    engine.reserve(1)
    engine.write_states(row, np.frombuffer(engine.initial_state, np.uint8)[None])
    parts: dict[str, list[Array]] = {name: [] for name in wanted}
    for x in np.asarray(inputs, engine.spec.input.dtype):
        computed = engine.run(x[None, None], row, row, wanted)
        for name, values in parts.items():
            values.append(computed.outputs[name][:, 0])
    engine.reserve(0)
    return {name: np.concatenate(values) for name, values in parts.items()}
