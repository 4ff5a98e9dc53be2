"""Tests at load that an engine gives a session the same bits in any batch, at any place, in any chunking.

Nothing promises that, so it is tried with this model, its head included, with ordinary and with extreme sequences side
by side. Where small batches differ, the smallest one from which on everything agrees becomes the engine's `min_batch`,
to which smaller calls are filled up; where no batch does, the engine is not exact, and the largest difference seen is
its tolerance. A difference that is more than rounding is refused, with its cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Array, Engine, Rows
from cellkeeper_service.model.config import Config

from .state_tensors import state_tensors
from .trial_sequences import LONG_SEQUENCES, LONG_STEPS, SEQUENCES, SHORT_STEPS, trial_sequences
from .unstreamable import explain

SIZES = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    11,
    13,
    15,
    16,
    17,
    24,
    31,
    32,
    33,
    47,
    63,
    64,
    65,
    96,
    127,
    128,
    129,
    192,
    195,
    250,
)
STEPS = 4  # time steps that every batch size takes one by one and as one chunk
MOST_TRUSTED = 32  # a flaw that shows in larger batches than this follows no order: one size for all is left
CHUNKED_SIZES = (1, 2, 3, 4, 8, 16)  # batch sizes that take SHORT_STEPS in chunks of every power of two
FILLED_SIZES = (2, 4, 8, 16)  # tried where max_batch is smaller
TRIAL_CALL_MS = 30_000  # one call of a user's graph, which may never end
MOST_ROUNDING = 1e-3  # of a sequence's largest value: float32 sums in another order stay far below, other values do not
HEAD_START_STEPS = 3  # at most, that a session takes before the trial, where states are integers
SMALL_SHARE = 1e-3  # a sequence whose values are smaller than this share of the others' is compared with that


class Tunable(Engine, Protocol):
    """An engine that fills up small batches, and takes the verdict.

    one_session_a_call: no call of its model knows of another session, so that a session's bits are the same in any
    batch by construction. Only chunks are left to be tried.
    """

    config: Config
    one_session_a_call: bool

    def settle(self, min_batch: int, exact: bool, tolerance: float) -> None:
        """Calls of fewer than `min_batch` sessions are filled up from now on; the rest is for the record."""

    def end_trial(self) -> None:
        """The trial is over: limits that only hold for it are lifted."""


def settle(engine: Tunable, between: Callable[[], None] = lambda: None) -> None:
    """Finds the engine's settings by trial and sets them. Clears the arena.

    between: called between engine calls; what it raises ends the trial. Raises Unstreamable where results differ by
    more than MOST_ROUNDING.
    """
    most = min(engine.max_batch, LONG_SEQUENCES) if engine.one_session_a_call else engine.max_batch
    sizes = sorted({size for size in SIZES if size < most} | {most})
    engine.reserve(2 * engine.max_batch)
    trial = _Trial(engine, between, most)
    engine.settle(1, False, 0.0)
    smallest = 0
    # from the largest down: below the first size that disagrees nothing can be trusted
    for size in reversed(sizes):
        if trial.difference(size):
            break
        smallest = size
    if smallest > MOST_TRUSTED:
        smallest = engine.max_batch
    if engine.one_session_a_call and smallest > 1:  # to fill up its batches changes nothing
        smallest = 0
    # where the largest batch itself is too small, filling it up may still help
    filling = [] if engine.one_session_a_call else FILLED_SIZES
    tried = [smallest] if smallest else [size for size in filling if size > engine.max_batch]
    for filled in tried:
        engine.settle(filled, True, 0.0)
        if filled > 1:
            trial = _Trial(engine, between, most)
            near = {size for size in (*CHUNKED_SIZES, filled - 1, filled) if size <= min(filled, engine.max_batch)}
            if any(trial.difference(size) for size in sorted(near)):
                continue
        break
    else:
        trial = _Trial(engine, between, most)
        engine.settle(1, False, 0.0)
        spread = max(map(trial.difference, sizes))
        if spread > MOST_ROUNDING:
            raise explain(engine, trial.sequences, trial.states, MOST_ROUNDING, spread, between)
        engine.settle(1, False, spread)
    engine.reserve(0)


@dataclass(frozen=True)
class _Reference:
    """What the sequences gave: values [known, ...] of each output by time step, then of each state after.

    compared: bool, of the same leading axes: what is finite so far (what is not is answered with an error, and its
    state not kept). sizes: [known], the value that a sequence's difference is relative to.
    """

    values: list[Array]
    compared: list[NDArray[np.bool_]]
    sizes: list[Array]

    @property
    def known(self) -> int:
        return len(self.values[0])


class _Trial:
    """Runs the same sequences in batches of any size, and compares with the first time."""

    def __init__(self, engine: Tunable, between: Callable[[], None], most: int) -> None:
        """most: sessions in the largest batch."""
        self._engine = engine
        self._between = between
        self._most = most
        self._draw = np.random.default_rng(0x5E77)
        self.sequences = trial_sequences(engine.config, self._draw)
        self._wanted = frozenset(output.name for output in engine.spec.outputs)
        self.states = self._start()  # uint8 [SEQUENCES, state_bytes]: where each sequence starts
        self._references: dict[int, _Reference] = {}

    def difference(self, size: int) -> float:
        """The largest relative difference of any chunking at this batch size; 0: the same bits."""
        return max(self._differs(size, steps, chunks) for steps, chunks in self._plans(size))

    def _plans(self, size: int) -> list[tuple[int, list[int]]]:
        """Time steps, and the chunks in which they are taken."""
        most = self._most
        plans = [(STEPS, [1] * STEPS), (STEPS, [STEPS])]
        if size in CHUNKED_SIZES or size == most < max(CHUNKED_SIZES):
            plans += [(SHORT_STEPS, [chunk] * (SHORT_STEPS // chunk)) for chunk in (1, 2, 4, 8, 16)]
            plans.append((SHORT_STEPS, self._parts(SHORT_STEPS)))
        if size in (1, min(LONG_SEQUENCES, most)):
            plans += [(LONG_STEPS, [LONG_STEPS]), (LONG_STEPS, self._parts(LONG_STEPS))]
        return plans

    def _parts(self, steps: int) -> list[int]:
        """Chunks of random lengths."""
        cuts = [0, *sorted(self._draw.choice(np.arange(1, steps), 5, replace=False).tolist()), steps]
        return [end - start for start, end in pairwise(cuts)]

    def _differs(self, size: int, steps: int, chunks: list[int]) -> float:
        if steps not in self._references:
            self._references[steps] = self._first(steps)
        reference = self._references[steps]
        chosen = self._draw.permutation(max(size, reference.known))[:size] % reference.known
        results, _ = self._advance(chosen, steps, chunks)
        return max(
            _relative(result, values[chosen], compared[chosen], sizes[chosen], self.sequences.judged[chosen])
            for result, values, compared, sizes in zip(
                results, reference.values, reference.compared, reference.sizes, strict=True
            )
        )

    def _first(self, steps: int) -> _Reference:
        """What the sequences give in the largest batch (for more steps: in a smaller one), one step at a time."""
        most = {STEPS: self._most, SHORT_STEPS: max(CHUNKED_SIZES), LONG_STEPS: LONG_SEQUENCES}[steps]
        size = min(most, self._most)
        values, finite = self._advance(np.arange(size, dtype=np.intp) % SEQUENCES, steps, [1] * steps)
        values, finite = [value[:SEQUENCES] for value in values], finite[:SEQUENCES]
        so_far = np.logical_and.accumulate(finite, axis=1)
        judged = self.sequences.judged[: len(so_far)]
        if not so_far[judged].any():  # a model that is not made for such inputs: all that it gives is compared
            so_far[:] = True
        compared = [so_far if i < len(self._wanted) else so_far[:, -1] for i in range(len(values))]
        return _Reference(values, compared, [_sizes(v, c, judged) for v, c in zip(values, compared, strict=True)])

    def _advance(self, chosen: Rows, steps: int, chunks: list[int]) -> tuple[list[Array], NDArray[np.bool_]]:
        """Of these sequences [B, ...] each: the outputs by time step, then the states after. Then bool [B, chunks]:
        input, states and outputs of that chunk were finite."""
        engine = self._engine
        source = self.sequences.long if steps == LONG_STEPS else self.sequences.short
        rows = self._draw.permutation(2 * engine.max_batch)[: 2 * len(chosen)].astype(np.intp)
        read, write = rows[: len(chosen)], rows[len(chosen) :]
        engine.write_states(read, self.states[chosen])
        parts: dict[str, list[Array]] = {name: [] for name in sorted(self._wanted)}
        finite = np.ones((len(chosen), len(chunks)), np.bool_)
        start = 0
        for number, chunk in enumerate(chunks):
            self._between()
            inputs = np.ascontiguousarray(source[start : start + chunk, chosen])
            computed = engine.run(inputs, read, write, self._wanted)
            for name, values in parts.items():
                values.append(computed.outputs[name])
            if computed.finite is not None:
                finite[:, number] = computed.finite
            read, write = write, read
            start += chunk
        outputs = [np.concatenate(values).swapaxes(0, 1) for values in parts.values()]
        return [*outputs, *state_tensors(engine.read_states(read), engine.spec.states)], finite

    def _start(self) -> Array:
        """uint8 [SEQUENCES, state_bytes]: the initial state, with its floats moved at random. Integers count or point
        somewhere: any others might be out of range. So that they are not the same in all sessions either, each session
        has taken another number of time steps before."""
        initial = np.tile(np.frombuffer(self._engine.initial_state, np.uint8), (SEQUENCES, 1))
        moved = []
        for spec, values in zip(
            self._engine.spec.states, state_tensors(initial, self._engine.spec.states), strict=True
        ):
            if spec.numpy_dtype.kind == "f":
                values = values + self._draw.uniform(-0.5, 0.5, values.shape).astype(spec.numpy_dtype)
            moved.append(np.ascontiguousarray(values).view(np.uint8))
        states = np.concatenate(moved, axis=1)
        if all(spec.numpy_dtype.kind == "f" for spec in self._engine.spec.states):
            return states
        return self._with_head_starts(states)

    def _with_head_starts(self, states: Array) -> Array:
        """The states of the sessions in a largest batch after 0 to HEAD_START_STEPS time steps each."""
        engine, rows = self._engine, np.arange(self._most, dtype=np.intp)
        numbers = rows % SEQUENCES
        engine.write_states(rows, states[numbers])
        for step in range(1, HEAD_START_STEPS + 1):
            self._between()
            engine.run(np.ascontiguousarray(self.sequences.short[-step, numbers])[None], rows, rows, self._wanted)
            after = engine.read_states(rows)
            chosen = numbers % (HEAD_START_STEPS + 1) >= step
            finite = np.ones(len(rows), np.bool_)
            for values in state_tensors(after, engine.spec.states):
                if values.dtype.kind == "f":
                    finite &= np.isfinite(values).all(axis=1)
            states[numbers[chosen & finite]] = after[chosen & finite]
            engine.write_states(rows, states[numbers])
        return states


def _wide(compared: NDArray[np.bool_], values: Array) -> NDArray[np.bool_]:
    return np.broadcast_to(compared.reshape(*compared.shape, *[1] * (values.ndim - compared.ndim)), values.shape)


def _sizes(values: Array, compared: NDArray[np.bool_], judged: NDArray[np.bool_]) -> Array:
    """[B]: each sequence's largest value, and at least SMALL_SHARE of the largest that the ordinary ones have."""
    kept = np.where(_wide(compared, values) & np.isfinite(values), np.abs(values), 0.0)
    sizes = kept.astype(np.float64).max(axis=tuple(range(1, kept.ndim)), initial=0.0)
    floor = max(SMALL_SHARE * float(np.median(sizes[judged])), 1e-30)
    return np.asarray(np.maximum(sizes, floor))


def _relative(
    came: Array, expected: Array, compared: NDArray[np.bool_], sizes: Array, judged: NDArray[np.bool_]
) -> float:
    """The largest difference of a judged sequence, relative to its size; 0.0 only where every bit of all is equal."""
    came, expected = np.ascontiguousarray(came), np.ascontiguousarray(expected)
    bits = f"u{came.itemsize}"
    differs = (came.view(bits) != expected.view(bits)) & ~(np.isnan(came) & np.isnan(expected))
    differs &= _wide(compared, came)
    if not differs.any():
        return 0.0
    with np.errstate(all="ignore"):
        gaps = np.where(differs, np.abs(came.astype(np.float64) - expected), 0.0)
    gaps[~np.isfinite(gaps)] = np.inf
    worst = gaps.max(axis=tuple(range(1, gaps.ndim)), initial=0.0) / sizes
    return max(float(worst[judged].max(initial=0.0)), 1e-30)
