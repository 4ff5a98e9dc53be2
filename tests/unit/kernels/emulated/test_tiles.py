"""Each cell in each size of tile: values, company and hostile neighbours. Takes minutes: `make check-ptx`."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import pytest
from cellkeeper_service.engine.cuda import cells
from cellkeeper_service.engine.precision import PRECISIONS, Precision

from ..chunks import Model
from ..contract import check_chunks, check_company, check_neighbours, check_values
from ..test_contract import ROUNDED, TOLERANCES

CELLS: dict[str, dict[str, Any]] = {
    "lstm": {"cell": "lstm"},
    "lstm_projection": {"cell": "lstm", "proj_size": 31},
    "gru": {"cell": "gru"},
    "gru_reset_before": {"cell": "gru", "reset_after": False},
    "rnn_tanh": {"cell": "rnn_tanh"},
}
SIZES = {33: (300, 17), 130: (40, 17), 520: (70, 66)}  # hidden -> features, batch: more rows than a tile has

each_model = pytest.mark.parametrize(
    ("cell", "hidden", "precision"), [(*one, precision) for one in product(CELLS, SIZES) for precision in PRECISIONS]
)


@cache
def model_of(cell: str, hidden: int, precision: Precision) -> Model:
    return Model(cells, precision, hidden_size=hidden, input_size=SIZES[hidden][0], **CELLS[cell])


@each_model
def test_values_are_those_of_float64(cell: str, hidden: int, precision: Precision) -> None:
    model = model_of(cell, hidden, precision)
    check_values(model, steps=2, batch=3, tolerance=TOLERANCES[precision], rounded=ROUNDED[precision])


@each_model
def test_a_row_has_the_same_bits_in_any_company(cell: str, hidden: int, precision: Precision) -> None:
    check_company(model_of(cell, hidden, precision), batch=SIZES[hidden][1], steps=1)


@each_model
def test_hostile_neighbours_change_nothing(cell: str, hidden: int, precision: Precision) -> None:
    check_neighbours(model_of(cell, hidden, precision), steps=1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_chunk_has_the_bits_of_its_steps(cell: str, precision: Precision) -> None:
    check_chunks(model_of(cell, 130, precision))
