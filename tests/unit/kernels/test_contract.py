"""The kernels' promises, for every cell and every part around it. No size is a multiple of a tile."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from cellkeeper_service.engine.cuda import cells
from cellkeeper_service.engine.precision import PRECISIONS, Precision
from cellkeeper_service.model.config import Dense

from .chunks import Model
from .contract import check_chunks, check_company, check_forks, check_neighbours, check_padding, check_values

TOLERANCES: dict[Precision, float] = {"fp32": 4e-6, "tf32": 4e-3, "bf16": 4e-2}
# compared to products of rounded operands, with room for operands that float64 rounds to the other side
ROUNDED: dict[Precision, float] = {"fp32": 4e-6, "tf32": 5e-5, "bf16": 5e-4}

# every kernel of a cell, each with two layers or several column tiles
CELLS: dict[str, dict[str, Any]] = {
    "lstm": {"num_layers": 2, "hidden_size": 17},
    "lstm_projection": {"num_layers": 2, "hidden_size": 19, "proj_size": 5},
    "gru": {"cell": "gru", "hidden_size": 33},
    "gru_reset_before": {"cell": "gru", "reset_after": False, "num_layers": 2, "hidden_size": 17},
    "rnn_tanh": {"cell": "rnn_tanh", "num_layers": 2, "hidden_size": 33},
    "rnn_relu": {"cell": "rnn_relu", "num_layers": 3, "hidden_size": 7},
}
TRANSFORMS: list[dict[str, Any]] = [
    {"op": "scale", "value": [0.5, -0.5, 2.0]},
    {"op": "offset", "value": 0.1},
    {"op": "clip_min", "value": [-0.2, 0.0, 0.3]},
]
PARTS: dict[str, dict[str, Any]] = {
    "no_bias": {"bias": False, "head": [Dense(2, "linear", False)]},
    "gru_no_bias": {"cell": "gru", "bias": False},
    "gru_reset_before_no_bias": {"cell": "gru", "reset_after": False, "bias": False},
    "head": {
        "cell": "rnn_tanh",
        "head": [Dense(40, "relu"), Dense(9, "sigmoid"), Dense(5, "tanh"), Dense(3, "softplus")],
    },
    "smooth_head": {
        "cell": "rnn_tanh",
        "head": [Dense(40, "gelu"), Dense(9, "silu"), Dense(5, "mish"), Dense(3, "gelu_tanh")],
    },
    "kinked_head": {
        "cell": "gru",
        "head": [Dense(9, "elu"), Dense(8, "selu"), Dense(5, "relu6"), Dense(3, "hard_silu")],
    },
    "bounded_head": {
        "cell": "rnn_tanh",
        "head": [Dense(9, "hard_tanh"), Dense(8, "softsign"), Dense(5, "log_sigmoid"), Dense(3, "hard_sigmoid")],
    },
    "wide_head": {"cell": "rnn_tanh", "head": [Dense(150)]},
    "no_head": {"cell": "gru", "head": []},
    "no_head_softmax": {"cell": "gru", "head": [], "output": [{"op": "softmax"}]},
    "transforms": {"cell": "rnn_tanh", "head": (3,), "output": TRANSFORMS},
    "curves": {"cell": "rnn_tanh", "head": (3,), "output": [{"op": "expm1"}, {"op": "sinh"}, {"op": "exp"}]},
    "softmax": {"cell": "rnn_tanh", "head": (150,), "output": [{"op": "scale", "value": 3.0}, {"op": "softmax"}]},
    "softmax_within": {"cell": "rnn_relu", "head": (3,), "output": [*TRANSFORMS, {"op": "softmax"}, *TRANSFORMS]},
    "tokens": {"input_size": 6, "input": {"kind": "tokens", "vocabulary": 11, "embedding_size": 6}},
    "normalized": {
        "cell": "gru",
        "input": {"kind": "features", "normalization": {"offset": [1.0, -0.2, 0.3], "scale": [2.0, 0.1, 0.5]}},
    },
}
SIZES = [  # hidden, features, batch: all pairs of values of any two
    (1, 1, 1),
    (1, 300, 16),
    (7, 1, 70),
    (7, 300, 2),
    (33, 1, 17),
    (33, 300, 70),
    (130, 1, 3),
    (130, 300, 1),
]
SHAPES = ({"cell": "lstm"}, {"cell": "gru"}, {"cell": "gru", "reset_after": False}, {"cell": "rnn_tanh"})

each_cell = pytest.mark.parametrize("case", CELLS)
each_part = pytest.mark.parametrize("case", PARTS)


@cache
def model_of(case: str, precision: Precision = "fp32") -> Model:
    return Model(cells, precision, **(CELLS | PARTS)[case])


@pytest.mark.parametrize("precision", PRECISIONS)
@each_cell
def test_cells_give_the_values_of_float64(case: str, precision: Precision) -> None:
    model = model_of(case, precision)
    check_values(model, steps=3, batch=3, tolerance=TOLERANCES[precision], rounded=ROUNDED[precision])


@each_part
def test_parts_give_the_values_of_float64(case: str) -> None:
    check_values(model_of(case), steps=2, batch=3, tolerance=TOLERANCES["fp32"])


@pytest.mark.parametrize(("number", "sizes"), list(enumerate(SIZES)))
def test_every_size_gives_the_values_of_float64(number: int, sizes: tuple[int, int, int]) -> None:
    hidden, features, batch = sizes
    model = Model(cells, hidden_size=hidden, input_size=features, **SHAPES[number % len(SHAPES)])
    check_values(model, steps=1, batch=batch, tolerance=TOLERANCES["fp32"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_layer_of_large_tiles_gives_the_values_of_float64(precision: Precision) -> None:
    model = Model(cells, precision, hidden_size=256)
    check_values(model, steps=1, batch=34, tolerance=TOLERANCES[precision], rounded=ROUNDED[precision])


@each_cell
def test_a_row_has_the_same_bits_in_any_company(case: str) -> None:
    check_company(model_of(case), batch=17, steps=1)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_reduced_precision_gives_a_row_the_same_bits_in_any_company(precision: Precision) -> None:
    check_company(model_of("lstm_projection", precision), batch=17)  # both kernels with a product


@pytest.mark.parametrize("cell", [{"cell": "lstm"}, {"cell": "gru"}, {"cell": "rnn_relu", "hidden_size": 1024}])
def test_a_row_has_the_same_bits_in_both_products_of_a_tile(cell: dict[str, Any]) -> None:
    check_company(Model(cells, "bf16", **{"hidden_size": 256} | cell), batch=34, steps=1)


@each_part
def test_parts_give_a_row_the_same_bits_in_any_company(case: str) -> None:
    check_company(model_of(case), batch=3, steps=1)


def test_a_row_has_the_same_bits_among_seventy() -> None:
    check_company(Model(cells, cell="rnn_tanh", hidden_size=7), batch=70, steps=1)


@each_cell
def test_a_chunk_has_the_bits_of_its_steps(case: str) -> None:
    check_chunks(model_of(case))


@pytest.mark.parametrize("case", ["head", "softmax_within", "tokens", "normalized"])
def test_parts_give_a_chunk_the_bits_of_its_steps(case: str) -> None:
    check_chunks(model_of(case), batch=2, steps=2)


@each_cell
def test_hostile_neighbours_change_nothing(case: str) -> None:
    check_neighbours(model_of(case))


@each_part
def test_parts_let_no_neighbour_through(case: str) -> None:
    check_neighbours(model_of(case), steps=1)


@each_cell
def test_forks_read_the_state_before_the_launch(case: str) -> None:
    check_forks(model_of(case))


def test_forks_of_a_chunk_read_the_state_before_it() -> None:
    check_forks(model_of("lstm_projection"), steps=2)


@pytest.mark.parametrize("case", CELLS | PARTS)
def test_padding_is_neither_read_nor_written_nor_flagged(case: str) -> None:
    check_padding(model_of(case), steps=1)


@pytest.mark.parametrize(
    ("precision", "numerics"),
    [
        ("fp32", "fp32 tiles=16x16x32w4,16x32x32w2,64x64x32w4,16x16x128w4"),
        ("tf32", "tf32 tiles=16x16x32w4,16x64x32w4,32x128x32w4,16x16x128w4"),
        ("bf16", "bf16 tiles=16x16x64w4,16x64x64w4,32x128x32w4,16x16x128w4"),
    ],
)
def test_numerics_name_the_precision_and_every_tile(precision: Precision, numerics: str) -> None:
    """Two models of GPU engines with the same numerics continue each other's sessions."""
    assert Model(cells, precision, hidden_size=7, head=[Dense(150), Dense(1100), Dense(2)]).cells.numerics == numerics


@pytest.mark.parametrize(("precision", "tile"), [("fp32", "64x64x32w4"), ("tf32", "64x128x32w4g2")])
def test_numerics_name_how_many_products_a_tile_has(precision: Precision, tile: str) -> None:
    """As one product of 64 rows, the same tile would be an asynchronous one, with bits of its own."""
    assert Model(cells, precision, hidden_size=256).cells.numerics.split("=")[1].split(",")[0] == tile
