"""The contract finds what it is meant to find: kernels with one fault each break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .chunks import Model
from .contract import check_chunks, check_company, check_forks, check_neighbours, check_padding, check_values
from .mutated import mutated_cells

Check = Callable[[Model], None]

LSTM: dict[str, Any] = {"num_layers": 2, "hidden_size": 17}  # two tiles of columns
HOLD: dict[str, Any] = {"input": {"kind": "features", "missing": {"policy": "hold", "value": 0.25}}}


def check_seventeen(model: Model) -> None:
    check_company(model, batch=17)


def check_three_steps(model: Model) -> None:
    check_values(model, steps=3, batch=2, tolerance=4e-6)


def check_rounding(model: Model) -> None:
    check_values(model, steps=2, batch=2, tolerance=4e-2, rounded=5e-4)


def breaks(folder: Path, file: str, old: str, new: str, check: Check, **config: Any) -> None:
    """Asserts that the check fails on a copy with this fault."""
    model = Model(mutated_cells(folder, f"{file}.py", old, new), **config)
    with pytest.raises(AssertionError):
        check(model)


@pytest.mark.parametrize("file", ["kernels/recurrent", "kernels/dense"])
def test_an_order_of_the_sum_that_depends_on_the_batch_is_found(tmp_path: Path, file: str) -> None:
    old = "depth = tl.arange(0, K)"
    new = "depth = tl.where(batch > 8, K - 1 - tl.arange(0, K), tl.arange(0, K))"
    breaks(tmp_path, file, old, new, check_seventeen, head=(40, 9), hidden_size=17)


def test_an_order_of_the_sum_that_depends_on_the_step_is_found(tmp_path: Path) -> None:
    old = "depth = tl.arange(0, K)"
    new = "depth = tl.where(gather != 0, K - 1 - tl.arange(0, K), tl.arange(0, K))"
    breaks(tmp_path, "kernels/recurrent", old, new, check_chunks, **LSTM)


@pytest.mark.parametrize("second", ["GROUPS - 1", "a_2, block, total_2"])
def test_a_tile_of_two_products_that_computes_one_twice_is_found(tmp_path: Path, second: str) -> None:
    breaks(
        tmp_path,
        "kernels/recurrent",
        second,
        {"GROUPS - 1": "0"}.get(second, "a, block, total_2"),
        lambda model: check_company(model, batch=34, steps=1),
        precision="bf16",
        hidden_size=256,
    )


@pytest.mark.parametrize(
    ("file", "mask", "check"),
    [
        ("kernels/products", " & (columns < WIDTH)[None, :]", check_neighbours),  # of every operand
        ("kernels/products", ", mask=rows < batch, other=-1", check_three_steps),  # rows beyond the batch
        ("kernels/dense", ", mask=rows < rows_in_all, other=-1", check_three_steps),
        ("kernels/recurrent", " & (units < layer.hidden)[None, :]", check_three_steps),  # of what is written
        ("kernels/dense", " & (columns < UNITS)[None, :]", check_neighbours),
        ("kernels/transform", " & real", check_padding),
        ("kernels/finish", ", mask=first + block < WIDTH, other=0.0", check_neighbours),
        ("kernels/preprocess", " & inside[None, :]", check_three_steps),
    ],
)
def test_a_dropped_mask_is_found(tmp_path: Path, file: str, mask: str, check: Check) -> None:
    config = {"output": [{"op": "scale", "value": 2.0}]} if file == "kernels/transform" else {}
    breaks(tmp_path, file, mask, "", check, **LSTM, **HOLD, **config)


def test_padding_that_counts_as_a_row_is_found(tmp_path: Path) -> None:
    old = "return rows, places, places >= 0"
    new = "return rows, tl.maximum(places, 0), rows < batch"
    breaks(tmp_path, "kernels/products", old, new, check_padding, cell="rnn_tanh")


def test_a_scatter_into_the_row_that_is_still_read_is_found(tmp_path: Path) -> None:
    """The last step writes the arena in place while other column tiles still read h from there."""
    old = "    _keep_h(h, after,"
    new = "    tl.store(before + start[:, None] + (layer.h_at + units)[None, :], h, mask=mask)\n    _keep_h(h, after,"
    breaks(tmp_path, "kernels/recurrent", old, new, check_forks, **LSTM)


def test_steps_that_write_the_buffer_they_read_are_found(tmp_path: Path) -> None:
    old = "before, after = scratch.states[(step + 1) % 2], scratch.states[step % 2]"
    breaks(tmp_path, "cells", old, "before = after = scratch.states[0]", check_three_steps, **LSTM)


def test_an_arena_written_before_it_is_read_is_found(tmp_path: Path) -> None:
    """The held inputs are written directly to the row that is read."""
    old = "tl.store(states + rows.to(tl.int64)[:, None] * ROW_WIDTH"
    new = "tl.store(arena + places.to(tl.int64)[:, None] * ROW_WIDTH"
    breaks(tmp_path, "kernels/preprocess", old, new, check_forks, cell="rnn_tanh", **HOLD)


def test_a_state_rounded_to_the_precision_of_the_products_is_found(tmp_path: Path) -> None:
    old = "c = f * c + i * g"
    new = "c = (f * c + i * g).to(tl.bfloat16).to(tl.float32)"
    breaks(tmp_path, "kernels/recurrent", old, new, check_rounding, precision="bf16", **LSTM)
