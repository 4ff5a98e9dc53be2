"""Tests at load that an engine computes the same bits for a session in any batch, at any row, in any chunking.

No library promises that, so it is tested with the model itself, head included, on ordinary and extreme sequences side
by side. If small batches differ, the smallest size from which all sizes agree becomes the engine's `min_batch`, to
which smaller calls are padded. If there is none, the engine is not exact, and the largest difference seen is its
tolerance. A model whose differences are larger than rounding is refused, with the cause.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Array, Rows

from .arena import state_tensors
from .base import BundleEngine
from .trial_sequences import LONG_SEQUENCES, LONG_STEPS, SEQUENCES, SHORT_STEPS, trial_sequences
from .unstreamable import explain

SIZES = (*range(1, 10), 11, 13, 15, 16, 17, 24, 31, 32, 33, 47, 63, 64, 65, 96, 127, 128, 129, 192, 195, 250)
STEPS = 4  # time steps that every batch size takes one by one and as one chunk
MOST_TRUSTED = 32  # if batches of this size or more differ, sizes follow no order: every call is padded to max_batch
CHUNKED_SIZES = (1, 2, 3, 4, 8, 16)  # batch sizes that take SHORT_STEPS in chunks of every power of two
FILLED_SIZES = (2, 4, 8, 16)  # sizes to pad to, tried if even max_batch differs and is smaller than they are
TRIAL_CALL_MS = 30_000  # limit for one call of a user's graph, which might never end
MOST_TRIAL_CALL_MS = 2**31 - 1  # as the server's setting; a thread can wait for that long
MOST_ROUNDING = 1e-3  # of a sequence's largest value: reordered float32 sums differ by far less, wrong values by more
HEAD_START_STEPS = 3  # the most time steps that a session takes before the trial if it has integer states
SMALL_SHARE = 1e-3  # of the ordinary sequences' size: the least size that a difference is taken relative to


def settle(engine: BundleEngine, between: Callable[[], None] = lambda: None) -> None:
    """Finds the engine's settings by trial and applies them. Clears the arena.

    between: called between engine calls; an exception that it raises ends the trial. Raises Unstreamable if results
    differ by more than MOST_ROUNDING.
    """
    most = min(engine.max_batch, LONG_SEQUENCES) if engine.one_session_a_call else engine.max_batch
    sizes = sorted({size for size in SIZES if size < most} | {most})
    engine.reserve(2 * engine.max_batch)
    trial = _Trial(engine, between, most)
    engine.settle(1, False, 0.0)
    smallest = 0
    # from the largest down: sizes below the first one that differs cannot be trusted
    for size in reversed(sizes):
        if trial.difference(size):
            break
        smallest = size
    if smallest > MOST_TRUSTED:
        smallest = engine.max_batch
    if engine.one_session_a_call and smallest > 1:  # padding its batches changes nothing
        smallest = 0
    # if even the largest batch is too small, padding it may still help
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


class _Expected(NamedTuple):
    """An output or a final state to compare with. values: [known, ...], of an output by time step.

    compared: bool, of the same leading axes: what is finite up to there (the service answers anything else with an
    error and does not keep its state). sizes: [known], the value to which a sequence's difference is relative.
    """

    values: Array
    compared: NDArray[np.bool_]
    sizes: Array


class _Trial:
    """Runs the same sequences in batches of any size, and compares the results with those of a first run."""

    def __init__(self, engine: BundleEngine, between: Callable[[], None], most: int) -> None:
        """most: how many sessions the largest batch has."""
        self._engine = engine
        self._between = between
        self._most = most
        self._draw = np.random.default_rng(0x5E77)
        self.sequences = trial_sequences(engine.config, self._draw)
        self._wanted = frozenset(output.name for output in engine.spec.outputs)
        self.states = self._start()  # uint8 [SEQUENCES, state_bytes]: each sequence's initial state
        self._expected: dict[int, list[_Expected]] = {}

    def difference(self, size: int) -> float:
        """Returns the largest relative difference of any chunking at this batch size; 0 if all bits are the same."""
        return max(self._differs(size, steps, chunks) for steps, chunks in self._plans(size))

    def _plans(self, size: int) -> list[tuple[int, list[int]]]:
        """Returns what to run at this batch size: the time steps, and the lengths of their chunks."""
        most = self._most
        plans = [(STEPS, [1] * STEPS), (STEPS, [STEPS])]
        if size in CHUNKED_SIZES or size == most < max(CHUNKED_SIZES):
            plans += [(SHORT_STEPS, [chunk] * (SHORT_STEPS // chunk)) for chunk in (1, 2, 4, 8, 16)]
            plans.append((SHORT_STEPS, self._parts(SHORT_STEPS)))
        if size in (1, min(LONG_SEQUENCES, most)):
            plans += [(LONG_STEPS, [LONG_STEPS]), (LONG_STEPS, self._parts(LONG_STEPS))]
        return plans

    def _parts(self, steps: int) -> list[int]:
        """Returns chunks of random lengths, which add up to `steps`."""
        cuts = [0, *sorted(self._draw.choice(np.arange(1, steps), 5, replace=False).tolist()), steps]
        return [end - start for start, end in pairwise(cuts)]

    def _differs(self, size: int, steps: int, chunks: list[int]) -> float:
        if steps not in self._expected:
            self._expected[steps] = self._first(steps)
        expected = self._expected[steps]
        known = len(expected[0].values)
        chosen = self._draw.permutation(max(size, known))[:size] % known
        results, _ = self._advance(chosen, steps, chunks)
        judged = self.sequences.judged[chosen]
        return max(
            _relative(result, one.values[chosen], one.compared[chosen], one.sizes[chosen], judged)
            for result, one in zip(results, expected, strict=True)
        )

    def _first(self, steps: int) -> list[_Expected]:
        """Runs the sequences one step at a time, in the largest batch or, for many steps, in a smaller one. If even the
        largest has fewer than LONG_SEQUENCES sessions, it runs that many in several batches, because those include
        sequences of every kind."""
        most = {STEPS: self._most, SHORT_STEPS: max(CHUNKED_SIZES), LONG_STEPS: LONG_SEQUENCES}[steps]
        size = min(most, self._most)
        count = max(size, LONG_SEQUENCES)
        batches = [min(start, count - size) + np.arange(size, dtype=np.intp) for start in range(0, count, size)]
        runs = [self._advance(batch % SEQUENCES, steps, [1] * steps) for batch in batches]
        known = min(count, SEQUENCES)
        where = [np.flatnonzero(np.concatenate(batches) == number)[0] for number in range(known)]
        values = [np.concatenate(parts)[where] for parts in zip(*(results for results, _ in runs), strict=True)]
        finite = np.concatenate([part for _, part in runs])[where]
        so_far = np.logical_and.accumulate(finite, axis=1)
        judged = self.sequences.judged[: len(so_far)]
        if not so_far[judged].any():  # the model is not made for such inputs, so everything is compared
            so_far[:] = True
        compared = [so_far if i < len(self._wanted) else so_far[:, -1] for i in range(len(values))]
        return [_Expected(v, c, _sizes(v, c, judged)) for v, c in zip(values, compared, strict=True)]

    def _advance(self, chosen: Rows, steps: int, chunks: list[int]) -> tuple[list[Array], NDArray[np.bool_]]:
        """Runs these sequences. Returns [B, ...] for each output by time step, then for each final state; and bool
        [B, chunks]: whether the input, states and outputs of that chunk were finite."""
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
        """Returns uint8 [SEQUENCES, state_bytes]: initial states with random offsets added to their floats.

        Integers may count or index something, so random ones could be out of range. To vary them too, sessions first
        take different numbers of time steps.
        """
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
        """Advances the states of the sessions in a largest batch by 0 to HEAD_START_STEPS time steps each."""
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
    """Returns [B]: each sequence's largest value, but at least SMALL_SHARE of the median over the judged sequences."""
    kept = np.where(_wide(compared, values) & np.isfinite(values), np.abs(values), 0.0)
    sizes = kept.astype(np.float64).max(axis=tuple(range(1, kept.ndim)), initial=0.0)
    floor = max(SMALL_SHARE * float(np.median(sizes[judged])), 1e-30)
    return np.asarray(np.maximum(sizes, floor))


def _relative(
    came: Array, expected: Array, compared: NDArray[np.bool_], sizes: Array, judged: NDArray[np.bool_]
) -> float:
    """Returns the largest difference of a judged sequence, relative to its size; 0.0 only if all sequences' bits are
    equal."""
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
