"""The sums of the compiled kernels, bit by bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cellkeeper_service.engine.cuda import cells
from cellkeeper_service.engine.precision import PRECISIONS, Precision

from testing.bundles import Array

from ..chunks import Model, Ran
from ..ptx.arithmetic import fma
from ..ptx.launches import Emulator
from ..ptx.tensor_cores import SUMS

BLOCK = 32  # the depth of every tile in fp32


def chain(x: Array, weight: Array, start: Array | np.float32) -> Array:
    """Returns start + x weight.T as a chain of fused multiply-adds in ascending order. start: one, or [columns]."""
    total = np.broadcast_to(start, (len(x), len(weight)))
    for k in range(x.shape[1]):
        total = fma(x[:, k, None], weight[None, :, k], total)
    return total


@pytest.mark.parametrize("hidden", [33, 130, 512])  # each size of tile
def test_fp32_sums_are_chains_of_fused_multiply_adds(hidden: int) -> None:
    """Over the inputs and then over h; then the bias. A sum of one block starts with the bias instead."""
    model = Model(cells, cell="rnn_relu", hidden_size=hidden, input_size=40, head=(3,))
    arena, inputs, tensors = model.arena(6), model.inputs(1, 3), model.tensors
    ran = model.run(arena, inputs, [0, 1, 2], [3, 4, 5])
    zero, bias = np.float32(0), tensors["rnn.bias_ih_l0"] + tensors["rnn.bias_hh_l0"]
    total = chain(inputs[0], tensors["rnn.weight_ih_l0"], zero)
    expected = np.maximum(chain(arena[:3], tensors["rnn.weight_hh_l0"], total) + bias, zero)
    assert ran.hidden[0].tobytes() == expected.tobytes()
    head = chain(expected, tensors["head.0.weight"], zero) + tensors["head.0.bias"]
    assert ran.prediction[0].tobytes() == head.tobytes()


def test_a_sum_of_one_block_starts_with_the_bias() -> None:
    """Triton makes dot(a, b, bias) of dot(a, b, 0) + bias. The bits are the same in any batch all the same."""
    model = Model(cells, cell="rnn_relu", hidden_size=BLOCK, head=(3,))
    ran = model.run(model.arena(6), model.inputs(1, 3), [0, 1, 2], [3, 4, 5])
    weight, bias = model.tensors["head.0.weight"], model.tensors["head.0.bias"]
    assert ran.prediction[0].tobytes() == chain(ran.hidden[0], weight, bias).tobytes()
    assert ran.prediction[0].tobytes() != (chain(ran.hidden[0], weight, np.float32(0)) + bias).tobytes()


def run_with(model: Model, emulator: Emulator) -> Ran:
    with emulator.installed():
        return model.run(model.arena(6), model.inputs(3, 3), [0, 1, 2], [3, 4, 5])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_moment_at_which_a_copy_arrives_changes_no_bits(precision: Precision) -> None:
    model = Model(cells, precision, hidden_size=130, input_size=70)
    late, early = (run_with(model, Emulator(copies_late=late)) for late in (True, False))
    assert [value.tobytes() for value in vars_of(late)] == [value.tobytes() for value in vars_of(early)]


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_order_within_a_tensor_core_changes_only_bits(precision: Precision) -> None:
    """So that a test that passes in each order does not rest on one: they must differ, and by rounding only."""
    model = Model(cells, precision, hidden_size=130)
    came = {name: run_with(model, Emulator(name)) for name in SUMS}
    assert len({ran.hidden.tobytes() for ran in came.values()}) == len(SUMS)
    for ran in came.values():
        assert np.abs(ran.hidden - came["once"].hidden).max() < (2e-5 if precision == "tf32" else 2e-4)


def vars_of(ran: Ran) -> list[Array]:
    return [getattr(ran, field.name) for field in dataclasses.fields(ran)]
