"""Preprocessing on the device: missing values, token ids, and which rows are flagged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cellkeeper_service.engine.cuda import cells

from testing.bundles import Array

from .chunks import Model
from .contract import check_chunks, check_company, check_neighbours, check_padding, check_values

HOLD = {"kind": "features", "missing": {"policy": "hold", "value": 0.25}}
CONSTANT = {"kind": "features", "missing": {"policy": "constant", "value": -0.75}}
EACH = [0.25, -1.5, 3.0]
WITH_NORMALIZATION: dict[str, Any] = {"normalization": {"offset": [1.0, -0.2, 0.3], "scale": [2.0, 0.5, 0.5]}}
TOKENS = {"kind": "tokens", "vocabulary": 11, "embedding_size": 6}


class Gappy(Model):
    """A model with some missing inputs."""

    def inputs(self, steps: int, batch: int, seed: int = 5) -> Array:
        inputs = super().inputs(steps, batch, seed)
        inputs[np.random.default_rng(seed).random(inputs.shape) < 0.4] = np.nan
        return inputs


MODELS = {
    "hold": Gappy(cells, cell="rnn_tanh", input=HOLD),
    "hold_normalized": Gappy(cells, cell="rnn_relu", input=HOLD | WITH_NORMALIZATION),
    "hold_wide": Gappy(cells, cell="rnn_tanh", input_size=70, input=HOLD),  # two tiles of features
    "hold_each": Gappy(
        cells, cell="rnn_tanh", input={"kind": "features", "missing": {"policy": "hold", "value": EACH}}
    ),
    "constant": Gappy(cells, cell="rnn_tanh", input=CONSTANT),
    "constant_each": Gappy(
        cells, input={"kind": "features", "missing": {"policy": "constant", "value": EACH}} | WITH_NORMALIZATION
    ),
    "constant_wide": Gappy(  # two tiles of features
        cells,
        cell="rnn_tanh",
        input_size=70,
        input={"kind": "features", "missing": {"policy": "constant", "value": [at / 70 for at in range(70)]}},
    ),
    "constant_normalized": Gappy(cells, input=CONSTANT | WITH_NORMALIZATION),
}
each_model = pytest.mark.parametrize("name", MODELS)


@each_model
def test_missing_values_are_filled_as_the_definition_says(name: str) -> None:
    """The compared state includes the held inputs."""
    check_values(MODELS[name], steps=4, batch=3, tolerance=4e-6)


@each_model
def test_filled_inputs_give_the_same_bits_in_any_company_and_chunk(name: str) -> None:
    check_company(MODELS[name], batch=3)
    check_chunks(MODELS[name])


@each_model
def test_filled_inputs_keep_to_their_row(name: str) -> None:
    check_neighbours(MODELS[name])
    check_padding(MODELS[name], steps=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [0, 1])
def test_an_input_that_cannot_be_taken_flags_its_row(bad: float, step: int) -> None:
    """Even if the cell hides it: relu(-inf) = 0, and an infinite pre-activation gives a finite gate."""
    model = Model(cells, set_to={"rnn.weight_ih_l0": -1.0}, cell="rnn_relu", input_size=70, hidden_size=2, head=[])
    inputs = np.abs(model.inputs(2, 3))
    inputs[step, 1, 69] = bad
    ran = model.run(model.arena(6), inputs, [0, 1, 2], [3, 4, 5])
    assert ran.finite.tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["hold", "constant"])
def test_a_policy_for_missing_values_takes_no_infinity(name: str) -> None:
    model = MODELS[name]
    inputs = model.inputs(2, 3)
    inputs[0, 2, 1] = np.inf
    ran = model.run(model.arena(6), inputs, [0, 1, 2], [3, 4, 5])
    assert ran.finite.tolist() == [1, 1, 0]


@pytest.mark.parametrize("bad", [-1, 11, 2**31 - 1, -(2**31)])
def test_a_token_id_out_of_range_flags_its_row_and_is_looked_up_nowhere(bad: int) -> None:
    model = Model(cells, cell="gru", input_size=6, input=TOKENS)
    inputs = model.inputs(2, 3)
    inputs[1, 0] = bad
    check_values(model, steps=2, batch=3, tolerance=4e-6, inputs=inputs)
    assert model.run(model.arena(6), inputs, [0, 1, 2], [3, 4, 5]).finite.tolist() == [0, 1, 1]


def test_an_output_that_overflows_flags_its_row_only_where_it_is_wanted() -> None:
    model = Model(cells, set_to={"head.0.bias": 200.0}, cell="rnn_tanh", output=[{"op": "exp"}])
    arena, inputs = model.arena(4), model.inputs(1, 2)
    assert model.run(arena, inputs, [0, 1], [2, 3]).finite.tolist() == [0, 0]
    assert model.run(arena, inputs, [0, 1], [2, 3], ["hidden"]).finite.tolist() == [1, 1]
    assert model.run(arena, inputs, [0, 1], [2, 3], []).finite.tolist() == [1, 1]


def test_the_wanted_outputs_change_no_bits() -> None:
    model = Model(cells, num_layers=2)
    arena, inputs = model.arena(4), model.inputs(2, 2)
    both = model.run(arena, inputs, [0, 1], [2, 3])
    for wanted in (["prediction"], ["hidden"], []):
        ran = model.run(arena, inputs, [0, 1], [2, 3], wanted)
        assert ran.arena.tobytes() == both.arena.tobytes()
        for name in wanted:
            assert getattr(ran, name).tobytes() == getattr(both, name).tobytes()
