"""The kernels' promises, as checks of a model. Each raises AssertionError if its promise is broken.

The tests run them on the kernels, and on copies of the kernels with one fault each, which the checks must find.
"""

from __future__ import annotations

import numpy as np
from cellkeeper_service.engine.precision import Precision

from testing.bundles import Array

from .chunks import FLAG, UNWRITTEN, Model, Ran
from .reference import run_reference

PADDING = -1
HOSTILE = (np.float32(1e6), np.float32(np.nan), np.float32(np.inf), np.float32(-np.inf))


def check_values(
    model: Model, steps: int, batch: int, tolerance: float, inputs: Array | None = None, rounded: float | None = None
) -> None:
    """Compares outputs, states and flags to float64: within `tolerance` of each one's largest value (at least of 1).

    rounded: the tolerance to float64 with the products' operands rounded to the model's precision. It is much smaller,
    because the kernels round nothing else to that precision.
    """
    arena = model.arena(2 * batch)
    inputs = model.inputs(steps, batch) if inputs is None else inputs
    read, write = list(range(batch)), list(range(batch, 2 * batch))
    ran = model.run(arena, inputs, read, write)
    references: list[tuple[Precision, float]] = [("fp32", tolerance)]
    references += [] if rounded is None else [(model.precision, rounded)]
    for precision, allowed in references:
        for i in range(batch):
            state = arena[read[i]].astype(np.float64)
            expected = run_reference(model.config, model.tensors, state, inputs[:, i], precision)
            assert ran.finite[i] == int(expected.usable)
            if expected.usable:
                _close(ran.arena[write[i]], expected.state, allowed, f"state of row {i}")
                _close(ran.hidden[:, i], expected.hidden, allowed, f"hidden of row {i}")
                _close(ran.prediction[:, i], expected.predictions, allowed, f"prediction of row {i}")


def check_company(model: Model, batch: int, steps: int = 2) -> None:
    """A row has the same bits alone, in larger batches, in other places and beside padding."""
    arena, inputs = model.arena(2 * batch), model.inputs(steps, batch)
    together = model.run(arena, inputs, list(range(batch)), list(range(batch, 2 * batch)))
    _sound(together)
    last = batch - 1
    for i in (0, last):
        expected = together.row(i, batch + i)
        alone = model.run(arena, inputs[:, [i]], [i], [batch + i])
        assert alone.row(0, batch + i) == expected, f"row {i} alone and among {batch}"
    bucket = 1 << batch.bit_length()
    turned = [last, *range(last)]
    filled = np.zeros((steps, bucket, *inputs.shape[2:]), inputs.dtype)
    filled[:, bucket - batch :] = inputs[:, turned]
    padding = [PADDING] * (bucket - batch)
    elsewhere = model.run(arena, filled, [*padding, *turned], [*padding, *(batch + i for i in turned)])
    for place, i in enumerate(turned):
        came = elsewhere.row(bucket - batch + place, batch + i)
        assert came == together.row(i, batch + i), f"row {i} at another place of a bucket of {bucket}"


def check_chunks(model: Model, batch: int = 3, steps: int = 4) -> None:
    """The bits do not depend on how the time steps are cut into chunks, in place or from row to row."""
    arena, inputs = model.arena(2 * batch), model.inputs(steps, batch)
    rows, others = list(range(batch)), list(range(batch, 2 * batch))
    whole = model.run(arena, inputs, rows, others)
    _sound(whole)
    for cuts in ([1] * steps, [steps - 1, 1]):
        states, start, hidden, predictions = arena, 0, [], []
        for length in cuts:
            ran = model.run(states, inputs[start : start + length], rows, rows)
            states, start = ran.arena, start + length
            hidden.append(ran.hidden)
            predictions.append(ran.prediction)
        joined = Ran(states, np.concatenate(predictions), np.concatenate(hidden), ran.finite)
        for i in rows:
            assert joined.row(i, i) == whole.row(i, batch + i), f"row {i} in chunks of {cuts}"


def check_neighbours(model: Model, steps: int = 2) -> None:
    """Rows with huge, infinite or missing inputs and states change nothing in their neighbours."""
    batch = 2 * len(HOSTILE) + 1
    arena, inputs = model.arena(2 * batch), model.inputs(steps, batch)
    read, write = list(range(batch)), list(range(batch, 2 * batch))
    quiet = model.run(arena, inputs, read, write)
    _sound(quiet)
    for place, factor in zip(range(1, batch, 2), HOSTILE, strict=True):
        arena[place] *= factor
        if inputs.dtype == np.float32:
            inputs[:, place] *= factor
    ran = model.run(arena, inputs, read, write)
    for i in range(0, batch, 2):
        assert ran.row(i, write[i]) == quiet.row(i, write[i]), f"row {i} beside hostile rows"
    assert not ran.finite[3::2].any(), "a state of NaN or infinity was not flagged"


def check_forks(model: Model, steps: int = 1) -> None:
    """Several rows may read one row, and one of them may write it. Each sees the state from before the launch."""
    arena, inputs = model.arena(8), model.inputs(steps, 6)
    read, write = [2, 2, 2, 5, 0, 1], [7, 2, 3, 4, 1, 0]  # one forks, one moves, two swap places
    ran = model.run(arena, inputs, read, write)
    _sound(ran)
    for i in range(len(read)):
        alone = model.run(arena, inputs[:, [i]], [read[i]], [6])
        assert ran.row(i, write[i]) == alone.row(0, 6), f"row {i}, which read {read[i]} and wrote {write[i]}"
    untouched = [5, 6]  # read but not written; neither
    assert ran.arena[untouched].tobytes() == arena[untouched].tobytes(), "rows changed that nothing wrote"


def check_padding(model: Model, steps: int = 2) -> None:
    """A padding row reads nothing, writes nothing and is not flagged."""
    arena, inputs = model.arena(4), model.inputs(steps, 4)
    if inputs.dtype == np.float32:
        inputs[:, 1::2] = np.nan
    ran = model.run(arena, inputs, [0, PADDING, 1, PADDING], [2, PADDING, 3, PADDING])
    assert ran.arena[:2].tobytes() == arena[:2].tobytes()
    assert (ran.prediction[:, 1::2] == UNWRITTEN).all(), "the prediction of a padding row was written"
    assert (ran.hidden[:, 1::2] == UNWRITTEN).all(), "the hidden output of a padding row was written"
    assert ran.finite.tolist() == [1, FLAG, 1, FLAG]


def _sound(ran: Ran) -> None:
    """Checks that all rows are finite: two results of NaN are equal and prove nothing."""
    assert ran.finite.tolist() == [1] * len(ran.finite)


def _close(came: Array, expected: Array, tolerance: float, what: str) -> None:
    if not expected.size:
        return
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    error = float(np.abs(came.astype(np.float64) - expected).max())
    assert error <= allowed, f"{what}: off by {error:.2e}, allowed {allowed:.2e}"
