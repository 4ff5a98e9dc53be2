"""The proof at import: compares the source model with the engine that will serve it.

The source runs whole sequences; the engine runs them step by step, in chunks and whole, beside sequences of other
sizes. The inputs have the lengths of LENGTHS and the sizes of SIZES. Further trials have ordinary inputs with some time
steps of zero, with values that the model compares with (drawn.py), and, if the source may treat it differently, one
long sequence. Batches also contain a sequence a million times as large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.load import advanced
from cellkeeper_service.engine.trial_sequences import scaled as times_scale

from .stack import Array

LENGTHS = (1, 2, 7, 32, 200)
ORDINARY = "ordinary inputs"
SIZES = (
    (ORDINARY, 1.0),
    ("inputs 10 times as large", 10.0),
    ("inputs 1,000 times as large", 1e3),
    ("inputs of a millionth of the size", 1e-6),
    ("inputs of zero", 0.0),
)
WITH_SPECIAL = "ordinary inputs with zeros and the values that the model compares with"
WITH_MISSING = "ordinary inputs with missing values, which the original fills itself"
WITH_ZEROS, ZERO_EVERY_STEPS = "ordinary inputs with time steps of zero", 7  # a model may skip such time steps
SEQUENCES, STEPS = len(SIZES) + 1, LENGTHS[-1]  # for `trials`: one sequence for each size, and one that gets zeros
STEPPED = 32  # time steps that the source takes one by one; one of LENGTHS
COMPANY = 1e6
SURE_STEPS = 7  # rounding errors do not grow to the tolerance within these
SURE_ROUNDING = 4.0  # differences up to this many times what rounding of the inputs changes are rounding
SMALL_SHARE = 1e-2  # outputs below this share of ordinary outputs are compared relative to it
Scaled = Callable[[Array, float], Array | None]
Special = Sequence[tuple[str, Array]]


class Source(Protocol):
    """The model in its own framework. Each call runs one new sequence: inputs [T, ...] -> outputs [T, ...] by name.

    A time step whose outputs the source does not know is NaN throughout, and is not compared.
    """

    name: str  # "torch 2.13.0"
    windowed: bool  # takes whole sequences, and may treat long ones differently: cut them, or reset the state within

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        """Runs the whole sequence in one call."""

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        """Runs one time step at a time, passing the state from call to call."""


@runtime_checkable
class BatchSource(Protocol):
    """A Source whose framework computes the rows of a batch independently of each other."""

    def batch(self, sequences: Sequence[Array]) -> list[Mapping[str, Array]]:
        """Runs new sequences of one length in one call. Returns the outputs of each."""


def times(inputs: Array, scale: float) -> Array | None:
    """Returns the inputs times a number; None if it is not 1 and no input is a float (token ids have no size)."""
    return inputs if scale == 1.0 else times_scale(inputs, scale)


@dataclass(frozen=True)
class Drawn:
    """The inputs of the comparison.

    sequences: SEQUENCES ordinary inputs [STEPS, ...].
    scaled: returns inputs in another size; None if they have no other size.
    special: further sequences [STEPS, ...], with values that the model may treat in a special way, and what to call
    them.
    resolution: how much of an ordinary input the rounding of raw inputs to float32 may change.
    """

    sequences: Sequence[Array]
    scaled: Scaled = times
    special: Special = ()
    resolution: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One trial. what: describes the inputs. scale: their size relative to ordinary ones. inputs: [length, ...]."""

    what: str
    scale: float
    length: int
    inputs: Array


@dataclass(frozen=True)
class Gap:
    """The largest differences of one output, and the first time step at which they exceed the tolerance."""

    absolute: float
    relative: float
    step: int


def trials(drawn: Drawn, windowed: bool = False) -> list[Trial]:
    """Returns trials of each length and size. windowed: as in Source; adds one with all sequences joined."""
    sequences, scaled = drawn.sequences, drawn.scaled
    made = []
    for (what, scale), whole in zip(SIZES, sequences, strict=False):
        inputs = scaled(whole, scale)
        if inputs is not None:
            made += [Trial(what, scale, length, inputs[:length]) for length in LENGTHS]
    zeros = scaled(sequences[-1], 0.0)
    if zeros is not None:
        inputs = sequences[-1].copy()
        inputs[ZERO_EVERY_STEPS - 1 :: ZERO_EVERY_STEPS] = zeros[ZERO_EVERY_STEPS - 1 :: ZERO_EVERY_STEPS]
        made += [Trial(WITH_ZEROS, 1.0, length, inputs[:length]) for length in LENGTHS if length > ZERO_EVERY_STEPS]
    made += [Trial(what, 1.0, length, inputs[:length]) for what, inputs in drawn.special for length in LENGTHS]
    if windowed:
        long = np.concatenate(sequences)
        made.append(Trial(ORDINARY, 1.0, len(long), long))
    return made


