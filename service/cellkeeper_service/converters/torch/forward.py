"""Checks that a user's forward computes exactly what the module's children compute one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ..drawn import draw_ids, random_sequences, special_values, with_values
from ..processing import Processing
from ..reference import apply
from ..refusal import ImportRefused
from ..stack import Array, Stack
from .chain import ModuleChain
from .own_forward import INSTEAD, Compared, OwnForward
from .source import check_alone

FAR = 1e-4  # of the largest output: a larger difference is another computation, a smaller one another rounding
STEPS = 32
LENGTHS = (1, 2, STEPS, 200)
LONG_STEPS = 1_200  # to detect a forward that cuts long sequences, or resets the state within them
SCALES = (10.0, 1e3, 1e6, 0.1, 0.01, 1e-6, 0.0)
SPIKE_EVERY_STEPS = 7
SPECIAL_STEPS, MOST_AT_ONCE = 200, 8
MOST_ROUNDS = 8
MISSING_SHARE = 0.2


def compare_forward(
    model: nn.Module,
    chain: Sequence[nn.Module],
    initial: Mapping[str, Array],
    stack: Stack,
    processing: Processing,
    batch_first: bool | None = None,
) -> list[str]:
    """Compares the children, in the order of their registration, with the module's own forward.

    Covers ordinary, large, tiny and zero inputs, in short and long sequences; zeros and the numbers that forward
    compares with, among ordinary inputs; and, if missing values are filled, what forward itself does with them. Raises
    ImportRefused, which names the first case in which they differ.

    batch_first: of the forward's input; None: that of its recurrent layers.
    Returns the operators with which forward alone chooses between values: for other inputs they may do something.
    """
    if batch_first is None:
        recurrent: Any = next((module for module in chain if hasattr(module, "batch_first")), None)
        batch_first = bool(recurrent is not None and recurrent.batch_first)
    own = OwnForward(model, batch_first)
    layers = ModuleChain(chain, initial)
    ordinary = random_sequences(stack, 1, STEPS)[0]
    _refuse_arguments(own)
    _refuse_kept(own, ordinary)
    _refuse_mixed(own, ordinary)
    for what, inputs in _trials(stack):
        _compare(own, layers, what, inputs)
    tried: list[float] | None = None
    for _ in range(MOST_ROUNDS):  # a value may lead to code that compares with others
        if own.seen.values == tried:
            break
        tried = own.seen.values
        for what, inputs in _special_trials(stack, tried):
            _compare(own, layers, what, inputs)
    if processing.missing.policy != "reject" and not stack.vocabulary:
        _compare_missing(own, layers, stack, processing)
    with Compared() as of_layers:
        layers.whole(random_sequences(stack, 1, STEPS)[0])
    return sorted({*own.seen.choices} - {*of_layers.choices})


def _refuse_kept(own: OwnForward, inputs: Array) -> None:
    """Raises ImportRefused if the forward returns something else when it is called again."""
    if not np.array_equal(own.last(inputs), own.last(inputs), equal_nan=True):
        raise ImportRefused(
            own.name,
            "returns other values when it is called again: it draws random numbers, or keeps a state from one call to "
            "the next, such as self.hidden; take the state as an argument and return it, and pass example and states; "
            "or pass its modules as a list, in the order in which they compute",
        )


def _refuse_arguments(own: OwnForward) -> None:
    """Raises ImportRefused if the forward needs more than its input."""
    if len(own.needed) > 1:
        raise ImportRefused(
            own.name,
            f"takes {', '.join(own.needed)}, and its layers one input; pass an example of each input and, if it takes "
            "states, those of a new session, such as example=x, states=h, and the forward is traced; or pass its "
            "modules as a list, in the order in which they compute",
        )


def _refuse_mixed(own: OwnForward, inputs: Array) -> None:
    """Raises ImportRefused if the forward returns the outputs of one sequence for a batch of two, or outputs for a
    sequence that depend on another one in the batch.

    The former does y[:, -1], meant as the last time step of [B, T, F], after a layer that takes [T, B, F]. With one
    sequence, it cannot be told from a forward that returns every time step.
    """
    outputs = own.beside(inputs, inputs[::-1])
    if outputs is None:
        return
    alone, both = outputs
    if alone.shape == both.shape and alone.ndim > 1 and len(alone) == len(inputs):
        raise ImportRefused(
            own.name,
            f"returns {list(alone.shape)} for one sequence of {len(inputs)} time steps and for two; its recurrent "
            "layer has batch_first=False and takes [time, batch, features], of which y[:, -1] is one sequence, not the "
            "last time step; set batch_first=True and train again; or, if it is meant for one sequence, pass its "
            "layers as a list",
        )
    grown = [at for at, sizes in enumerate(zip(alone.shape, both.shape, strict=False)) if sizes == (1, 2)]
    if alone.ndim == both.ndim and len(grown) == 1 and alone.size * 2 == both.size:
        first = (values.take(0, grown[0]) for values in outputs)
        check_alone(own.name, *({"its output": values} for values in first))


def _compare(own: OwnForward, layers: ModuleChain, what: str, inputs: Array) -> None:
    expected = own.last(inputs)
    came = layers.whole(inputs)["prediction"]
    steps = len(inputs)
    where = f"for {what}, {steps} time steps"
    _check_fed(own, inputs, where)
    if len(expected) not in (1, steps) or expected.shape[1:] != came.shape[1:]:
        raise ImportRefused(
            own.name,
            f"returns {list(expected.shape)} for {steps} time steps where its layers return {list(came.shape)}, "
            f"expected an output for each, or for the last one; {INSTEAD}",
        )
    first = steps - len(expected)
    at = _first_difference(expected, came[first:])
    if at is not None:
        step, gap = at
        raise ImportRefused(
            own.name,
            f"returns other values than its layers in the order in which they are registered, {where}, at step "
            f"{first + step}, by {gap:.1g} of the largest; {INSTEAD}",
        )


def _compare_missing(own: OwnForward, layers: ModuleChain, stack: Stack, processing: Processing) -> None:
    """Raises ImportRefused if forward turns missing values into other numbers than the bundle's policy does."""
    (inputs,) = random_sequences(stack, 1, STEPS, seed=10)
    missing = np.random.default_rng(10).random(inputs.shape) < MISSING_SHARE
    raw = np.full(stack.size, processing.missing.value, np.float64)
    held = raw if processing.normalize is None else apply(processing.normalize, raw)
    filled = inputs.copy()
    for row, absent in zip(filled, missing, strict=True):
        row[absent] = held[absent]
        held = row if processing.missing.policy == "hold" else held
    given = np.where(missing, np.float32(np.nan), inputs)
    expected = own.last(given)
    if not np.isfinite(expected).all():
        return  # forward leaves missing values to the policy
    at = _first_difference(expected, layers.whole(filled)["prediction"][STEPS - len(expected) :])
    if at is not None:
        raise ImportRefused(
            own.name,
            f"computes with missing values (NaN) itself, and differs from the policy {processing.missing.policy} by "
            f"{at[1]:.1g} of the largest: expected the policy alone, or one that gives the same values",
        )


