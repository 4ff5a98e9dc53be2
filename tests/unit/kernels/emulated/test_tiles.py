"""Each cell in each size of tile: values, company and hostile neighbours. Takes minutes: `make check-ptx`."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from cellkeeper_service.engine.cuda import cells
from cellkeeper_service.engine.precision import PRECISIONS, Precision

from ..chunks import Model
from ..contract import check_chunks, check_company, check_neighbours, check_values
from ..test_contract import ROUNDED, TOLERANCES

pytestmark = pytest.mark.timeout(900)  # on a machine with other work, too

CELLS: dict[str, dict[str, Any]] = {
    "lstm": {"cell": "lstm"},
    "lstm_projection": {"cell": "lstm", "proj_size": 15},
    "gru": {"cell": "gru"},
    "gru_reset_before": {"cell": "gru", "reset_after": False},
    "rnn_tanh": {"cell": "rnn_tanh"},
}
# the hidden units with the smallest tile, the middle one, and the largest, which depends on the parts of a unit
SIZES = {"small": dict.fromkeys(CELLS, 17), "middle": dict.fromkeys(CELLS, 130)}
SIZES["large"] = dict.fromkeys(CELLS, 260) | {"gru_reset_before": 520, "rnn_tanh": 1030}
FEATURES = {"small": 300, "middle": 40, "large": 70}

each_model = pytest.mark.parametrize(
    ("cell", "size", "precision"), [(cell, size, one) for cell in CELLS for size in SIZES for one in PRECISIONS]
)


@cache
def model_of(cell: str, size: str, precision: Precision) -> Model:
    return Model(cells, precision, hidden_size=SIZES[size][cell], input_size=FEATURES[size], **CELLS[cell])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_sizes_have_different_tiles(cell: str, precision: Precision) -> None:
    assert len({model_of(cell, size, precision).cells.numerics.split(",")[0] for size in SIZES}) == len(SIZES)


@each_model
def test_values_are_those_of_float64(cell: str, size: str, precision: Precision) -> None:
    model = model_of(cell, size, precision)
    check_values(model, steps=2, batch=3, tolerance=TOLERANCES[precision], rounded=ROUNDED[precision])


@each_model
def test_a_row_has_the_same_bits_in_any_company(cell: str, size: str, precision: Precision) -> None:
    # more rows than a tile has, or, where that takes minutes, than one of its products
    batch = 17 if size != "large" else 66 if SIZES[size][cell] < 1000 else 34
    check_company(model_of(cell, size, precision), batch, steps=1)


@each_model
def test_hostile_neighbours_change_nothing(cell: str, size: str, precision: Precision) -> None:
    check_neighbours(model_of(cell, size, precision), steps=1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_chunk_has_the_bits_of_its_steps(cell: str, precision: Precision) -> None:
    check_chunks(model_of(cell, "middle", precision))