def run_whole(source: Source, sequences: Sequence[Array]) -> list[Mapping[str, Array]]:
    """Runs new sequences in the source, those of one length together if it can. Returns the outputs of each."""
    if not isinstance(source, BatchSource):
        return [source.whole(inputs) for inputs in sequences]
    outputs: dict[int, Mapping[str, Array]] = {}
    for length in sorted({len(inputs) for inputs in sequences}):
        mine = [at for at, inputs in enumerate(sequences) if len(inputs) == length]
        outputs.update(zip(mine, source.batch([sequences[at] for at in mine]), strict=True))
    return [outputs[at] for at in range(len(sequences))]


def served_ways(engine: Engine, sequences: Sequence[Array]) -> Iterator[tuple[str, list[dict[str, Array]]]]:
    """Yields a description of each way of serving, with the outputs [T, ...] of each sequence. All have one length."""
    steps = len(sequences[0])
    draw = np.random.default_rng(steps)
    yield "step by step", _served(engine, sequences, [1] * steps)
    if steps > 2:
        cuts = sorted(draw.choice(np.arange(1, steps), min(5, steps - 1), replace=False).tolist())
        yield "in chunks", _served(engine, sequences, [end - start for start, end in pairwise([0, *cuts, steps])])
    yield "whole", [_served(engine, [inputs], [steps])[0] for inputs in sequences]


def small(
    tried: Sequence[Trial], originals: Sequence[Mapping[str, Array]], share: float = SMALL_SHARE
) -> dict[str, float]:
    """Returns, for each output, `share` of the largest value that the source computes for ordinary inputs.

    An output may consist of nothing but rounding errors: the terms of a sum may cancel, large inputs may shut a cell's
    gates, and tiny ones may leave nothing that a kernel, which rounds at the size of 1, can represent.
    """
    ordinary = [outputs for trial, outputs in zip(tried, originals, strict=True) if trial.what == ORDINARY]
    every = {name: [np.asarray(outputs[name], np.float64) for outputs in ordinary] for name in originals[0]}
    return {
        name: share * max(float(np.abs(value[np.isfinite(value)]).max(initial=0.0)) for value in values)
        for name, values in every.items()
    }


def measure(served: Array, expected: Array, tolerance: float, least: float = 0.0) -> Gap:
    """Compares two [T, ...], and returns their gap; it is infinite if nothing can be compared.

    Skips time steps at which the source is NaN throughout, and all from the first that is not finite. least:
    differences are relative to this if all values are smaller.
    """
    with np.errstate(over="ignore"):
        expected = np.asarray(expected, np.float32).astype(np.float64)
    if served.shape != expected.shape:
        return Gap(np.inf, np.inf, 0)
    rows = expected.reshape(len(expected), -1)
    answered = ~np.isnan(rows).all(axis=1)
    lost = answered & ~np.isfinite(rows).all(axis=1)
    known = answered & ~np.logical_or.accumulate(lost)
    if not known.any():
        return Gap(0.0, 0.0, 0) if lost.any() else Gap(np.inf, np.inf, 0)
    with np.errstate(invalid="ignore"):
        gaps = np.abs(served.reshape(len(served), -1).astype(np.float64) - rows)[known].max(axis=1, initial=0.0)
    gaps[~np.isfinite(gaps)] = np.inf
    size = max(float(np.abs(rows[known]).max(initial=0.0)), least, 1e-30)
    over = np.flatnonzero(known)[~(gaps <= tolerance * size)]
    return Gap(float(gaps.max()), float(gaps.max()) / size, int(over[0]) if len(over) else 0)


def is_nan(values: Array) -> bool:
    """Returns True if there are values, and none is a number."""
    return bool(values.size) and bool(np.isnan(values).all())


def in_the_last_digit(inputs: Array) -> Array | None:
    """Returns the inputs, each changed by as little as possible; None if they are not floats.

    A value that occurs several times may be one that the model compares with, and stays.
    """
    if inputs.dtype.kind != "f":
        return None
    _, index, counts = np.unique(inputs, return_inverse=True, return_counts=True)
    once = counts[index.reshape(inputs.shape)] == 1
    changed: Array = np.where(once, np.nextafter(inputs, inputs.dtype.type(np.inf)), inputs)
    return changed