def _check_fed(own: OwnForward, inputs: Array, where: str) -> None:
    """Compares the inputs with what the first layer gets. Raises ImportRefused.

    Comparing outputs is not enough: a layer that forgets may hide that inputs were dropped or changed before it.
    """
    fed = own.fed
    if fed is None:
        return
    if fed.size != inputs.size:
        share = len(inputs) * fed.size / inputs.size
        raise ImportRefused(own.name, f"hands {share:g} time steps to its first layer, {where}; {INSTEAD}")
    at = _first_difference(inputs, fed.reshape(inputs.shape))
    if at is not None:
        step, gap = at
        raise ImportRefused(
            own.name,
            f"changes its input before its first layer gets it, {where}, at step {step}, by {gap:.1g} of the "
            f"largest; {INSTEAD}",
        )


def _trials(stack: Stack) -> Iterator[tuple[str, Array]]:
    """Yields a description of the inputs, and the inputs [T, ...]."""
    for number, steps in enumerate((STEPS, *LENGTHS)):
        yield "ordinary inputs", random_sequences(stack, 1, steps, seed=number)[0]
    long = random_sequences(stack, 1, LONG_STEPS, seed=8)[0]
    if stack.vocabulary:
        yield "ordinary inputs", long
        return
    (ordinary,) = random_sequences(stack, 1, STEPS, seed=9)
    for scale in SCALES:
        yield f"inputs scaled by {scale:g}", ordinary * np.float32(scale)
    yield "negative inputs", -np.abs(ordinary)
    spikes = ordinary.copy()
    spikes[::SPIKE_EVERY_STEPS] *= np.float32(1e3)
    yield "single inputs scaled by 1000", spikes
    yield "ordinary inputs", long


def _special_trials(stack: Stack, compared: Sequence[float]) -> Iterator[tuple[str, Array]]:
    """Yields inputs with zeros, and with the values that forward compares with."""
    draw = np.random.default_rng(11)
    numbers = "" if not compared else f" and values near {', '.join(f'{value:g}' for value in compared[:4])}"
    if stack.vocabulary:
        ids = draw_ids(draw, stack.vocabulary, [SPECIAL_STEPS], "int32", compared)
        yield f"token ids{numbers}", ids
        return
    (ordinary,) = random_sequences(stack, 1, SPECIAL_STEPS, seed=11)
    for at in range(0, max(len(compared), 1), MOST_AT_ONCE):
        values = special_values(compared[at : at + MOST_AT_ONCE], (stack.size,))
        yield f"inputs with zeros{numbers}", with_values(draw, ordinary, values)


def _first_difference(expected: Array, came: Array) -> tuple[int, float] | None:
    """Returns the first time step that differs by more than FAR, and the difference relative to the largest output.

    The comparison ends at the first time step at which neither is finite.
    """
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (expected, came))
    known = np.asarray(np.isfinite(a).all(axis=1))
    lost = np.flatnonzero(~known & ~np.isfinite(b).all(axis=1))
    end = int(lost[0]) if len(lost) else len(a)
    size = float(np.abs(a[:end][known[:end]]).max(initial=0.0))
    gaps = np.abs(a[:end] - b[:end]).max(axis=1, initial=0.0)
    far = np.flatnonzero(~(gaps <= FAR * size))
    return (int(far[0]), float(gaps[far[0]]) / max(size, 1e-30)) if len(far) else None
