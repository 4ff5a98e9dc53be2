"""What is given becomes a model's raw bytes; the short way for what is usual agrees with the long one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cellkeeper import InvalidArgument, Model, TensorSpec
from cellkeeper._model import Inputs

NAN, INF = float("nan"), float("inf")


def model(dtype: str = "float32", shape: tuple[int, ...] = (3,), vocabulary: int = 0, missing: bool = False) -> Model:
    spec = TensorSpec("input", dtype, shape)
    return Model("m", b"", "", True, 0.0, "", "", spec, vocabulary, missing, (), (), 8, 0, 0)


def usual(dtype: str) -> list[Any]:
    row = np.arange(3, dtype=dtype)
    swapped = row.astype(row.dtype.newbyteorder(">"))
    return [row, row.tolist(), tuple(row.tolist()), row.astype("f8"), row.astype("i4"), swapped]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_one_time_step(dtype: str) -> None:
    inputs = Inputs(model(dtype))
    expected = np.arange(3, dtype=dtype).tobytes()
    for given in usual(dtype):
        assert inputs.convert(given) == (expected, True)
    strided = np.repeat(np.arange(3, dtype=dtype), 2)[::2]
    assert inputs.convert(strided) == (expected, True)
    assert inputs.convert(np.arange(3, dtype=dtype).reshape(1, 3)) == (expected, False)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_is_refused_unless_it_means_missing(dtype: str, value: float) -> None:
    row = np.array([0.0, value, 1.0], dtype)
    for given in (row, row.tolist(), row.astype("f8"), row.reshape(1, 3)):
        with pytest.raises(InvalidArgument, match="NaN or infinity"):
            Inputs(model(dtype)).convert(given)
        raw, _ = Inputs(model(dtype, missing=True)).convert(given)
        assert raw == row.tobytes()


def test_large_values_raise_no_warning() -> None:
    row = np.array([3e38, -3e38, 0.0], np.float32)
    assert Inputs(model()).convert(row) == (row.tobytes(), True)
    with pytest.raises(InvalidArgument, match="NaN or infinity"):
        Inputs(model()).convert(np.array([1e300, 0.0, 0.0]))


def test_token_ids() -> None:
    inputs = Inputs(model("int32", (), vocabulary=10))
    for given in (7, np.int64(7), np.array(7), np.uint8(7)):
        assert inputs.convert(given) == (np.int32(7).tobytes(), True)
    assert inputs.convert([7, 9]) == (np.array([7, 9], np.int32).tobytes(), False)
    wrong: list[Any] = [10, -1, 2**40, 1.0, [1, 10], True, None]
    for given in wrong:
        with pytest.raises(InvalidArgument, match="inputs: got"):
            inputs.convert(given)
