"""Finds out why a model that failed the exactness trial cannot be streamed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cellkeeper_service.domain.engine import Array, Engine
from cellkeeper_service.errors import StartError

from .arena import state_tensors
from .trial_sequences import HUGE_SCALE, LARGE_SCALE, TrialSequences, scaled


class Unstreamable(StartError):
    """The outputs of a stream of this model would depend on more than its own past, by more than rounding.

    coupled: they depend on the other sessions of the batch.
    """

    def __init__(self, text: str, *, coupled: bool = False) -> None:
        super().__init__(text)
        self.coupled = coupled


def coupled(how: str) -> Unstreamable:
    """Returns the error for coupled sessions. how: what couples them, and how much, in words."""
    return Unstreamable(
        f"rows of a batch depend on each other: {how}; take means, norms and scales over one session's own values",
        coupled=True,
    )


def explain(
    engine: Engine, sequences: TrialSequences, states: Array, most: float, spread: float, between: Callable[[], None]
) -> Unstreamable:
    """Finds the cause, and returns the error. Clears the arena.

    states: uint8 [sessions, state_bytes], the sequences' initial states. most: the largest relative difference that
    rounding may cause. spread: the one that was seen. between: called between engine calls.
    """
    probe = _Probe(engine, states, between)
    ordinary = np.ascontiguousarray(sequences.short[:, sequences.judged])[:, : min(8, engine.max_batch)]
    seen = probe.difference(ordinary[:4], ordinary[:4])
    if seen > most:
        return Unstreamable(
            f"returns other values when the same call is repeated (they differ by {seen:.1g} of the largest): it draws "
            "random numbers, or keeps values outside its states; remove what is random, and declare what it keeps as a "
            "state"
        )
    seen = max(probe.difference(ordinary[:4], company) for company in _companies(ordinary[:4]))
    seen = max(seen, probe.difference(ordinary[:4], ordinary[:4], last=True))
    if seen > most:
        return coupled(f"with other sessions in the batch, a session's outputs differ by {seen:.1g} of the largest")
    alone = np.ascontiguousarray(sequences.long[:, :1])
    half = len(alone) // 2
    later = alone.copy()
    turned = scaled(later[half:], -LARGE_SCALE)
    later[half:] = sequences.long[half:, 2:3] if turned is None else turned
    seen = probe.difference(alone, later, half)
    if seen > most:
        return Unstreamable(
            f"looks ahead: the outputs of a time step differ by {seen:.1g} of the largest when only later time steps "
            "change, which a stream has not seen. Build it from past and present time steps only (no backward "
            "direction, no mean or attention over the whole sequence, no centred window)"
        )
    return Unstreamable(
        f"chunks depend on their length: the same sequence in one chunk, in several and step by step differs by "
        f"{spread:.1g} of the largest output, expected at most {most:.0e}; keep everything that a time step needs "
        "from earlier ones in the states (windows, sums, statistics), or export a graph of one time step"
    )


def _companies(first: Array) -> list[Array]:
    """Returns batches [T, B, ...] in which the first session's input is unchanged: alone, beside scaled inputs of other
    sequences and, for token ids and several inputs, beside copies of itself."""
    companies = [first[:, :1]]
    if first.dtype.kind != "f":
        companies.append(first[:, :1].repeat(first.shape[1], axis=1))
    for scale in (LARGE_SCALE, HUGE_SCALE, 0.0):
        others = scaled(first[:, 1:], scale)
        if others is not None:
            companies.append(np.concatenate([first[:, :1], others], axis=1))
    return companies


class _Probe:
    def __init__(self, engine: Engine, states: Array, between: Callable[[], None]) -> None:
        self._engine = engine
        self._states = states
        self._between = between
        self._wanted = frozenset(output.name for output in engine.spec.outputs)

    def difference(self, one: Array, other: Array, steps: int | None = None, *, last: bool = False) -> float:
        """Runs two batches, and returns the first session's largest difference relative to its largest value.

        It compares the outputs of the first `steps` time steps; without `steps`, all outputs and the states. Infinity
        if only one side is finite. last: in `other`, the first session takes the last row of the batch.
        """
        worst = 0.0
        for a, b in zip(self._run(one, steps), self._run(other, steps, last=last), strict=True):
            with np.errstate(all="ignore"):
                gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b)).max(initial=0.0)
                size = np.abs(a[np.isfinite(a)]).max(initial=1e-30)
            worst = max(worst, float(gap / size) if np.isfinite(gap) else float("inf"))
        return worst

    def _run(self, inputs: Array, steps: int | None, *, last: bool = False) -> list[Array]:
        engine = self._engine
        self._between()
        order = np.arange(inputs.shape[1], dtype=np.intp)
        rows = order[::-1].copy() if last else order  # session i has row i of the arena
        engine.reserve(len(rows))
        engine.write_states(order, self._states[: len(order)])
        computed = engine.run(np.ascontiguousarray(inputs[:, rows]), rows, rows, self._wanted)
        place = len(rows) - 1 if last else 0
        values = [computed.outputs[name][:steps, place] for name in sorted(self._wanted)]
        if steps is None:
            values += state_tensors(engine.read_states(order[:1]), engine.spec.states)
        return [value.astype(np.float64) for value in values]
