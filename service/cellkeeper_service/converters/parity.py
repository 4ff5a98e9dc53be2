"""Compares what a bundle serves with what its source model computes, on random sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellkeeper_service.engine.exactness import TRIAL_CALL_MS
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.user_graph import UserGraphEngine
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import Features

from .proof import (
    ORDINARY,
    SMALL_SHARE,
    STEPPED,
    WITH_MISSING,
    Drawn,
    Source,
    Special,
    Trial,
    cause,
    is_nan,
    measure,
    run_whole,
    served_ways,
    small,
    trials,
)
from .stack import Array

MISSING_SHARE = 0.2
TOLERANCE = 1e-4  # relative; sums of float32 in another order differ by a few 1e-7
MAX_BATCH = 256  # the server's default, so that the verdict on exactness holds there
_ROUNDED = (
    "inputs are float32, which rounds a feature by up to {:.1e} of its scale, so outputs differ from those for "
    "float64; subtract what all values have in common (such as the year of a time) before they are sent, and from the "
    "offset"
)


@dataclass(frozen=True)
class Parity:
    """The largest differences over all lengths and sizes of proof.py, and the verdict on exactness.

    difference: absolute, for ordinary inputs.
    relative: of each output to its largest absolute value in the sequence, for ordinary inputs.
    relative_scaled: the same for inputs of the other sizes.
    where: the inputs and the step at which the tolerance is first exceeded, with the possible cause; else "".
    exact: the served stream has the same bits for every batch and chunking.
    spread: the largest relative difference seen between batches and chunkings, if not exact.
    rows_proved: an ONNX graph's operators show that the sessions of a batch are independent, so this does not rest on
    trials alone. None for layers, and if no call takes several sessions.
    shared_condition: the graph's node whose condition several sessions decide; "" if none does.
    resolution: how much of an ordinary input the rounding of raw inputs to float32 may change.
    """

    source: str
    sequences: int
    steps: int
    difference: float
    relative: float
    relative_scaled: float
    where: str
    exact: bool
    spread: float
    engine: str
    numerics: str
    rows_proved: bool | None
    shared_condition: str = ""
    resolution: float = 0.0

    def __str__(self) -> str:
        served = "exact" if self.exact else f"not exact, differs by up to {self.spread:.1e} beside other sessions"
        rows = {
            None: "",
            True: "\nsessions of a batch: independent, by the graph's operators and by trials",
            False: "\nsessions of a batch: independent in all trials; some operators of the graph do not prove it",
        }[self.rows_proved]
        rounded = f"\n{_ROUNDED.format(self.resolution)}" if self.resolution > TOLERANCE else ""
        return (
            f"parity with {self.source}: largest difference {self.difference:.2e} (relative {self.relative:.2e}; "
            f"{self.relative_scaled:.2e} for inputs up to 1,000 times as large, tiny and zero), {self.sequences} "
            f"random sequences of up to {self.steps} steps, whole, step by step and in chunks\n"
            f"served stream: {served} ({self.numerics}){rows}{rounded}"
        )


def compare(
    bundle: Bundle,
    source: Source,
    drawn: Drawn,
    max_batch: int = MAX_BATCH,
    trial_call_ms: int = TRIAL_CALL_MS,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Runs every trial of proof.py in the source and as served, and compares them.

    Small inputs are compared no more finely than `drawn.resolution`.
    """
    resolution = drawn.resolution
    drawn = replace(drawn, special=[*drawn.special, *_with_missing(bundle, source, drawn.sequences)])
    engine = load_engine(bundle, "cpu", max_batch, trial_call_ms=trial_call_ms)
    difference = relative = relative_scaled = 0.0
    where = ""
    failed: tuple[Trial, float] | None = None
    tried = trials(drawn, source.windowed)
    originals = run_whole(source, [trial.inputs for trial in tried])
    least = small(tried, originals)
    least_of_tiny = small(tried, originals, max(SMALL_SHARE, resolution / tolerance))
    for length in sorted({trial.length for trial in tried}):
        mine = [at for at, trial in enumerate(tried) if trial.length == length]
        for way, results in served_ways(engine, [tried[at].inputs for at in mine]):
            for at, served in zip(mine, results, strict=True):
                for name, expected in originals[at].items():
                    if tried[at].what != ORDINARY and is_nan(expected) and is_nan(served[name]):
                        continue  # both overflow, or have no value for inputs of this size
                    floor = least_of_tiny[name] if tried[at].scale < 1 else least[name]
                    gap = measure(served[name], expected, tolerance, floor)
                    if tried[at].what == ORDINARY:
                        difference, relative = max(difference, gap.absolute), max(relative, gap.relative)
                    else:
                        relative_scaled = max(relative_scaled, gap.relative)
                    if not where and not gap.relative <= tolerance:
                        where = f"for {tried[at].what}, {length} time steps, {way}, from step {gap.step} on"
                        failed = tried[at], gap.relative
    inputs = next(trial.inputs for trial in tried if trial.length == STEPPED)
    stepped = source.stepped(inputs)
    (way, (served,)), *_ = served_ways(engine, [inputs])
    for name, expected in stepped.items():
        gap = measure(served[name], np.asarray(expected), tolerance, least[name])
        difference, relative = max(difference, gap.absolute), max(relative, gap.relative)
        if not where and not gap.relative <= tolerance:
            where = f"for ordinary inputs, {STEPPED} time steps of the source one by one, from step {gap.step} on"
    proved = engine.rows_proved if isinstance(engine, UserGraphEngine) and not engine.one_session_a_call else None
    if where:
        rounded = f"; {_ROUNDED.format(resolution)}" if resolution > tolerance else ""
        where += rounded or cause(source, tried, originals, tolerance, failed)
    return Parity(
        source=source.name,
        sequences=len(tried),
        steps=max(trial.length for trial in tried),
        difference=difference,
        relative=relative,
        relative_scaled=relative_scaled,
        where=where,
        exact=engine.exact,
        spread=engine.tolerance,
        engine=engine.name,
        numerics=engine.numerics,
        rows_proved=proved,
        shared_condition=engine.shared_condition,
        resolution=resolution,
    )


def _with_missing(bundle: Bundle, source: Source, sequences: Sequence[Array]) -> Special:
    """Returns a sequence with missing values, if both the bundle and the source turn them into numbers.

    A source that returns NaN leaves them to the bundle's policy.
    """
    taken = bundle.config.input
    if not isinstance(taken, Features) or taken.missing.policy == "reject":
        return []
    inputs = sequences[0].copy()
    inputs[np.random.default_rng(0).random(inputs.shape) < MISSING_SHARE] = np.nan
    outputs = source.whole(inputs).values()
    answered = [~np.isnan(np.asarray(value)).all(axis=tuple(range(1, np.ndim(value)))) for value in outputs]
    finite = all(np.isfinite(np.asarray(value)[rows]).all() for value, rows in zip(outputs, answered, strict=True))
    return [(WITH_MISSING, inputs)] if finite and all(rows.any() for rows in answered) else []