def cause(
    source: Source,
    tried: Sequence[Trial],
    originals: Sequence[Mapping[str, Array]],
    tolerance: float,
    failed: tuple[Trial, float] | None,
) -> str:
    """Returns what the source does that no stream can do, as far as this can be detected. failed: the first trial that
    differed, and its relative gap."""
    alike = [number for number, trial in enumerate(tried) if trial.length == STEPPED]
    at, again = alike[0], run_whole(source, [tried[number].inputs for number in alike])[0]  # in one batch, as before
    for name, values in originals[at].items():
        if not np.array_equal(values, again[name], equal_nan=True):
            return (
                "; it returns other values when it is run again: it draws random numbers, or keeps something that is "
                "not a state from one call to the next (a counter, a buffer)"
            )
        if is_nan(np.asarray(values)):
            return (
                "; it returns NaN for ordinary inputs, so nothing can be compared: it may take the logarithm or the "
                "root of a negative number; limit its inputs within the model, such as max(x, 0)"
            )
    longest = next(number for number, trial in enumerate(tried) if trial.length == STEPS)
    long, changed = originals[longest], in_the_last_digit(tried[longest].inputs)
    own = long if changed is None else source.whole(changed)
    for name, values in long.items():
        gap = measure(np.asarray(own[name]), np.asarray(values), tolerance)
        if gap.step > SURE_STEPS and tolerance < gap.relative < np.inf:
            return (
                f"; it amplifies rounding errors: its own output changes by {gap.relative:.0e} of the largest, from "
                f"step {gap.step} on, when its inputs change in their last digit, so no two programs agree on it; "
                "train it with smaller recurrent weights (weight decay, a norm)"
            )
    for name, values in originals[at].items():
        gap = measure(np.asarray(long[name][:STEPPED]), values, tolerance)
        if np.isfinite(gap.relative) and gap.relative > tolerance:
            return (
                f"; it looks ahead: its own output at step {gap.step} changes when later time steps follow (a mean, a "
                "norm or attention over the sequence, a centred window, a backward direction?)"
            )
    own_change = (
        0.0 if failed is None or failed[0].what == ORDINARY else _change_by_rounding(source, failed[0], tolerance)
    )
    if failed is not None and failed[1] < SURE_ROUNDING * own_change:
        return (
            f"; it amplifies rounding errors of such inputs: its own output changes by {own_change:.0e} of the largest "
            "when they change in their last digit; if that is small enough for you, pass a larger tolerance "
            "(--tolerance)"
        )
    return (
        "; something that is not a state carries over between time steps (a mean or attention over the sequence so "
        "far, a counter), or a value depends on later ones, or it computes something other than what was read"
    )


def _change_by_rounding(source: Source, trial: Trial, tolerance: float) -> float:
    """Returns by how much the source's own outputs change if the trial's inputs change in their last digit, relative to
    the largest output; 0 if they cannot."""
    changed = in_the_last_digit(trial.inputs)
    if changed is None:
        return 0.0
    before, after = source.whole(trial.inputs), source.whole(changed)
    gaps = [measure(np.asarray(after[name]), np.asarray(values), tolerance) for name, values in before.items()]
    return max((gap.relative for gap in gaps if np.isfinite(gap.relative)), default=0.0)


def _served(engine: Engine, sequences: Sequence[Array], chunks: Sequence[int]) -> list[dict[str, Array]]:
    """Serves the sequences as sessions of one batch with a huge neighbour, in these chunks.

    Uses several batches if they do not fit into one.
    """
    huge = times(sequences[0], COMPANY) if len(sequences) > 1 and engine.max_batch > 1 else None
    company = [] if huge is None else [huge]
    most = engine.max_batch - len(company)
    results: list[dict[str, Array]] = []
    for start in range(0, len(sequences), most):
        mine = sequences[start : start + most]
        results += _advanced(engine, [*mine, *company], chunks)[: len(mine)]
    return results


def _advanced(engine: Engine, sequences: Sequence[Array], chunks: Sequence[int]) -> list[dict[str, Array]]:
    inputs = np.asarray(np.stack(sequences, axis=1), engine.spec.input.numpy_dtype)
    whole = advanced(engine, inputs, chunks)
    engine.reserve(0)
    return [{name: values[:, row] for name, values in whole.items()} for row in range(len(sequences))]
